//! `facemill dead`.

use std::fmt::Write;
use std::process::ExitCode;

use crate::cli::failure::Failure;
use crate::cli::operate::filter;
use crate::cli::output::{counted, first_lines, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::calendar;
use crate::domain::{Cause, Printable, StageName};
use crate::ledger::Filter;
use crate::services::dead_letters::{DeadLetters, Letter, ReplaySummary};
use crate::services::requeue::RequeueError;
use crate::services::run_target::LockedRun;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists dead letters, oldest first
    List(Chosen),
    /// Shows a dead letter with its message
    Show {
        /// The id of its photo; for a foreign message the id in the list
        id: String,
        #[command(flatten)]
        place: RunTargetArgs,
    },
    /// Requeues the photos at the stage that failed and deletes their dead letters
    Replay(Chosen),
    /// Deletes dead letters; their photos stay failed
    Drop {
        /// Deletes them; without this flag the command only counts them
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        chosen: Chosen,
    },
}

#[derive(Debug, clap::Args)]
struct Chosen {
    /// Only these dead letters: "stage=fetch and cause=http-500 and host=photos.example"
    #[arg(long = "where", value_name = "QUERY", value_parser = filter::of_letters)]
    filter: Option<Filter>,
    #[command(flatten)]
    place: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let _telemetry = crate::cli::process::observe("facemill=warn", &Bars::new(false), "facemill-producer", false)?;
    crate::cli::process::block_on(async {
        match &args.action {
            Action::List(chosen) => list(chosen).await,
            Action::Show { id, place } => show(id, place).await,
            Action::Replay(chosen) => replay(chosen).await,
            Action::Drop { yes, chosen } => remove(chosen, *yes).await,
        }
    })
}

impl Chosen {
    fn filter(&self) -> Filter {
        self.filter.clone().unwrap_or_default()
    }
}

fn letters(locked: &LockedRun) -> DeadLetters<'_> {
    DeadLetters { run: &locked.run, requeue: locked.requeue() }
}

async fn list(chosen: &Chosen) -> Result<ExitCode, Failure> {
    let target = chosen.place.open().await?;
    let letters = target.dead_letters().await.map_err(Failure::broken)?;
    let letters = Letter::list(&letters, &target.run, &chosen.filter());
    match chosen.place.json {
        true => print_json(&letters),
        false if letters.is_empty() && chosen.filter.is_some() => print_text("no dead letter fulfils the query\n"),
        false if letters.is_empty() => print_text("no dead letters\n"),
        false => print_text(&first_lines(letters.iter().map(line), "dead letters")),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn show(id: &str, place: &RunTargetArgs) -> Result<ExitCode, Failure> {
    let target = place.open().await?;
    let found = Letter::find(&target.dead_letters().await.map_err(Failure::broken)?, &target.run, id);
    if found.is_empty() {
        return Err(Failure::findings(format!("run {} has no dead letter {id}", target.run)));
    }
    if place.json { print_json(&found) } else { print_text(&found.iter().map(text).collect::<String>()) }?;
    Ok(ExitCode::SUCCESS)
}

async fn replay(chosen: &Chosen) -> Result<ExitCode, Failure> {
    let locked = chosen.place.lock().await?;
    let replayed = letters(&locked).replay(&chosen.filter()).await;
    let hint = "no dead letter was removed; run the same command again to continue";
    let summary = replayed.map_err(|error| match error {
        RequeueError::DeadLetters(_) => Failure::broken(error),
        _ => Failure::broken(format!("{error}; {hint}")),
    })?;
    match chosen.place.json {
        true => print_json(&summary),
        false => print_text(&summary_text(&summary, locked.is_folder())),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(chosen: &Chosen, yes: bool) -> Result<ExitCode, Failure> {
    let locked = chosen.place.lock().await?;
    let letters = letters(&locked);
    if !yes {
        let count = counted(letters.count(&chosen.filter()).await.map_err(Failure::broken)?, "dead letter");
        return Err(Failure::findings(format!("would delete {count}: add --yes to delete them")));
    }
    let dropped = letters.remove(&chosen.filter()).await.map_err(Failure::broken)?;
    match chosen.place.json {
        true => print_json(&serde_json::json!({ "dropped": dropped })),
        false => print_text(&format!("{} deleted\n", counted(dropped, "dead letter"))),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The photo's id, or the beginning of the letter's own id.
fn name(letter: &Letter) -> String {
    match &letter.photo_id {
        Some(photo_id) => photo_id.as_str().printable().to_string(),
        None => letter.id.chars().take(Letter::SHORT).collect(),
    }
}

/// Photo, stage, cause, attempt, last time, host, trace.
fn line(letter: &Letter) -> String {
    let stage = letter.stage.map_or("-", StageName::as_str);
    let code = letter.cause.code.as_str().printable().to_string();
    let host = letter.host.as_deref().unwrap_or("-");
    let trace = letter.trace_id.as_deref().unwrap_or("-").printable();
    let (name, attempt, last) = (name(letter), letter.attempt, calendar::second(letter.last_at));
    format!("{name:<12} {stage:<9} {code:<20} {attempt:>2}  {last}  {host:<24} {trace}\n")
}

fn text(letter: &Letter) -> String {
    let mut text = String::new();
    write(&mut text, letter).expect("writing to a String cannot fail");
    text
}

fn write(text: &mut String, letter: &Letter) -> std::fmt::Result {
    let Cause { code, detail } = &letter.cause;
    let stage = letter.stage.map_or(String::new(), |stage| format!(" at {stage}"));
    writeln!(text, "{}: dead-lettered{stage}", name(letter))?;
    writeln!(text, "  {}: {}", code.as_str().printable(), detail.printable())?;
    writeln!(text, "\n  letter  {}", letter.id.printable())?;
    writeln!(text, "  trace   {}", letter.trace_id.as_deref().unwrap_or("-").printable())?;
    writeln!(text, "  attempt {}", letter.attempt)?;
    writeln!(text, "  first   {} UTC", calendar::second(letter.first_at))?;
    writeln!(text, "  last    {} UTC", calendar::second(letter.last_at))?;
    let body = letter.body.as_deref().unwrap_or_default();
    match serde_json::from_str::<serde_json::Value>(body).and_then(|body| serde_json::to_string_pretty(&body)) {
        Ok(pretty) => pretty.lines().try_for_each(|line| writeln!(text, "  {}", without_controls(line))),
        Err(_) => writeln!(text, "  {}", body.printable()),
    }
}

/// Replaces control characters that JSON does not escape.
fn without_controls(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn summary_text(summary: &ReplaySummary, is_folder: bool) -> String {
    let ReplaySummary { requeued, out_of_date, foreign, unknown } = summary;
    let mut text = format!("{} requeued\n", counted(*requeued, "photo"));
    if is_folder && *requeued > 0 {
        text.push_str(crate::cli::operate::retry::NEXT_RUN);
    }
    for (count, what) in [
        (out_of_date, "dead letters were out of date and are removed: their photos wait or have ended since"),
        (foreign, "dead letters stay: facemill did not write their messages; see `facemill dead show` or drop them"),
        (unknown, "dead letters stay: the ledger does not know their photos; `facemill produce` enqueues them"),
    ] {
        if *count > 0 {
            text.push_str(&format!("{count} {what}\n"));
        }
    }
    text
}
