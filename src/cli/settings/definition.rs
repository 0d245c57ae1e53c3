//! The command line with the defaults of the settings file.

use std::ffi::OsString;

use clap::ArgMatches;

use crate::cli::failure::Failure;
use crate::cli::settings::settings_file::{self, SettingsFile};

/// All commands with their flags. The defaults of the flags come from the settings file.
pub struct Definition {
    pub command: clap::Command,
    pub file: Option<SettingsFile>,
}

impl Definition {
    /// `command`: the command line without a settings file. The arguments may name one.
    pub fn load(command: clap::Command, arguments: &[OsString]) -> Result<Self, Failure> {
        let Some(path) = settings_file::find(arguments) else { return Ok(Self { command, file: None }) };
        match SettingsFile::read(&path, &command) {
            Ok(file) => Ok(Self { command: file.apply(command), file: Some(file) }),
            // `--help` works with a faulty file, too.
            Err(faults) => match command.try_get_matches_from(arguments) {
                Err(error) if !error.use_stderr() => error.exit(),
                _ => Err(faults),
            },
        }
    }

    /// A usage error ends the process with clap's message and exit code.
    pub fn matches(&self, arguments: &[OsString]) -> ArgMatches {
        self.command.clone().try_get_matches_from_mut(arguments).unwrap_or_else(|error| error.exit())
    }
}
