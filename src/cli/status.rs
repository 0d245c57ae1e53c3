//! `facemill status`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};

use super::place::{Place, PlaceArgs};
use super::{Failure, print_json, print_text};
use crate::ledger::{CauseCount, Counts};
use crate::photo::{Ending, RunName, StageName};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Looks again every so many seconds, and tells how fast it goes and how long it takes; ends with Ctrl-C
    #[arg(long, num_args = 0..=1, default_missing_value = "2", value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Where the photos of a run are.
#[derive(Debug, Serialize)]
struct Status {
    run: RunName,
    /// A process is at work on it now; null: that cannot be told.
    at_work: Option<bool>,
    candidates: u64,
    ended: BTreeMap<Ending, u64>,
    /// Since the last look, while watching.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pace: Option<Pace>,
    stages: BTreeMap<StageName, StageStatus>,
    dead_letters: u64,
    causes: Vec<CauseCount>,
}

/// How fast photos come to their end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Pace {
    /// Photos a second.
    rate: f64,
    /// Null: it cannot be told, for nothing moves.
    seconds_left: Option<u64>,
}

impl Pace {
    /// `ended` photos had ended `elapsed` ago. Photos that were sent back since count as none.
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
    /// Went on to the next stage, or arrived.
    passed: u64,
    /// Came to their end here otherwise.
    ended: u64,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    super::block_on(async {
        let place = args.place.open().await?;
        match args.watch {
            None => print(&look(&place).await?, args.place.json)?,
            Some(seconds) => watch(&place, args.place.json, Duration::from_secs(seconds)).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Looks again and again, until Ctrl-C or until nobody reads any more.
async fn watch(place: &Place, json: bool, pause: Duration) -> Result<(), Failure> {
    /// To the top left corner; after the text the rest of the screen is wiped. So nothing flickers.
    const HOME: &str = "\x1b[H";
    const WIPE: &str = "\x1b[J";
    const WIPE_LINE: &str = "\x1b[K\n";
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let redraws = !json && io::stdout().is_terminal();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut before: Option<(Instant, u64)> = None;
    loop {
        tokio::select! {
            _ = &mut interrupted => return Ok(()),
            _ = ticks.tick() => {}
        }
        let mut status = look(place).await?;
        let now = Instant::now();
        status.pace = before.map(|(then, ended)| Pace::between(ended, &status, now - then));
        before = Some((now, status.over()));
        let text = match (json, redraws) {
            (true, _) => serde_json::to_string(&status).map_err(Failure::broken)? + "\n",
            (false, true) => format!("{HOME}{}{WIPE}", status.text().replace('\n', WIPE_LINE)),
            (false, false) => status.text() + "\n",
        };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| Failure::broken(format!("cannot print: {error}")))?,
        }
    }
}

fn print(status: &Status, json: bool) -> Result<(), Failure> {
    if json { print_json(status) } else { print_text(&status.text()) }
}

async fn look(place: &Place) -> Result<Status, Failure> {
    let counts = place.ledger.counts(&place.run).await.map_err(Failure::broken)?;
    let depths = place.depths().await?;
    let mut stages = stages(&counts);
    let mut dead_letters = 0;
    for depth in depths {
        match depth.stage.and_then(|stage| stages.get_mut(&stage)) {
            Some(stage) => {
                (stage.ready, stage.in_flight, stage.delayed) = (depth.ready, depth.in_flight, depth.delayed);
            }
            None => dead_letters = depth.ready,
        }
    }
    let Counts { candidates, ended, mut causes, .. } = counts;
    causes.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.slug, &a.host).cmp(&(&b.slug, &b.host))));
    let (run, at_work) = (place.run.clone(), place.is_at_work());
    Ok(Status { run, at_work, candidates, ended, pace: None, stages, dead_letters, causes })
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
    /// So many lines of causes are shown; `--json` has them all.
    const CAUSES: usize = 20;

    /// Photos with a final answer.
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
        writeln!(text, "\n{:<10}{:>9}{:>11}{:>9}{:>9}{:>9}", "", "ready", "in flight", "delayed", "passed", "ended")?;
        for (stage, s) in &self.stages {
            let StageStatus { ready, in_flight, delayed, passed, ended } = s;
            writeln!(text, "{:<10}{ready:>9}{in_flight:>11}{delayed:>9}{passed:>9}{ended:>9}", stage.as_str())?;
        }
        writeln!(text)?;
        for (ending, count) in &self.ended {
            writeln!(text, "{count:>9} {ending}")?;
        }
        writeln!(text, "{:>9} dead letters", self.dead_letters)?;
        if !self.causes.is_empty() {
            writeln!(text, "\n{:>9} {:<10}{:<10}{:<24}host", "", "at", "", "cause")?;
        }
        for CauseCount { stage, ending, slug, host, count } in self.causes.iter().take(Self::CAUSES) {
            writeln!(text, "{count:>9} {:<10}{:<10}{slug:<24}{host}", stage.as_str(), ending.as_str())?;
        }
        match self.causes.len().checked_sub(Self::CAUSES) {
            Some(more @ 1..) => writeln!(text, "{:>9} more causes and hosts: see --json", more),
            _ => Ok(()),
        }
    }
}

/// Seconds as a person tells them: `3h 05m`.
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
