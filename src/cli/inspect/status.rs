//! `facemill status`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cli::failure::Failure;
use crate::cli::output::{print_json, print_text};
use crate::cli::settings::run_target::{RunTarget, RunTargetArgs};
use crate::cluster::workers::{Report, Seen};
use crate::cluster::{Pauses, Workers};
use crate::domain::clock::now;
use crate::domain::{Ending, RunName, StageName};
use crate::ledger::{CauseCount, Counts, LedgerError};
use crate::redis::RedisClient;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Repeats every N seconds, with rate and time left, until Ctrl-C
    #[arg(long, num_args = 0..=1, default_missing_value = "2", value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    #[command(flatten)]
    place: RunTargetArgs,
}

/// The status of a run.
#[derive(Debug, Serialize)]
struct Status {
    run: RunName,
    /// Whether a process works on the run; null if unknown.
    at_work: Option<bool>,
    candidates: u64,
    ended: BTreeMap<Ending, u64>,
    /// Since the last refresh, while watching.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pace: Option<Pace>,
    stages: BTreeMap<StageName, StageStatus>,
    dead_letters: u64,
    causes: Vec<CauseCount>,
    /// Of the installation, for all runs.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    staff: Option<Staff>,
}

/// The workers and pauses of an installation.
#[derive(Debug, Serialize)]
struct Staff {
    workers: Vec<Seen>,
    paused: Pauses,
}

/// How fast photos end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Pace {
    /// Photos a second.
    rate: f64,
    /// Null if nothing moves.
    seconds_left: Option<u64>,
}

impl Pace {
    /// `ended` photos had ended `elapsed` ago. Photos that were requeued since do not count.
    fn between(ended: u64, now: &Status, elapsed: Duration) -> Self {
        let rate = now.over().saturating_sub(ended) as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = now.candidates.saturating_sub(now.over());
        let seconds_left = match left {
            0 => Some(0),
            _ => (rate > 0.0).then(|| (left as f64 / rate).ceil() as u64),
        };
        Self { rate, seconds_left }
    }
}

#[derive(Debug, Default, Serialize)]
struct StageStatus {
    ready: u64,
    in_flight: u64,
    /// Waiting for the time of their next attempt.
    delayed: u64,
    /// Advanced to the next stage, or were predicted.
    passed: u64,
    /// Ended at this stage otherwise.
    ended: u64,
    /// Age of the oldest photo that is due at this stage, in seconds; null if none is due.
    oldest: Option<u64>,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        let place = args.place.open().await?;
        match args.watch {
            None => print(&look(&place).await?, args.place.json)?,
            Some(seconds) => watch(&place, args.place.json, Duration::from_secs(seconds)).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Refreshes until Ctrl-C, or until standard output is closed.
async fn watch(place: &RunTarget, json: bool, pause: Duration) -> Result<(), Failure> {
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
        let mut status = look(place).await?;
        let now = Instant::now();
        status.pace = before.map(|(then, ended)| Pace::between(ended, &status, now - then));
        before = Some((now, status.over()));
        let text = match (json, &mut screen) {
            (true, _) => serde_json::to_string(&status).map_err(Failure::broken)? + "\n",
            (false, Some(screen)) => {
                screen.draw(&status.text()).map_err(cannot_print)?;
                last = status.text();
                continue;
            }
            (false, None) => status.text() + "\n",
        };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(cannot_print)?,
        }
    }
    // What was there before comes back, and below it what was seen last.
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

