//! How commands end: by signals, on a full disk, and with which exit code.

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::collection::Collection;
use support::servers::process::wait_for;

use super::{facemill, path};

/// A pipe whose reader has gone: writing to it fails.
fn nobody_reads() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// A terminal whose window is closed: writing to it fails.
fn closed_terminal() -> Stdio {
    let (mut window, mut terminal) = (0, 0);
    let nothing = std::ptr::null_mut();
    // SAFETY: the call only writes the two descriptors, which nothing else owns.
    let opened = unsafe {
        assert_eq!(libc::openpty(&mut window, &mut terminal, nothing, std::ptr::null(), std::ptr::null()), 0);
        [OwnedFd::from_raw_fd(window), OwnedFd::from_raw_fd(terminal)]
    };
    let [_window, terminal] = opened;
    terminal.into()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_run_hears_signals_when_nobody_reads_its_output() {
    let collection = Collection::serve();
    let unread: [fn() -> Stdio; 2] = [nobody_reads, closed_terminal];
    for (output, name, code) in [(unread[0], "-TERM", 143), (unread[0], "-INT", 130), (unread[1], "-TERM", 143)] {
        let scratch = tempfile::tempdir().unwrap();
        let mut run = Command::new(env!("CARGO_BIN_EXE_facemill"))
            .args(collection.run_text(scratch.path()))
            // Log lines fail to be written, too.
            .args(["-vv", "--cores", "1"])
            .stdout(output())
            .stderr(output())
            .spawn()
            .unwrap();
        wait_for("the first photo", || {
            let status = facemill(&["status", "--out", path(scratch.path()), "--json"]);
            let status: Value = serde_json::from_slice(&status.stdout).ok()?;
            status["stages"]["fetch"]["passed"].as_u64().filter(|passed| *passed > 0)
        });
        signal(&run, name);
        assert_eq!(run.wait().unwrap().code(), Some(code), "{name}");
    }
}

#[test]
fn a_full_disk_ends_a_run_that_continues_once_there_is_room() {
    let collection = Collection::serve();
    let scratch = tempfile::tempdir().unwrap();
    let disk = scratch.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    // The disk exists only for this shell and what it starts. It has 3 MB of room, then more.
    let script = r#"
        mount -t tmpfs -o size=400m tmpfs "$DISK" || exit 90
        head -c 397M /dev/zero > "$DISK/filler"
        "$@" > /dev/null 2> "$LOG"
        echo $?
        rm "$DISK/filler"
        "$@" > /dev/null || exit 91
        "$1" audit "$DUMP" --out "$DISK/out" --json
    "#;
    let out = disk.join("out");
    let log = scratch.path().join("log");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_facemill")])
        .args(collection.run_text(&out))
        .envs([("DISK", path(&disk)), ("LOG", path(&log)), ("DUMP", path(&collection.dump))])
        .output()
        .expect("unshare of util-linux");
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let (code, audit) = printed.split_once('\n').unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(code, "3", "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("facemill: ") && last.contains("run the same command again"), "{log}");
    // The ledger or a picture, whichever is written first.
    assert!(last.contains(": the disk is full"), "{log}");
    assert!(log.lines().count() < 10, "one message, not one for each photo: {log}");
    let audit: Value = serde_json::from_str(audit).unwrap();
    assert_eq!(audit["candidates"], collection.candidates().len());
    assert_eq!((&audit["waiting"], &audit["faults"]), (&0.into(), &serde_json::json!([])));
}

#[test]
fn wrong_usage_ends_with_2_and_what_is_not_there_with_3() {
    let scratch = tempfile::tempdir().unwrap();
    let missing = scratch.path().join("nowhere");
    let missing = path(&missing);
    let settings = scratch.path().join("settings.toml");
    std::fs::File::create(&settings).unwrap().write_all(b"per-hots = 3\n").unwrap();
    let usage: &[&[&str]] = &[
        &["run", "dump.sql", "--map", "photos"],
        &["run", "dump.sql", "--attempts", "0"],
        &["run", "dump.sql", "--cores", "0"],
        &["run", "dump.sql", "--min-face", "0"],
        &["run", "dump.sql", "--resolve", "nonsense"],
        &["run", "dump.sql", "--copy"],
        &["candidates", "dump.sql", "--label-from", "folder"],
        &["produce", "dump.sql"],
        &["work", "fetch"],
        &["pause", "detect"],
        &["settings", "nonsense"],
        &["report", "--ok-threshold", "2"],
        &["export", "--to", "faces.zip", "--size", "500"],
        &["--settings", path(&settings), "status"],
    ];
    let absent: &[&[&str]] = &[
        &["takedown", "--out", missing],
        &["run", missing, "--out", missing],
        &["status", "--out", missing],
        &["--settings", missing, "status"],
        &["verdicts", "import", missing, "--out", missing],
    ];
    for (commands, code) in [(usage, 2), (absent, 3)] {
        for command in commands {
            let output = facemill(command);
            assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
            assert!(!output.stderr.is_empty());
        }
    }
    assert!(!Path::new(missing).exists());
}

#[test]
fn a_command_that_prints_to_a_closed_pipe_ends() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_facemill"))
        .args(["run", "no-such-dump.sql"])
        .stdout(nobody_reads())
        .stderr(nobody_reads())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "not the 101 of a panic");
    let mut child = Command::new(env!("CARGO_BIN_EXE_facemill"))
        .args(["settings", "work"])
        .stdout(nobody_reads())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(error, "");
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let bash = facemill(&["completions", "bash"]);
    assert!(bash.status.success(), "{bash:?}");
    // The script completes what the program understands.
    let scratch = tempfile::tempdir().unwrap();
    let script = scratch.path().join("facemill.bash");
    std::fs::write(&script, bash.stdout).unwrap();
    let check = r#"
        . "$0"
        COMP_WORDS=(facemill wo); COMP_CWORD=1; _facemill facemill wo facemill; echo ${COMPREPLY[@]}
        COMP_WORDS=(facemill work fetch --per-h); COMP_CWORD=3; _facemill facemill --per-h fetch; echo ${COMPREPLY[@]}
    "#;
    let completed = Command::new("bash").args(["--norc", "-c", check, path(&script)]).output().unwrap();
    assert_eq!(String::from_utf8(completed.stdout).unwrap(), "work\n--per-host\n");
    for shell in ["zsh", "fish"] {
        let script = String::from_utf8(facemill(&["completions", shell]).stdout).unwrap();
        assert!(script.contains("per-host") && script.contains("takedown"), "{script}");
    }

    assert!(facemill(&["man", "--to", path(scratch.path())]).status.success());
    for page in ["facemill.1", "facemill-run.1", "facemill-dead-list.1"] {
        let text = std::fs::read_to_string(scratch.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS") && text.contains(".SH OPTIONS"), "{page}: {text}");
    }
    assert!(!scratch.path().join("facemill-describe.1").exists(), "it is for programs");
    let one = String::from_utf8(facemill(&["man", "dead", "list"]).stdout).unwrap();
    assert_eq!(one, std::fs::read_to_string(scratch.path().join("facemill-dead-list.1")).unwrap());
    assert!(one.contains("facemill dead list") && one.contains(r"FACEMILL_OUT"), "{one}");
    assert_eq!(facemill(&["man", "nonsense"]).status.code(), Some(2));
}

#[test]
fn a_failed_command_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let [inputs, place] = ["inputs", "place"].map(|name| scratch.path().join(name));
    for folder in [&inputs, &place] {
        std::fs::create_dir(folder).unwrap();
    }
    let file = |name: &str, text: &str| {
        std::fs::write(inputs.join(name), text).unwrap();
        inputs.join(name).to_str().unwrap().to_owned()
    };
    let [cut, text, empty] = [("cut.sql", "CREATE TABLE x ("), ("text.sql", "no dump"), ("empty.sql", "")]
        .map(|(name, text)| file(name, text));
    let urls = file("urls.txt", "http://photos.test/1.jpg\n");
    let photos = support::project().join(".cache/photos");
    let servers = ["--amqp", "amqp://127.0.0.1:1/", "--redis", "redis://127.0.0.1:1/", "--bucket", "b"];
    let s3 = ["--s3-endpoint", "http://127.0.0.1:1", "--aws-access-key-id", "a", "--aws-secret-access-key", "b"];
    let on_servers = |command: &[&'static str]| [command, &servers, &s3].concat();
    let commands: Vec<Vec<&str>> = vec![
        vec!["run", &cut, "--out", "a/b"],
        vec!["run", &text, "--out", "a/b"],
        vec!["run", &empty, "--out", "a/b"],
        vec!["run", "missing.sql", "--out", "a/b"],
        vec!["run", &urls, "--out", "a/b", "--models", "nowhere"],
        vec!["run", &urls, "--out", "a/b", "--min-face", "0"],
        [&["run", "s3://b/dump.sql", "--out", "a/b"][..], &s3].concat(),
        vec!["demo", "--photos", "nowhere", "--out", "a/b"],
        vec!["demo", "--photos", path(&photos), "--out", "a/b", "--models", "nowhere"],
        vec!["recrop", "--out", "none", "--as", "a/b"],
        vec!["report", "--out", "none"],
        vec!["faces", "--out", "none", "--index", "a/index.sqlite"],
        vec!["export", "--out", "none", "--to", "a/b.zip"],
        vec!["export", "--out", "none", "--to", "a/b", "--format", "folder"],
        vec!["curate", "--out", "none"],
        vec!["verdicts", "export", "--out", "none", "--to", "a/verdicts.csv"],
        vec!["users", "add", "ada"],
        vec!["train", "--out", "none", "--to", "a/model.onnx"],
        vec!["suggest", "--out", "none"],
        vec!["duplicates", "--out", "none"],
        vec!["identities", "--out", "none"],
        vec!["models", "use", "none.onnx", "--out", "none"],
        vec!["rescore", "--model", "none.onnx", "--out", "none"],
        vec!["measure", "--out", "none"],
        vec!["audit", &urls, "--out", "none"],
        on_servers(&["report", "--to", "a/b"]),
        on_servers(&["faces"]),
        on_servers(&["work", "fetch"]),
        // Its check of the folder leaves nothing either.
        vec!["doctor", "--out", "a/b"],
        vec!["doctor"],
    ];
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_facemill"))
            .args(&command)
            .current_dir(&place)
            .envs([("HOME", &place), ("XDG_CACHE_HOME", &place.join("cache"))])
            .output()
            .unwrap();
        let code = output.status.code();
        assert!(code == Some(3) || code == Some(2) || command[0] == "doctor", "{command:?}: {output:?}");
        let left: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{command:?} left {left:?}: {output:?}");
    }
}
