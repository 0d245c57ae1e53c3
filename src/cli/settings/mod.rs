//! The settings: flags, environment and file, and the run or the servers that they name.

pub mod definition;
pub mod flags;
pub mod host_entry;
pub mod names;
pub mod process_args;
pub mod reading;
pub mod run_target;
pub mod servers;
pub mod settings_file;
pub mod show_settings;
pub mod source_arg;
pub mod store;
