//! `facemill status`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::archive::rescores::Rescore;
use crate::broker::rabbitmq::ScoreDepth;
use crate::cli::dataset::index::stored_placeholders;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, named, nobody_reads, plain, print_json, print_text};
use crate::cli::settings::run_target::RunTargetArgs;
use crate::cluster::workers::{ActiveWorker, WorkerReport};
use crate::dataset::placeholder::Placeholders;
use crate::domain::clock::now;
use crate::ledger::CauseCount;
use crate::services::run_target::RunTarget;
use crate::services::status::{ClusterStatus, Pace, QueuesOf, RunStatus, StageStatus};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Repeats every N seconds, with rate and time left, until Ctrl-C
    #[arg(long, num_args = 0..=1, default_missing_value = "2", value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    #[command(flatten)]
    place: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        let place = args.place.open_reachable().await?;
        // Read once: it changes only with the index.
        let placeholders = stored_placeholders(&place);
        match args.watch {
            None => {
                let status = RunStatus { placeholders, ..read(&place).await? };
                print(&status, args.place.json)?;
                place.close().await;
                if !status.missing.is_empty() {
                    return Err(Failure::broken("the status is not complete"));
                }
            }
            Some(seconds) => watch(&place, placeholders, args.place.json, Duration::from_secs(seconds)).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Refreshes until Ctrl-C, or until standard output is closed.
async fn watch(
    place: &RunTarget,
    placeholders: Option<Placeholders>,
    json: bool,
    pause: Duration,
) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut screen = (!json && io::stdout().is_terminal()).then(Screen::enter).transpose().map_err(cannot_print)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut before: Option<(Instant, u64)> = None;
    let mut last = String::new();
    loop {
        tokio::select! {
            _ = &mut interrupted => break,
            _ = ticks.tick() => {}
        }
        let mut status = RunStatus { placeholders: placeholders.clone(), ..read(place).await? };
        let now = Instant::now();
        status.pace = before.map(|(then, ended)| Pace::between(ended, &status, now - then));
        before = Some((now, status.ended_photos()));
        let printed = match (json, &mut screen) {
            (true, _) => serde_json::to_string(&status).map_err(Failure::broken)? + "\n",
            (false, Some(screen)) => {
                screen.draw(&text(&status)).map_err(cannot_print)?;
                last = text(&status);
                continue;
            }
            (false, None) => text(&status) + "\n",
        };
        let mut out = io::stdout().lock();
        match out.write_all(printed.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if nobody_reads(&error) => return Ok(()),
            written => written.map_err(cannot_print)?,
        }
    }
    // The terminal shows its former content again; the last status is printed below it.
    drop(screen);
    print_text(&last)
}

fn cannot_print(error: io::Error) -> Failure {
    Failure::broken(format!("cannot print: {error}"))
}