    /// Draws over the previous text, without flicker. Lines that do not fit are left out: they would scroll.
    fn draw(&mut self, text: &str) -> io::Result<()> {
        const HOME: &str = "\x1b[H";
        const WIPE_REST_OF_LINE: &str = "\x1b[K";
        const WIPE_REST: &str = "\x1b[J";
        let (columns, rows) = match terminal_size::terminal_size() {
            Some((columns, rows)) => (usize::from(columns.0), usize::from(rows.0)),
            None => (80, 24),
        };
        // The last column stays free: wiping behind it, some terminals wipe it.
        let clip = |line: &str| line.chars().take(columns.saturating_sub(1)).collect::<String>() + WIPE_REST_OF_LINE;
        let lines: Vec<String> = text.lines().take(rows).map(clip).collect();
        let mut out = io::stdout().lock();
        write!(out, "{HOME}{}{WIPE_REST}", lines.join("\r\n"))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        // There is nothing to be done for a terminal that is gone.
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

fn print(status: &Status, json: bool) -> Result<(), Failure> {
    if json { print_json(status) } else { print_text(&status.text()) }
}

async fn look(place: &RunTarget) -> Result<Status, Failure> {
    let counts = place.ledger.counts(&place.run).await.map_err(Failure::broken)?;
    let depths = place.depths().await?;
    let mut stages = stages(&counts);
    let mut dead_letters = 0;
    let now = now().as_secs();
    for (stage, since) in place.ledger.due_since(&place.run).await.map_err(Failure::broken)? {
        stages.entry(stage).or_default().oldest = now.checked_sub(since);
    }
    for depth in depths {
        match depth.stage.and_then(|stage| stages.get_mut(&stage)) {
            Some(stage) => {
                (stage.ready, stage.in_flight, stage.delayed) = (depth.ready, depth.in_flight, depth.delayed);
                stage.oldest = stage.oldest.or(depth.oldest_age);
            }
            None => dead_letters = depth.ready,
        }
    }
    let Counts { candidates, ended, mut causes, .. } = counts;
    causes.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.code, &a.host).cmp(&(&b.code, &b.host))));
    let (run, at_work) = (place.run.clone(), place.is_at_work());
    let staff = match place.redis() {
        Some(redis) => Some(Staff::of(redis).await.map_err(Failure::broken)?),
        None => None,
    };
    Ok(Status { run, at_work, candidates, ended, pace: None, stages, dead_letters, causes, staff })
}

impl Staff {
    async fn of(redis: &RedisClient) -> Result<Self, LedgerError> {
        Ok(Self { workers: Workers::new(redis).seen().await?, paused: Pauses::read(redis).await? })
    }

    /// Workers that are printed; `--json` has all of them.
    const SHOWN: usize = 20;

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { workers, paused } = self;
        if !paused.is_empty() {
            write!(text, "\n{}", crate::cli::operate::pause::text(paused))?;
        }
        if workers.is_empty() {
            return writeln!(text, "\nno worker is there");
        }
        let (plural, width) = (if workers.len() == 1 { "" } else { "s" }, 40);
        let head = format!("{} worker{plural}", workers.len());
        writeln!(text, "\n{head:<width$}{:>11}{:>9}{:>9}{:>9}  stages", "in flight", "done", "since", "seen")?;
        let now = now().as_secs();
        for Seen { report, last_seen } in workers.iter().take(Self::SHOWN) {
            let Report { name, stages, since, in_flight, done, .. } = report;
            let stages: Vec<&str> = stages.iter().map(|stage| stage.as_str()).collect();
            let (since, seen) = (span(now.saturating_sub(*since)), format!("{last_seen}s ago"));
            writeln!(text, "{name:<width$}{in_flight:>11}{done:>9}{since:>9}{seen:>9}  {}", stages.join(" "))?;
        }
        match workers.len().checked_sub(Self::SHOWN) {
            Some(more @ 1..) => writeln!(text, "{more} more workers: see --json"),
            _ => Ok(()),
        }
    }
}

/// How many photos passed each stage or ended there.
fn stages(counts: &Counts) -> BTreeMap<StageName, StageStatus> {
    let mut arrived = counts.candidates;
    let status = |stage: StageName| {
        let waiting = counts.waiting.get(&stage).copied().unwrap_or(0);
        let ended = counts.causes.iter().filter(|cause| cause.stage == stage).map(|cause| cause.count).sum();
        let passed = arrived.saturating_sub(waiting + ended);
        arrived = passed;
        (stage, StageStatus { passed, ended, ..StageStatus::default() })
    };
    StageName::ALL.into_iter().map(status).collect()
}

