//! The command line: one file a command family. It prints for people and, with `--json`, for programs.

mod again;
pub mod dataset;
mod failure;
mod folders;
pub mod inspect;
pub mod operate;
mod output;
mod process;
mod progress;
mod progress_lines;
pub mod run;
pub mod settings;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use dataset::{
    curate, duplicates, evaluate, export, faces, identities, models, rescore, suggest, synthetic, train, users,
    verdicts, versions,
};
use inspect::{audit, describe, doctor, manual, report, simulate, status, why};
use operate::{dead, measure, pause, produce, rebuild, retry, takedown, work};
use run::{candidates, demo, recrop};
use settings::definition::Definition;
use settings::show_settings;

use failure::Failure;

/// Turns a dump of photo URLs into a clean, aligned face dataset.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// A TOML file with settings: `per-host = 2` for all commands, below `[work]` for one. Flags and the environment
    /// override it
    #[arg(long, env = "FACEMILL_SETTINGS", global = true, value_name = "FILE")]
    settings: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs all stages on a dump in this process: fetch, detect, crop and classify
    Run(run::Args),
    /// Enqueues the candidate photos of a dump for the workers of an installation
    Produce(produce::Args),
    /// Runs one or more stages of an installation
    Work(work::Args),
    /// Prints the candidate photos of a dump: those with exactly one labelled face
    Candidates(candidates::Args),
    /// Shows where the photos of a run are
    Status(status::Args),
    /// Prints the history of one photo
    Why(why::Args),
    /// Lists dead letters, requeues their photos, or deletes them
    Dead(dead::Args),
    /// Requeues photos that ended for a cause
    Retry(retry::Args),
    /// Pauses stages or hosts for all workers of an installation; alone, lists what is paused
    Pause(pause::PauseArgs),
    /// Resumes paused stages or hosts
    Resume(pause::ResumeArgs),
    /// Removes photos and all that was made of them, for good, and refuses them from then on
    Takedown(takedown::Args),
    /// Compares a dump with the ledger: every candidate must have exactly one state
    Audit(audit::Args),
    /// Restores the lost ledger of a run from its records and its dump
    Rebuild(rebuild::Args),
    /// Adds the quality numbers to faces of earlier versions, from the stored crops and originals
    Measure(measure::Args),
    /// Cuts the faces of a run anew with other settings, as another run, from the stored originals
    Recrop(recrop::Args),
    /// Predicts how long a collection takes, or how many workers it needs
    Simulate(simulate::Args),
    /// Writes the report of a run again
    Report(report::Args),
    /// Lists the faces of a run that fulfil a query
    Faces(faces::Args),
    /// Serves a page on which people judge the faces of a run
    Curate(curate::Args),
    /// Writes faces as a dataset: a zip for StyleGAN, a folder, WebDataset shards or Parquet
    Export(export::Args),
    /// Makes, lists, shows and compares versions of a dataset: selections of faces that never change
    Dataset(versions::Args),
    /// Exports the verdicts of people on crops, or imports judgements that were made elsewhere
    Verdicts(verdicts::Args),
    /// Adds, lists and removes the people who may sign in to the curation page
    Users(users::Args),
    /// Trains the OK/NG classifier from the verdicts of a run, or from labelled crops
    Train(train::Args),
    /// Lists the faces to judge next, and how many OK ones are left; or verdicts to look at again
    Suggest(suggest::Args),
    /// Finds crops that show one photograph, however it was copied: exports take the best one of each
    Duplicates(duplicates::Args),
    /// Finds faces that look like one person, and those whose label disagrees with their look
    Identities(identities::Args),
    /// Measures a classifier on verdicts: figures with intervals, and a page with its worst mistakes
    Evaluate(evaluate::Args),
    /// Lists stored classifiers, shows one, or makes one the current classifier of a run
    Models(models::Args),
    /// Scores the crops of a run with a further classifier; photos stay as they are
    Rescore(rescore::Args),
    /// Cuts whole-head photographs into labelled crops, for a first training without verdicts
    #[command(hide = true)]
    Synthetic(synthetic::Args),
    /// Checks everything that facemill needs, one line each, with remedies
    Doctor(doctor::Args),
    /// Prints the names of queues and variables, for programs that deploy this one
    #[command(hide = true)]
    Describe(describe::Args),
    /// Prints the settings in force and their origin
    Settings(show_settings::Args),
    /// Prints completions of commands and flags for a shell
    Completions(manual::CompletionsArgs),
    /// Prints the manual page of the program or of a command
    Man(manual::ManArgs),
    /// Makes a small collection with good and bad hosts, serves it locally and runs it
    Demo(demo::Args),
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    Definition::load(Cli::command(), &arguments)
        .and_then(|definition| dispatch(parse(&definition, &arguments), &definition))
        .unwrap_or_else(|failure| {
            output::print_note(&failure.message);
            ExitCode::from(failure.code)
        })
}

fn parse(definition: &Definition, arguments: &[OsString]) -> Command {
    let cli = Cli::from_arg_matches(&definition.matches(arguments));
    cli.unwrap_or_else(|error| error.format(&mut definition.command.clone()).exit()).command
}

fn dispatch(command: Command, definition: &Definition) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Work(args) => work::run(&args),
        Command::Candidates(args) => candidates::run(args),
        Command::Status(args) => status::run(&args),
        Command::Why(args) => why::run(&args),
        Command::Dead(args) => dead::run(&args),
        Command::Retry(args) => retry::run(&args),
        Command::Takedown(args) => takedown::run(&args),
        Command::Audit(args) => audit::run(args),
        Command::Rebuild(args) => rebuild::run(args),
        Command::Measure(args) => measure::run(&args),
        Command::Recrop(args) => recrop::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Resume(args) => pause::resume(&args),
        Command::Settings(args) => show_settings::run(&args, definition),
        Command::Report(args) => report::run(&args),
        Command::Faces(args) => faces::run(&args),
        Command::Curate(args) => curate::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Dataset(args) => versions::run(&args),
        Command::Verdicts(args) => verdicts::run(&args),
        Command::Users(args) => users::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Suggest(args) => suggest::run(&args),
        Command::Duplicates(args) => duplicates::run(&args),
        Command::Identities(args) => identities::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Rescore(args) => rescore::run(&args),
        Command::Synthetic(args) => synthetic::run(args).map(|()| ExitCode::SUCCESS),
        Command::Simulate(args) => simulate::run(&args),
        Command::Describe(args) => describe::run(&args, &Cli::command()),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }
}
