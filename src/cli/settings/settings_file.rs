//! The settings file: TOML with the long flags as keys. A key at the top applies to every command that has the flag, a
//! key in the table of a command to that command. `[hosts."NAME"]` has the settings of one host. The values become the
//! defaults of the flags, so that flags and the environment override them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command, FromArgMatches};
use toml::Value;

use crate::cli::failure::Failure;
use crate::cli::settings::flags::StageArgs;
use crate::cli::settings::host_entry::{HOSTS, HostEntry};
use crate::cli::settings::process_args::ProcessArgs;
use crate::cli::settings::servers::ServerArgs;

/// The flag that names the file.
const FLAG: &str = "--settings";
const ENV: &str = "FACEMILL_SETTINGS";

/// The path of the file, from the flag or the environment.
pub fn find(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == FLAG {
            return arguments.next().map(PathBuf::from);
        }
        let text = argument.to_str().and_then(|text| text.strip_prefix(FLAG));
        if let Some(path) = text.and_then(|text| text.strip_prefix('=')) {
            return Some(path.into());
        }
    }
    std::env::var_os(ENV).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Whether a flag is a setting, which applies to more than one call. `--json` and `--yes` are not.
pub fn is_setting(arg: &Arg) -> bool {
    let is_kept = arg.get_env().is_some() || arg.get_help_heading().is_some();
    arg.get_long().is_some_and(|long| FLAG.strip_prefix("--") != Some(long)) && is_kept
}

/// Whether the value must not be printed.
pub fn is_secret(arg: &Arg) -> bool {
    arg.is_hide_env_values_set()
}

/// The values of a settings file.
#[derive(Debug)]
pub struct SettingsFile {
    pub path: PathBuf,
    /// By command (none: all commands) and long flag.
    values: BTreeMap<(Option<String>, String), Vec<String>>,
}

impl SettingsFile {
    const LARGEST: u64 = 1 << 20;

