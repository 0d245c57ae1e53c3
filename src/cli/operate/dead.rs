//! `facemill dead`.

use std::collections::HashMap;
use std::fmt::Write;
use std::process::ExitCode;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::broker::DeadLetter;
use crate::cli::failure::Failure;
use crate::cli::operate::filter;
use crate::cli::output::{print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::{LockedRun, RunTargetArgs};
use crate::domain::Message;
use crate::domain::calendar;
use crate::domain::{Cause, Id, StageName};
use crate::ledger::Filter;
use crate::pipeline::requeue::{Replayed, RequeueError};

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

/// A dead letter as it is printed.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    /// Null for a foreign message.
    photo_id: Option<Id>,
    stage: Option<StageName>,
    cause: Cause,
    attempt: u32,
    first_at: u64,
    last_at: u64,
    host: Option<String>,
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

/// What a replay did.
#[derive(Debug, Default, Serialize)]
struct Summary {
    requeued: u64,
    /// Dead letters of photos that have been requeued or have ended otherwise since.
    out_of_date: u64,
    /// Dead letters of foreign messages, which stay.
    foreign: u64,
    /// Dead letters of photos that the ledger does not know, which stay.
    unknown: u64,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let _telemetry = crate::cli::process::observe("facemill=warn", &Bars::new(false), "facemill-producer", false)?;
    crate::cli::process::block_on(async {
        match &args.action {
            Action::List(chosen) => list(chosen).await,
            Action::Show { id, place } => show(id, place).await,
            Action::Replay(chosen) => replay(chosen).await,
            Action::Drop { yes, chosen } => discard(chosen, *yes).await,
        }
    })
}

/// Whether the dead letter belongs to the run, or to none. Returns its message unless it is foreign.
fn of_run(holding: &LockedRun, letter: &DeadLetter) -> Option<Option<Message>> {
    match Message::decode(letter.body.as_bytes()) {
        Ok(message) => (message.photo.run == holding.run).then_some(Some(message)),
        Err(_) => Some(None),
    }
}

impl Chosen {
    fn means(&self, holding: &LockedRun, letter: &DeadLetter) -> bool {
        let everything = Filter::default();
        let filter = self.filter.as_ref().unwrap_or(&everything);
        of_run(holding, letter).is_some_and(|message| filter::means(filter, letter, message.as_ref()))
    }

    async fn letters(&self, holding: &LockedRun) -> Result<Vec<DeadLetter>, Failure> {
        let mut letters = all(holding).await?;
        letters.retain(|letter| self.means(holding, letter));
        Ok(letters)
    }
}

async fn all(holding: &LockedRun) -> Result<Vec<DeadLetter>, Failure> {
    const ALL: usize = usize::MAX >> 1;
    holding.broker.dead(ALL).await.map_err(Failure::broken)
}

async fn list(chosen: &Chosen) -> Result<ExitCode, Failure> {
    let holding = chosen.place.hold().await?;
    let letters: Vec<Shown> = chosen.letters(&holding).await?.iter().map(Shown::of).collect();
    if chosen.place.json {
        print_json(&letters)?;
    } else {
        print_text(&letters.iter().map(Shown::line).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(id: &str, place: &RunTargetArgs) -> Result<ExitCode, Failure> {
    let holding = place.hold().await?;
    let letters = all(&holding).await?;
    let ours = letters.iter().filter(|letter| of_run(&holding, letter).is_some());
    let shown = ours.map(|letter| Shown { body: Some(letter.body.clone()), ..Shown::of(letter) });
    let shown: Vec<Shown> = shown.filter(|shown| shown.is_called(id)).collect();
    if shown.is_empty() {
        return Err(Failure::findings(format!("run {} has no dead letter {id}", holding.run)));
    }
    if place.json { print_json(&shown) } else { print_text(&shown.iter().map(Shown::text).collect::<String>()) }?;
    Ok(ExitCode::SUCCESS)
}

async fn replay(chosen: &Chosen) -> Result<ExitCode, Failure> {
    /// Photos that are requeued at a time.
    const TOGETHER: usize = 16;
    let holding = chosen.place.hold().await?;
    let mut summary = Summary::default();
    let letters = chosen.letters(&holding).await?;
    let replayed = stream::iter(&letters).map(async |letter| match Message::decode(letter.body.as_bytes()) {
        Ok(message) => Ok((letter, Some(holding.requeue().replay(&message).await?))),
        Err(_) => Ok((letter, None)),
    });
    let replayed: Result<Vec<_>, RequeueError> = replayed.buffered(TOGETHER).try_collect().await;
    let go_on = "no letter was removed, run the same command again to go on";
    let replayed = replayed.map_err(|error| Failure::broken(format!("{error}; {go_on}")))?;
    let mut done = HashMap::new();
    for (letter, fate) in replayed {
        match fate {
            None => summary.foreign += 1,
            Some(Replayed::Unknown) => summary.unknown += 1,
            Some(Replayed::Requeued) => summary.requeued += 1,
            Some(Replayed::OutOfDate) => summary.out_of_date += 1,
        }
        if matches!(fate, Some(Replayed::Requeued | Replayed::OutOfDate)) {
            done.insert(letter.id(), letter.last_at);
        }
    }
    if !done.is_empty() {
        // A photo may have died anew: a letter of another time is another letter.
        let is_done = |letter: &DeadLetter| done.get(&letter.id()) == Some(&letter.last_at);
        holding.broker.take_dead_letters(&is_done).await.map_err(Failure::broken)?;
    }
    if chosen.place.json { print_json(&summary) } else { print_text(&summary.text(holding.is_folder())) }?;
    Ok(ExitCode::SUCCESS)
}

async fn discard(chosen: &Chosen, yes: bool) -> Result<ExitCode, Failure> {
    let holding = chosen.place.hold().await?;
    if !yes {
        let letters = chosen.letters(&holding).await?.len();
        return Err(Failure::findings(format!("{letters} letters would be dropped: say --yes to do it")));
    }
    let dropped =
        holding.broker.take_dead_letters(&|letter| chosen.means(&holding, letter)).await.map_err(Failure::broken)?;
    match chosen.place.json {
        true => print_json(&serde_json::json!({ "dropped": dropped.len() })),
        false => print_text(&format!("{} letters dropped\n", dropped.len())),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Digits of the hash that name a dead letter without a photo.
const SHORT: usize = 12;

impl Shown {
    fn of(letter: &DeadLetter) -> Self {
        let message = Message::decode(letter.body.as_bytes()).ok();
        Self {
            id: letter.id(),
            photo_id: message.as_ref().map(|message| message.photo.candidate.photo_id.clone()),
            stage: letter.stage,
            cause: letter.cause.clone(),
            attempt: letter.attempt,
            first_at: letter.first_at,
            last_at: letter.last_at,
            host: message.map(|message| message.photo.candidate.host()),
            trace_id: letter.trace_id.clone(),
            body: None,
        }
    }

    fn is_called(&self, id: &str) -> bool {
        match &self.photo_id {
            Some(photo_id) => photo_id.as_str() == id || self.id == id,
            None => id.len() >= SHORT && self.id.starts_with(id),
        }
    }

    fn name(&self) -> String {
        match &self.photo_id {
            Some(photo_id) => photo_id.as_str().escape_debug().to_string(),
            None => self.id.chars().take(SHORT).collect(),
        }
    }

    /// Photo, stage, cause, attempt, last time, host, trace.
    fn line(&self) -> String {
        let (stage, code) =
            (self.stage.map_or("-", StageName::as_str), self.cause.code.as_str().escape_debug().to_string());
        let host = self.host.as_deref().unwrap_or("-");
        let trace = self.trace_id.as_deref().unwrap_or("-").escape_debug();
        let (name, attempt, last) = (self.name(), self.attempt, calendar::second(self.last_at));
        format!("{name:<12} {stage:<9} {code:<20} {attempt:>2}  {last}  {host:<24} {trace}\n")
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Cause { code, detail } = &self.cause;
        writeln!(text, "{}: given up {}", self.name(), self.stage.map_or("-".into(), |stage| format!("by {stage}")))?;
        writeln!(text, "  {}: {}", code.as_str().escape_debug(), detail.escape_debug())?;
        writeln!(text, "\n  letter  {}", self.id.escape_debug())?;
        writeln!(text, "  trace   {}", self.trace_id.as_deref().unwrap_or("-").escape_debug())?;
        writeln!(text, "  attempt {}", self.attempt)?;
        writeln!(
            text,
            "  first   {} UTC\n  last    {} UTC",
            calendar::second(self.first_at),
            calendar::second(self.last_at)
        )?;
        let body = self.body.as_deref().unwrap_or_default();
        match serde_json::from_str::<serde_json::Value>(body).and_then(|body| serde_json::to_string_pretty(&body)) {
            Ok(pretty) => pretty.lines().try_for_each(|line| writeln!(text, "  {}", without_controls(line))),
            Err(_) => writeln!(text, "  {}", body.escape_debug()),
        }
    }
}

/// Replaces control characters that JSON does not escape.
fn without_controls(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

impl Summary {
    fn text(&self, is_folder: bool) -> String {
        let Self { requeued, out_of_date, foreign, unknown } = self;
        let mut text = format!("{requeued} photos sent back\n");
        if is_folder && *requeued > 0 {
            text.push_str(crate::cli::operate::retry::NEXT_RUN);
        }
        for (count, what) in [
            (out_of_date, "letters were out of date and are removed: their photos are on their way or ended since"),
            (foreign, "letters stay: their messages are not ours; see `facemill dead show`, or drop them"),
            (unknown, "letters stay: the ledger does not know their photos; `facemill produce` takes them in"),
        ] {
            if *count > 0 {
                text.push_str(&format!("{count} {what}\n"));
            }
        }
        text
    }
}