/// The terminal's other screen, without a cursor. Left when it is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        let mut out = io::stdout().lock();
        out.write_all(b"\x1b[?1049h\x1b[?25l")?;
        out.flush()?;
        Ok(Self)
    }

    /// Draws over the previous text, without flicker. Lines that do not fit are left out, because they would scroll.
    fn draw(&mut self, text: &str) -> io::Result<()> {
        const HOME: &str = "\x1b[H";
        const CLEAR_REST_OF_LINE: &str = "\x1b[K";
        const CLEAR_REST: &str = "\x1b[J";
        let (columns, rows) = match terminal_size::terminal_size() {
            Some((columns, rows)) => (usize::from(columns.0), usize::from(rows.0)),
            None => (80, 24),
        };
        // The last column stays free, because some terminals clear it together with the rest of the line.
        let clip = |line: &str| line.chars().take(columns.saturating_sub(1)).collect::<String>() + CLEAR_REST_OF_LINE;
        let lines: Vec<String> = text.lines().take(rows).map(clip).collect();
        let mut out = io::stdout().lock();
        write!(out, "{HOME}{}{CLEAR_REST}", lines.join("\r\n"))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        // The terminal may be closed; then there is nothing to restore.
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

fn print(status: &RunStatus, json: bool) -> Result<(), Failure> {
    if json { print_json(status) } else { print_text(&text(status)) }
}

async fn read(target: &RunTarget) -> Result<RunStatus, Failure> {
    RunStatus::read(target).await.map_err(Failure::broken)
}

/// Workers that are printed; `--json` has all of them.
const WORKERS: usize = 20;
/// Rescores that are printed; `--json` has all of them.
const RESCORES: usize = 5;
/// Lines of causes that are printed; `--json` has all of them.
const CAUSES: usize = 20;

fn text(status: &RunStatus) -> String {
    let mut text = String::new();
    write(&mut text, status).expect("writing to a String cannot fail");
    text
}

fn write(text: &mut String, status: &RunStatus) -> std::fmt::Result {
    let activity = match status.is_active {
        Some(true) => "; a process works on them",
        Some(false) => "; no process works on them",
        None => "",
    };
    for (what, why) in &status.missing {
        writeln!(text, "no {what}: {why}")?;
    }
    let [has_photos, has_queues] = ["photos", "queues"].map(|what| !status.missing.contains_key(what));
    if has_photos {
        let left = status.candidates.saturating_sub(status.ended_photos());
        writeln!(text, "{}, {left} not ended{activity}", counted(status.candidates, "candidate"))?;
    }
    if !status.settings.is_empty() {
        let settings = status.settings.iter().map(|(name, value)| format!("{name} {}", shortened(&plain(value))));
        writeln!(text, "settings: {}", settings.collect::<Vec<_>>().join(", "))?;
    }
    if let Some(Pace { rate, seconds_left }) = status.pace {
        let left = seconds_left.map_or("time left unknown".to_owned(), |seconds| format!("{} left", span(seconds)));
        writeln!(text, "{rate:.1} photos a second, {left}")?;
    }
    let head = ["ready", "in flight", "delayed", "passed", "ended", "oldest"];
    let [ready, in_flight, delayed, passed, ended, oldest] = head;
    writeln!(text)?;
    if status.queues_of == QueuesOf::AllRuns {
        let of_run = format!("run {}", status.run);
        writeln!(text, "{:<10}{:>29}{of_run:>27}", "", "all runs of the installation")?;
    }
    writeln!(text, "{:<10}{ready:>9}{in_flight:>11}{delayed:>9}{passed:>9}{ended:>9}{oldest:>9}", "")?;
    for (stage, s) in &status.stages {
        let StageStatus { ready, in_flight, delayed, passed, ended, oldest } = s;
        let known = |is_known: bool, number: &u64| if is_known { number.to_string() } else { "?".into() };
        let [ready, in_flight, delayed] = [ready, in_flight, delayed].map(|number| known(has_queues, number));
        let [passed, ended] = [passed, ended].map(|number| known(has_photos, number));
        let oldest = oldest.map_or(if has_photos { "-" } else { "?" }.into(), span);
        let stage = stage.as_str();
        writeln!(text, "{stage:<10}{ready:>9}{in_flight:>11}{delayed:>9}{passed:>9}{ended:>9}{oldest:>9}")?;
    }
    writeln!(text)?;
    for (ending, count) in &status.ended {
        writeln!(text, "{count:>9} {ending}")?;
    }
    let of_all = if status.queues_of == QueuesOf::AllRuns { ", of all runs" } else { "" };
    if has_queues {
        let what = named(status.dead_letters, "dead letter");
        writeln!(text, "{:>9} {what}{of_all}", status.dead_letters)?;
    }
    if let Some(Placeholders { originals: originals @ 1.., photos, faces, .. }) = status.placeholders {
        let of = if originals == 1 { "one original" } else { &format!("{originals} originals") };
        writeln!(
            text,
            "{photos:>9} placeholders with {faces} faces: photos that share {of} (as of the index of faces)"
        )?;
    }
    for rescore in status.rescores.iter().take(RESCORES) {
        write_rescore(text, rescore)?;
    }
    if let Some(cluster) = &status.cluster {
        write_cluster(text, cluster)?;
    }
    if !status.causes.is_empty() {
        writeln!(text, "\n{:>9} {:<10}{:<10}{:<24}host", "", "at", "", "cause")?;
    }
    for CauseCount { stage, ending, code, host, count } in status.causes.iter().take(CAUSES) {
        writeln!(text, "{count:>9} {:<10}{:<10}{code:<24}{host}", stage.as_str(), ending.as_str())?;
    }
    match status.causes.len().checked_sub(CAUSES) {
        Some(more @ 1..) => writeln!(text, "{more:>9} more causes and hosts: see --json"),
        _ => Ok(()),
    }
}

fn write_rescore(text: &mut String, rescore: &Rescore) -> std::fmt::Result {
    let Rescore { model, crops, scored, unreadable, has_ended, updated_at, .. } = rescore;
    let unreadable = if *unreadable > 0 { format!(", {unreadable} cannot be scored") } else { String::new() };
    let age = match has_ended {
        true => String::new(),
        false => format!(", as of {} ago", span(now().as_secs().saturating_sub(*updated_at))),
    };
    writeln!(text, "{scored:>9} of {crops} crops scored again by {model}{unreadable}{age}")
}

fn write_cluster(
    text: &mut String,
    ClusterStatus { workers, paused, rescore_queue }: &ClusterStatus,
) -> std::fmt::Result {
    if let ScoreDepth { ready, in_flight } = rescore_queue
        && ready + in_flight > 0
    {
        writeln!(text, "{ready:>9} crops wait to be scored again, {in_flight} in flight")?;
    }
    if !paused.is_empty() {
        write!(text, "\n{}", crate::cli::operate::pause::text(paused))?;
    }
    if workers.is_empty() {
        return writeln!(text, "\nno workers");
    }
    let head = counted(workers.len() as u64, "worker");
    writeln!(text, "\n{head:<40}{:>11}{:>9}{:>9}{:>9}  stages", "in flight", "done", "since", "seen")?;
    let now = now().as_secs();
    for ActiveWorker { report, last_seen } in workers.iter().take(WORKERS) {
        let WorkerReport { name, stages, since, in_flight, done, .. } = report;
        let stages: Vec<&str> = stages.iter().map(|stage| stage.as_str()).collect();
        let (since, seen) = (span(now.saturating_sub(*since)), format!("{last_seen}s ago"));
        writeln!(text, "{name:<40}{in_flight:>11}{done:>9}{since:>9}{seen:>9}  {}", stages.join(" "))?;
    }
    match workers.len().checked_sub(WORKERS) {
        Some(more @ 1..) => writeln!(text, "{more} more workers: see --json"),
        _ => Ok(()),
    }
}

/// Hashes by their first digits; `--json` has all of them.
fn shortened(value: &str) -> &str {
    const HASH: usize = 64;
    if value.len() == HASH { &value[..12] } else { value }
}

/// Seconds in a readable form: `3h 05m`.
fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes:02}m"),
        (days, hours, ..) => format!("{days}d {hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let spans = [7, 65, 3 * 3600 + 300, 2 * 86_400 + 3600].map(span);
        assert_eq!(spans, ["7s", "1m 05s", "3h 05m", "2d 01h"]);
    }
}
