//! `facemill status`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::place::PlaceArgs;
use super::{Failure, print_json, print_text};
use crate::ledger::{CauseCount, Counts};
use crate::photo::{Ending, RunName, StageName};

#[derive(Debug, clap::Args)]
pub struct Args {
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
    stages: BTreeMap<StageName, StageStatus>,
    dead_letters: u64,
    causes: Vec<CauseCount>,
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
    let status = super::block_on(async {
        let place = args.place.open().await?;
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
        let at_work = place.is_at_work();
        Ok(Status { run: place.run, at_work, candidates, ended, stages, dead_letters, causes })
    })?;
    if args.place.json { print_json(&status) } else { print_text(&status.text()) }?;
    Ok(ExitCode::SUCCESS)
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

    fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let ended: u64 = self.ended.values().sum();
        let at_work = match self.at_work {
            Some(true) => "; a process is at work on it",
            Some(false) => "; nobody is at work on it",
            None => "",
        };
        writeln!(text, "{} candidates, {} without a final answer{at_work}", self.candidates, self.candidates - ended)?;
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
