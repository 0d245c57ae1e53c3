//! `facemill users` as a process.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::servers::seaweedfs::SeaweedFs;

const PASSWORD: &str = "correct horse battery";

/// Runs `facemill users` and gives it one line of input.
fn users(arguments: &[&str], settings: &[(String, String)], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command.arg("users").args(arguments).envs(settings.iter().cloned());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that needs no password does not read it.
    let _ = writeln!(child.stdin.take().unwrap(), "{input}");
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn printed(output: &Output) -> &str {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    text(&output.stderr)
}

/// The same steps on a folder and on a bucket.
fn suite(store: &[&str], settings: &[(String, String)]) {
    let users = |arguments: &[&str], input: &str| users(&[arguments, store].concat(), settings, input);
    assert_eq!(printed(&users(&["list"], "")), "no users yet: `facemill users add NAME` adds one\n");
    assert_eq!(printed(&users(&["add", "ada"], PASSWORD)), "added ada, curator\n");
    assert_eq!(
        printed(&users(&["add", "bob@example.org", "--role", "viewer"], PASSWORD)),
        "added bob@example.org, viewer\n"
    );
    printed(&users(&["add", "carol", "--without-password"], ""));
    let taken = users(&["add", "ada"], PASSWORD);
    assert_eq!(refused(&taken), "facemill: there is a user ada: `facemill users passwd ada` sets another password\n");
    let short = users(&["passwd", "ada"], "short");
    assert_eq!(refused(&short), "facemill: the password has 5 characters: expected 12 or more\n");
    assert!(refused(&users(&["passwd", "dora"], PASSWORD)).contains("there is no user dora"));
    assert_eq!(users(&["add", "no good"], PASSWORD).status.code(), Some(2));

    let listed: Value = serde_json::from_str(printed(&users(&["list", "--json"], ""))).unwrap();
    let part = |name: &str| listed.as_array().unwrap().iter().map(|user| user[name].clone()).collect::<Vec<_>>();
    assert_eq!(part("name"), ["ada", "bob@example.org", "carol"]);
    assert_eq!(part("role"), ["curator", "viewer", "curator"]);
    assert_eq!(part("has_password"), [true, true, false]);
    assert!(!listed.to_string().contains("argon2"), "no hash is printed");

    let changed = printed(&users(&["passwd", "ada"], "another password")).to_owned();
    assert_eq!(changed, "set the password of ada and ended all sessions of ada\n");
    assert_eq!(printed(&users(&["remove", "bob@example.org"], "")).lines().count(), 1);
    let left = printed(&users(&["list"], "")).to_owned();
    assert!(
        left.starts_with("ada    curator  password of 2") && left.contains("carol  curator  no password"),
        "{left}"
    );
}

#[test]
fn users_of_a_folder_are_added_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    suite(&["--out", out], &[]);
    let file = folder.path().join("curation/users.json");
    let content = std::fs::read_to_string(&file).unwrap();
    assert!(content.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !content.contains("another"), "{content}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let missing = Path::new(out).join("missing");
    let output = users(&["list", "--out", missing.to_str().unwrap()], &[], "");
    let expected = format!("facemill: there is no folder {}: --out names the folder of a run\n", missing.display());
    assert_eq!(refused(&output), expected);
}

#[test]
fn users_of_an_installation_need_only_its_bucket() {
    let store = SeaweedFs::shared().settings();
    let settings = [
        ("FACEMILL_S3_ENDPOINT", store.endpoint.clone().unwrap()),
        ("FACEMILL_S3_BUCKET", store.bucket.clone()),
        ("FACEMILL_S3_PREFIX", "users".to_owned()),
        ("AWS_ACCESS_KEY_ID", SeaweedFs::keys().access_key_id),
        ("AWS_SECRET_ACCESS_KEY", SeaweedFs::keys().secret_access_key),
    ];
    suite(&[], &settings.map(|(name, value)| (name.to_owned(), value)));
}