impl Status {
    /// Lines of causes that are printed; `--json` has all of them.
    const CAUSES: usize = 20;

    /// Photos that have ended.
    fn over(&self) -> u64 {
        self.ended.values().sum()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let at_work = match self.at_work {
            Some(true) => "; a process is at work on it",
            Some(false) => "; nobody is at work on it",
            None => "",
        };
        writeln!(
            text,
            "{} candidates, {} without a final answer{at_work}",
            self.candidates,
            self.candidates.saturating_sub(self.over())
        )?;
        if let Some(Pace { rate, seconds_left }) = self.pace {
            let left = seconds_left.map_or("time left unknown".to_owned(), |seconds| format!("{} left", span(seconds)));
            writeln!(text, "{rate:.1} photos a second, {left}")?;
        }
        let head = ["ready", "in flight", "delayed", "passed", "ended", "oldest"];
        let [ready, in_flight, delayed, passed, ended, oldest] = head;
        writeln!(text, "\n{:<10}{ready:>9}{in_flight:>11}{delayed:>9}{passed:>9}{ended:>9}{oldest:>9}", "")?;
        for (stage, s) in &self.stages {
            let StageStatus { ready, in_flight, delayed, passed, ended, oldest } = s;
            let oldest = oldest.map_or("-".into(), span);
            let stage = stage.as_str();
            writeln!(text, "{stage:<10}{ready:>9}{in_flight:>11}{delayed:>9}{passed:>9}{ended:>9}{oldest:>9}")?;
        }
        writeln!(text)?;
        for (ending, count) in &self.ended {
            writeln!(text, "{count:>9} {ending}")?;
        }
        writeln!(text, "{:>9} dead letters", self.dead_letters)?;
        if let Some(staff) = &self.staff {
            staff.write(text)?;
        }
        if !self.causes.is_empty() {
            writeln!(text, "\n{:>9} {:<10}{:<10}{:<24}host", "", "at", "", "cause")?;
        }
        for CauseCount { stage, ending, code, host, count } in self.causes.iter().take(Self::CAUSES) {
            writeln!(text, "{count:>9} {:<10}{:<10}{code:<24}{host}", stage.as_str(), ending.as_str())?;
        }
        match self.causes.len().checked_sub(Self::CAUSES) {
            Some(more @ 1..) => writeln!(text, "{:>9} more causes and hosts: see --json", more),
            _ => Ok(()),
        }
    }
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
    fn the_time_left_is_told_where_something_moves() {
        let status = Status {
            run: RunName::default(),
            at_work: None,
            candidates: 100,
            ended: BTreeMap::from([(Ending::Gone, 10), (Ending::Predicted, 30)]),
            pace: None,
            stages: BTreeMap::new(),
            dead_letters: 0,
            causes: Vec::new(),
            staff: None,
        };
        let elapsed = Duration::from_secs(4);
        assert_eq!(Pace::between(20, &status, elapsed), Pace { rate: 5.0, seconds_left: Some(12) });
        assert_eq!(Pace::between(40, &status, elapsed), Pace { rate: 0.0, seconds_left: None });
        assert_eq!(Pace::between(50, &status, elapsed).rate, 0.0, "a retry is no progress backwards");
        let done = Status { candidates: 40, ..status };
        assert_eq!(Pace::between(40, &done, elapsed).seconds_left, Some(0));
    }

    #[test]
    fn spans_are_told_in_two_units() {
        let told = [7, 65, 3 * 3600 + 300, 2 * 86_400 + 3600].map(span);
        assert_eq!(told, ["7s", "1m 05s", "3h 05m", "2d 01h"]);
    }
}