    /// Reads the file and checks it against the flags of all commands. Reports every fault with file and key, and no
    /// value of a secret.
    pub fn read(path: &Path, command: &Command) -> Result<Self, Failure> {
        let failed = |why: String| Failure::broken(format!("{}: {why}", path.display()));
        let length = path.metadata().map_err(|error| failed(error.to_string()))?.len();
        if length > Self::LARGEST {
            return Err(failed("not a settings file: it is too large".into()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let (file, faults) = Self::parse(path, &text, command);
        match faults.is_empty() {
            true => Ok(file),
            false => {
                let named: Vec<String> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
                Err(Failure::settings(&named))
            }
        }
    }

    fn parse(path: &Path, text: &str, command: &Command) -> (Self, Vec<String>) {
        let mut file = Self { path: path.to_owned(), values: BTreeMap::new() };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            // Only part of the parser's message: it quotes the line, which may have a password.
            Err(error) => return (file, vec![malformed(&error, text)]),
        };
        let mut faults = Vec::new();
        for (key, value) in &table {
            match value {
                Value::Table(hosts) if key == HOSTS => faults.extend(file.add_hosts(hosts)),
                Value::Table(inner) => match command.find_subcommand(key) {
                    Some(found) => inner.iter().for_each(|(key, value)| {
                        let of = (found, Some(found.get_name()));
                        faults.extend(file.add(&[of.0], of.1, key, value));
                    }),
                    None => faults.push(format!("[{key}]: no such command")),
                },
                value => {
                    let all: Vec<&Command> = command.get_subcommands().collect();
                    faults.extend(file.add(&all, None, key, value));
                }
            }
        }
        let found: Vec<String> = command.get_subcommands().flat_map(|command| file.check(command)).collect();
        for fault in found {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        (file, faults)
    }

    /// Adds one value; returns the fault if it is not valid.
    fn add(&mut self, commands: &[&Command], table: Option<&str>, key: &str, value: &Value) -> Option<String> {
        let place = table.map_or_else(|| key.to_owned(), |table| format!("{table}.{key}"));
        let Some(arg) = commands.iter().find_map(|command| setting(command, key)) else {
            return Some(match table {
                Some(table) => format!("{place}: `facemill {table}` has no such setting"),
                None => format!("{place}: no such setting"),
            });
        };
        match texts(arg, value).and_then(|values| accept(arg, values)) {
            Ok(values) => {
                self.values.insert((table.map(str::to_owned), key.to_owned()), values);
                None
            }
            Err(why) => Some(format!("{place}: {why}")),
        }
    }

    /// Adds the settings of hosts; returns the faults.
    fn add_hosts(&mut self, hosts: &toml::Table) -> Vec<String> {
        let mut faults = Vec::new();
        let mut values = Vec::new();
        for (name, settings) in hosts {
            let entry = match settings {
                Value::Table(_) => HostEntry::new(name, settings.clone()).map_err(|error| error.to_string()),
                _ => Err("expected a table of settings".to_owned()),
            };
            match entry.and_then(|_| serde_json::to_string(settings).map_err(|error| error.to_string())) {
                Ok(settings) => values.push(format!("{name}={settings}")),
                Err(why) => faults.push(format!("{HOSTS}.\"{name}\": {why}")),
            }
        }
        self.values.insert((None, HOSTS.to_owned()), values);
        faults
    }

    /// The faults that the commands find beside those of single flags.
    fn check(&self, command: &Command) -> Vec<String> {
        let name = command.get_name();
        let mut faults = match name {
            "run" => self.parts::<ProcessArgs>(name).and_then(|args| args.settings().err()),
            "work" => self.parts::<StageArgs>(name).and_then(|args| args.settings(1, Vec::new()).err()),
            _ => None,
        }
        .map(|failure| failure.message.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
        .unwrap_or_default();
        faults.extend(self.parts::<ServerArgs>(name).map(|args| args.faults()).unwrap_or_default());
        faults.iter().map(|fault| fault.trim_start_matches("--").to_owned()).collect()
    }

    /// Flags of a command with values from the file only.
    fn parts<T: FromArgMatches + clap::Args>(&self, command: &str) -> Option<T> {
        let parts = T::augment_args(Command::new(command.to_owned()).no_binary_name(true));
        let parts = self.with_defaults(parts, command).mut_args(|arg| arg.env(Resettable::Reset));
        T::from_arg_matches(&parts.try_get_matches_from(Vec::<OsString>::new()).ok()?).ok()
    }

    /// The value of a command's setting in the file.
    pub fn get(&self, command: &str, key: &str) -> Option<&[String]> {
        let of = |table: Option<&str>| self.values.get(&(table.map(str::to_owned), key.to_owned()));
        of(Some(command)).or_else(|| of(None)).map(Vec::as_slice)
    }

    /// Sets the values as defaults of all commands.
    pub fn apply(&self, command: Command) -> Command {
        command.mut_subcommands(|command| {
            let name = command.get_name().to_owned();
            self.with_defaults(command, &name)
        })
    }

    fn with_defaults(&self, command: Command, name: &str) -> Command {
        let command = command.mut_args(|arg| match arg.get_long().and_then(|long| self.get(name, long)) {
            Some(values) if is_setting(&arg) => {
                let is_secret = is_secret(&arg);
                arg.default_values(values.to_vec()).hide_default_value(is_secret)
            }
            _ => arg,
        });
        command.mut_subcommands(|command| self.with_defaults(command, name))
    }
}

fn malformed(error: &toml::de::Error, text: &str) -> String {
    let line = error
        .span()
        .map(|span| text.as_bytes()[..span.start.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", error.message()),
        None => error.message().to_owned(),
    }
}

/// The setting of a command or its subcommands with this long flag.
fn setting<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(key) && is_setting(arg));
    own.or_else(|| command.get_subcommands().find_map(|command| setting(command, key)))
}

/// The values as they would be on the command line, if their type fits.
fn texts(arg: &Arg, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
            values.iter().map(|value| text(arg, value)).collect()
        }
        Value::Array(_) => Err("expected one value, not a list".into()),
        value => text(arg, value).map(|text| vec![text]),
    }
}

fn text(arg: &Arg, value: &Value) -> Result<String, String> {
    use std::any::TypeId;
    let kind = arg.get_value_parser().type_id();
    let is = |types: &[TypeId]| types.iter().any(|one| kind == *one);
    let is_number = is(&[TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()]);
    let is_text = is(&[TypeId::of::<String>(), TypeId::of::<PathBuf>()]);
    match (value, arg.get_action()) {
        (Value::Boolean(value), ArgAction::SetTrue) => Ok(value.to_string()),
        (_, ArgAction::SetTrue) => Err("expected true or false".into()),
        (Value::String(_), _) if is_number => Err("expected a number".into()),
        (Value::Integer(_) | Value::Float(_), _) if is_text => Err("expected a text".into()),
        (Value::String(text), _) => Ok(text.clone()),
        (Value::Integer(number), _) => Ok(number.to_string()),
        (Value::Float(number), _) => Ok(number.to_string()),
        _ => Err("expected a text or a number".into()),
    }
}

/// Checks the values with the flag's own parser.
fn accept(arg: &Arg, values: Vec<String>) -> Result<Vec<String>, String> {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Ok(values);
    }
    let alone = Command::new("setting").no_binary_name(true).disable_help_flag(true).arg(arg.clone());
    let flag = arg.get_long().unwrap_or_default();
    let Err(error) = alone.try_get_matches_from(values.iter().map(|value| format!("--{flag}={value}"))) else {
        return Ok(values);
    };
    let why = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(known)) => format!("expected {}", known.join(", ")),
        _ => std::error::Error::source(&error).map_or_else(|| "it is not valid".into(), ToString::to_string),
    };
    match is_secret(arg) {
        true => Err("it is not valid".into()),
        false => Err(format!("`{}`: {why}", values.join(" "))),
    }
}

