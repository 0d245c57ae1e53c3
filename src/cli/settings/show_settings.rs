//! `facemill settings`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::settings::definition::Definition;
use crate::cli::settings::settings_file::{SettingsFile, is_secret, is_setting, masked};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Shows only the settings of this command, called with these flags
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    call: Vec<OsString>,
}

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    Flag,
    Environment,
    File,
    Default,
}

/// A setting with the value that it has for some commands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Setting {
    setting: String,
    /// Empty: not set, so that the command chooses. A secret is masked.
    values: Vec<String>,
    from: Origin,
    /// The environment variable of the setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<String>,
}

#[derive(Debug, Serialize)]
struct SettingRow {
    #[serde(flatten)]
    setting: Setting,
    commands: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    file: Option<PathBuf>,
    settings: Vec<SettingRow>,
}

pub fn run(args: &Args, definition: &Definition) -> Result<ExitCode, Failure> {
    let file = definition.file.as_ref();
    let root = definition.command.clone().mut_subcommands(|command| command.mut_args(|arg| arg.required(false)));
    let mut rows: BTreeMap<Setting, Vec<String>> = BTreeMap::new();
    for name in commands(&root, args)? {
        let call = args.call.iter().skip(1).cloned();
        let call = [root.get_name().into(), name.clone().into()].into_iter().chain(call).collect::<Vec<OsString>>();
        let matches = root.clone().try_get_matches_from(call).unwrap_or_else(|error| error.exit());
        let (Some((_, matches)), Some(command)) = (matches.subcommand(), root.find_subcommand(&name)) else { continue };
        for arg in command.get_arguments().filter(|arg| is_setting(arg)) {
            rows.entry(look(arg, matches, file, &name)).or_default().push(name.clone());
        }
    }
    let settings = rows.into_iter().map(|(setting, commands)| SettingRow { setting, commands }).collect();
    let shown = Shown { file: file.map(|file| file.path.clone()), settings };
    if args.json { print_json(&shown) } else { print_text(&shown.text()) }?;
    Ok(ExitCode::SUCCESS)
}

/// The named command, or all that have settings and need no other arguments.
fn commands(root: &Command, args: &Args) -> Result<Vec<String>, Failure> {
    if let Some(name) = args.call.first() {
        let found = name.to_str().and_then(|name| root.find_subcommand(name));
        let found = found.filter(|command| !command.has_subcommands());
        let missing = || Failure::usage(format!("no command {} has settings", name.display()));
        return found.map(|command| vec![command.get_name().to_owned()]).ok_or_else(missing);
    }
    let has_settings = |command: &&Command| {
        !command.is_hide_set() && !command.has_subcommands() && command.get_arguments().any(is_setting)
    };
    // These require arguments, and their settings are those of other commands.
    let all = root.get_subcommands().filter(has_settings).map(|command| command.get_name().to_owned());
    Ok(all.filter(|name| !["evaluate", "rescore", "resume"].contains(&name.as_str())).collect())
}

fn look(arg: &Arg, matches: &ArgMatches, file: Option<&SettingsFile>, command: &str) -> Setting {
    let (id, name) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
    let from = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => Origin::Flag,
        Some(ValueSource::EnvVariable) => Origin::Environment,
        _ if file.is_some_and(|file| file.get(command, name).is_some()) => Origin::File,
        _ => Origin::Default,
    };
    let raw = matches.get_raw(id).into_iter().flatten();
    let show = |value| if is_secret(arg) { masked(value) } else { value.to_string_lossy().into_owned() };
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    Setting { setting: name.to_owned(), values: raw.map(show).collect(), from, variable }
}

impl Shown {
    fn text(&self) -> String {
        let mut text = match &self.file {
            Some(file) => format!("settings file: {}\n\n", file.display()),
            None => String::new(),
        };
        for SettingRow { setting: Setting { setting, values, from, variable }, commands } in &self.settings {
            let value = if values.is_empty() { "-".to_owned() } else { values.join(" ") };
            let from = match (from, variable) {
                (Origin::Flag, _) => "flag".to_owned(),
                (Origin::Environment, Some(variable)) => variable.clone(),
                (Origin::Environment, None) => "environment".to_owned(),
                (Origin::File, _) => "file".to_owned(),
                (Origin::Default, _) => "default".to_owned(),
            };
            let is_split = self.settings.iter().filter(|row| row.setting.setting == *setting).count() > 1;
            let of = if is_split { format!("  ({})", commands.join(", ")) } else { String::new() };
            text += &format!("{setting:<24} {value:<32} {from}{of}\n");
        }
        text
    }
}
