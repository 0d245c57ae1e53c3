//! Settings in a file, and their precedence.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::installation::Installation;

struct File {
    path: PathBuf,
    _scratch: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("facemill.toml");
        std::fs::write(&path, text).unwrap();
        Self { path, _scratch: scratch }
    }

    /// A command that takes its settings from the file only.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
        command.arg("--settings").arg(&self.path).args(arguments);
        let named = std::env::vars().map(|(name, _)| name);
        named.filter(|name| name.starts_with("FACEMILL_") || name.starts_with("AWS_")).for_each(|name| {
            command.env_remove(name);
        });
        command
    }

    fn settings(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Value {
        let mut command = self.command(&["settings", "--json"]);
        let output = command.args(arguments).envs(environment.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn text_of(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

fn of<'a>(shown: &'a Value, name: &str, command: &str) -> (&'a Value, &'a str) {
    let rows = shown["settings"].as_array().unwrap().iter();
    let mut found = rows
        .filter(|row| row["setting"] == name && row["commands"].as_array().unwrap().iter().any(|has| has == command));
    let row = found.next().unwrap_or_else(|| panic!("no {name} of {command} in {shown:#}"));
    assert!(found.next().is_none(), "{name} of {command} twice in {shown:#}");
    (&row["values"][0], row["from"].as_str().unwrap())
}

#[test]
fn flags_override_the_environment_and_the_environment_the_file() {
    let file =
        File::new("per-host = 2\nattempts = 5\nredis = \"redis://:hunter2@h:1/\"\n[work]\nattempts = 6\ngrace = 9\n");
    let environment = [("FACEMILL_PER_HOST", "3"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
    let shown = file.settings(&[], &environment);
    assert_eq!(shown["file"], file.path.to_str().unwrap());
    assert_eq!(of(&shown, "per-host", "run"), (&"3".into(), "environment"));
    assert_eq!(of(&shown, "attempts", "run"), (&"5".into(), "file"));
    assert_eq!(of(&shown, "attempts", "work"), (&"6".into(), "file"));
    assert_eq!(of(&shown, "redis", "status"), (&"redis://:***@h:1/".into(), "file"));
    assert_eq!(of(&shown, "aws-secret-access-key", "work"), (&"***".into(), "environment"));
    assert_eq!(of(&shown, "timeout", "work"), (&"30".into(), "default"));
    assert_eq!(of(&shown, "listen", "work"), (&Value::Null, "default"));
    assert!(!shown.to_string().contains("hunter2"));

    let shown = file.settings(&["work", "--per-host", "4"], &environment);
    assert_eq!(of(&shown, "per-host", "work"), (&"4".into(), "flag"));
    assert_eq!(of(&shown, "grace", "work"), (&"9".into(), "file"));

    let text = text_of(&file.command(&["settings"]).output().unwrap());
    assert!(text.contains("file") && !text.contains("hunter2"), "{text}");
    for help in [&["work", "--help"][..], &["help", "status"]] {
        let help = text_of(&file.command(help).env("FACEMILL_REDIS_URL", "redis://:hunter2@h/").output().unwrap());
        assert!(help.contains("--redis") && !help.contains("hunter2"), "{help}");
    }
}

#[test]
fn all_faults_of_a_file_are_reported_at_once() {
    let file = File::new("per-host = 0\nper-hots = 3\nredis = \"hunter2\"\n[work]\nconcurrency = \"many\"\n");
    let output = file.command(&["status"]).output().unwrap();
    let faults = text_of(&output);
    assert_eq!(output.status.code(), Some(2), "{faults}");
    let path = file.path.to_str().unwrap();
    for fault in ["per-host 0: expected 1", "per-hots: no such setting", "redis: ", "work.concurrency: `many`"] {
        assert!(faults.contains(&format!("{path}: {fault}")), "{fault} is not in {faults}");
    }
    assert!(!faults.contains("hunter2"), "{faults}");
    assert_eq!(
        file.command(&["status", "--help"]).output().unwrap().status.code(),
        Some(0),
        "help works without valid settings"
    );

    let missing = File { path: "/nowhere/facemill.toml".into(), _scratch: tempfile::tempdir().unwrap() };
    assert!(text_of(&missing.command(&["status"]).output().unwrap()).contains("/nowhere/facemill.toml"));
}

#[test]
fn a_file_alone_configures_an_installation() {
    let installation = Installation::new();
    let value = |name: &str| installation.environment.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    let known = [
        ("amqp", "FACEMILL_AMQP_URL"),
        ("redis", "FACEMILL_REDIS_URL"),
        ("bucket", "FACEMILL_S3_BUCKET"),
        ("s3-endpoint", "FACEMILL_S3_ENDPOINT"),
        ("aws-access-key-id", "AWS_ACCESS_KEY_ID"),
        ("aws-secret-access-key", "AWS_SECRET_ACCESS_KEY"),
        ("prefix", "FACEMILL_PREFIX"),
        ("run", "FACEMILL_RUN"),
    ];
    let text: String = known.iter().map(|(key, name)| format!("{key} = {:?}\n", value(name))).collect();
    let file = File::new(&(text + "s3-prefix = \"team/one\"\n"));
    let doctor = file.command(&["doctor", "--json"]).output().unwrap();
    assert!(doctor.status.success(), "{doctor:?}");
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/source_data/expected.csv");
    let produced = file.command(&["produce", "--limit", "2", table.to_str().unwrap()]).output().unwrap();
    assert!(produced.status.success(), "{produced:?}");
    assert_eq!(installation.json(&["status"])["candidates"], 2, "the environment selects the same run");
}