/// A secret as it is printed: an address without its password, the settings of a host without their headers, or a mask.
pub fn masked(value: &OsStr) -> String {
    const MASK: &str = "***";
    if let Some(entry) = value.to_str().and_then(|text| text.parse::<HostEntry>().ok()) {
        return entry.masked();
    }
    let url = value.to_str().and_then(|text| url::Url::parse(text).ok()).filter(url::Url::has_host);
    let Some(mut url) = url else { return MASK.into() };
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.into();
    }
    if url.query().is_some() {
        url.set_query(Some(MASK));
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(text: &str) -> (SettingsFile, Vec<String>) {
        SettingsFile::parse(Path::new("f.toml"), text, &crate::cli::Cli::command())
    }

    #[test]
    fn every_fault_is_told_and_no_secret() {
        let (_, faults) = parse(
            r#"
            redis = "hunter2"
            amqp = 5
            per-host = "4"
            per-hots = 4
            search = "everywhere"
            json = true
            contact = ["a"]
            waits = "soon"
            max-megapixels = 0
            cores = 0
            s3-prefix = "/x"
            allow-private-addresses = "yes"
            [work]
            concurrency = "many"
            out = "x"
            [worker]
            x = 1
            [hosts."a b"]
            [hosts."a.example"]
            per-hots = 4
            headers = { Authorization = "hunter2" }
            "#,
        );
        let report = faults.join("\n");
        for start in [
            "redis: cannot use the Redis URL",
            "amqp: expected a text",
            "per-host: expected a number",
            "per-hots: no such setting",
            "search: `everywhere`: expected guided, full",
            "json: no such setting",
            "contact: expected one value",
            "waits: `soon`: ",
            "max-megapixels 0: expected 1 to 1000",
            "cores 0: expected 1 to 1024",
            "s3-prefix: `/x`: a key prefix",
            "allow-private-addresses: expected true or false",
            "work.concurrency: `many`: expected a number",
            "work.out: `facemill work` has no such setting",
            "[worker]: no such command",
            "hosts.\"a b\": expected the name of a host",
            "hosts.\"a.example\": no such setting: per-hots",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start} is not in\n{report}");
        }
        assert_eq!(faults.len(), 17, "{report}");
        assert!(!report.contains("hunter2"), "{report}");
        let (_, faults) = parse("a = 1\nredis = \"hunter2\n");
        assert!(faults[0].starts_with("line 2: ") && !faults[0].contains("hunter2"), "{faults:?}");
    }

    #[test]
    fn a_commands_own_table_comes_first() {
        let (file, faults) =
            parse("waits = 3\nattempts = 2\nresolve = [\"a=1.2.3.4:5\"]\n[work]\nattempts = 7\nconcurrency = 3\n");
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(file.get("work", "attempts"), Some(&["7".to_owned()][..]));
        assert_eq!(file.get("run", "attempts"), Some(&["2".to_owned()][..]));
        assert_eq!(file.get("run", "concurrency"), None);
        let attempts = |command: &[&str]| {
            let matches = file.apply(crate::cli::Cli::command()).try_get_matches_from(command).unwrap();
            *matches.subcommand().unwrap().1.get_one::<u32>("attempts").unwrap()
        };
        assert_eq!(attempts(&["facemill", "work", "fetch"]), 7);
        assert_eq!(attempts(&["facemill", "run", "dump"]), 2);
        assert_eq!(attempts(&["facemill", "run", "dump", "--attempts", "9"]), 9);
    }

    #[test]
    fn hosts_have_settings_of_their_own() {
        let (file, faults) = parse(
            r#"
            [hosts."Photos.example"]
            per-host = 64
            spacing = 0
            headers = { X-Token = "1" }
            [hosts."*.b.example"]
            spacing = 9
            "#,
        );
        assert_eq!(faults, Vec::<String>::new());
        let matches = file.apply(crate::cli::Cli::command()).try_get_matches_from(["facemill", "run", "dump"]).unwrap();
        let entries = matches.subcommand().unwrap().1.get_many::<String>("hosts").unwrap();
        let named = entries.map(|entry| masked(OsStr::new(entry))).collect::<Vec<_>>();
        assert_eq!(named, ["*.b.example (spacing 9)", "photos.example (per-host 64, spacing 0, x-token ***)"]);
    }

    #[test]
    fn secrets_are_masked() {
        for (value, shown) in [
            ("redis://me:hunter2@h:1/2", "redis://me:***@h:1/2"),
            ("redis://h:1/2", "redis://h:1/2"),
            ("amqp://h/?password=hunter2", "amqp://h/?***"),
            ("hunter2", "***"),
            ("hunter2:x", "***"),
            (r#"a.example={"spacing":0,"headers":{"x-token":"hunter2"}}"#, "a.example (spacing 0, x-token ***)"),
            (r#"a.example={"headers":{"x token":"hunter2"}}"#, "***"),
        ] {
            assert_eq!(masked(OsStr::new(value)), shown);
        }
    }

    #[test]
    fn the_file_is_found_before_anything_is_parsed() {
        let find = |arguments: &[&str]| find(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(find(&["facemill", "work", "--settings", "a", "fetch"]), Some("a".into()));
        assert_eq!(find(&["facemill", "--settings=b", "work"]), Some("b".into()));
        assert_eq!(find(&["facemill", "settings", "--", "--settings=b"]), None);
    }
}
