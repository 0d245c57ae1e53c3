//! `facemill audit`.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::operate::produce::Dump;
use crate::cli::output::{print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::run::MappingArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::{Candidate, Ending, Id, State};
use crate::ledger::{Entry, Filter};
use crate::objects::{ObjectKey, Objects};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump that was run: a file, s3://BUCKET/KEY, or `-` for standard input
    #[arg(value_parser = Dump::parser())]
    dump: Dump,
    #[command(flatten)]
    mapping: MappingArgs,
    #[command(flatten)]
    place: RunTargetArgs,
}

/// What the comparison found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    candidates: u64,
    /// Candidates that have ended.
    ended: BTreeMap<Ending, u64>,
    /// Candidates that are still in the pipeline.
    waiting: u64,
    /// Photos in the ledger and not in the dump: of another dump, which is not a fault.
    others: u64,
    faults: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Fault {
    photo_id: Id,
    fault: &'static str,
    detail: String,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let mapping = args.mapping.parse()?;
    let bars = Bars::new(!args.place.json);
    let findings = crate::cli::process::block_on(async {
        let objects = || args.place.servers.clients().map(|servers| servers.objects);
        compare(&args.place, &args.dump.candidates(objects, mapping, &bars).await?).await
    })?;
    if args.place.json { print_json(&findings) } else { print_text(&findings.text()) }?;
    match findings.faults.len() {
        0 => Ok(ExitCode::SUCCESS),
        faults => Err(Failure::findings(format!("{faults} photos are not accounted for"))),
    }
}

async fn compare(place: &RunTargetArgs, candidates: &[Candidate]) -> Result<Findings, Failure> {
    const PAGE: usize = 1000;
    let mut findings = Findings { candidates: candidates.len() as u64, ..Findings::default() };
    let mut missing = HashSet::with_capacity(candidates.len());
    for candidate in candidates {
        if !missing.insert(&candidate.photo_id) {
            findings.fault(&candidate.photo_id, "doubled", "the dump has it more than once");
        }
    }
    let place = place.open().await?;
    // A photo between two queues is in none: only where nobody is at work must each have its message.
    let queued = place.message_ids().await?;
    let mut after = None;
    loop {
        let everything = Filter::default();
        let page = place.ledger.page(&place.run, &everything, after.as_ref(), PAGE).await.map_err(Failure::broken)?;
        let Some(last) = page.last() else { break };
        after = Some(last.photo_id.clone());
        let page = match &place.records {
            Some(records) => records.complete(&place.run, page).await.map_err(Failure::broken)?,
            None => page,
        };
        for entry in &page {
            if !missing.remove(&entry.photo_id) {
                findings.others += 1;
                continue;
            }
            match entry.status.state {
                State::Waiting(_) => findings.waiting += 1,
                State::Ended(ending) => *findings.ended.entry(ending).or_default() += 1,
            }
            check(entry, queued.as_ref(), &*place.objects, &mut findings).await?;
        }
    }
    for photo_id in missing {
        let remedy = format!("it is in the dump and not in the ledger: `{}` takes it in", place.takes_in());
        findings.fault(photo_id, "missing", &remedy);
    }
    findings.faults.sort();
    Ok(findings)
}

/// A waiting photo must have its message, a finished one its files.
async fn check(
    entry: &Entry,
    queued: Option<&HashSet<String>>,
    objects: &dyn Objects,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let Some(message) = &entry.status.message else {
        findings.fault(&entry.photo_id, "forgotten", "the ledger has lost what it knew of it");
        return Ok(());
    };
    match entry.status.state {
        State::Waiting(_) if queued.is_some_and(|queued| !queued.contains(&message.id())) => {
            findings.fault(&entry.photo_id, "stranded", "no queue has its message: `facemill run` enqueues it again");
        }
        State::Ended(Ending::Predicted) => {
            let facts = &message.photo.facts;
            let original =
                facts.original.as_ref().map(|original| ObjectKey::original(original.sha256, original.format));
            let crop = facts.crop.as_ref().map(|crop| ObjectKey::face(crop.sha256, crop.format));
            for key in [original, crop] {
                match key {
                    None => findings.fault(&entry.photo_id, "incomplete", "its record lacks what a stage found out"),
                    Some(key) if !objects.exists(&key).await.map_err(Failure::broken)? => {
                        findings.fault(&entry.photo_id, "lost object", key.as_str());
                    }
                    Some(_) => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

impl Findings {
    fn fault(&mut self, photo_id: &Id, fault: &'static str, detail: &str) {
        self.faults.push(Fault { photo_id: photo_id.clone(), fault, detail: detail.into() });
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{:>9} candidates in the dump", self.candidates)?;
        for (ending, count) in &self.ended {
            writeln!(text, "{count:>9} {ending}")?;
        }
        writeln!(text, "{:>9} on their way", self.waiting)?;
        if self.others > 0 {
            writeln!(text, "{:>9} more in the ledger, from another dump", self.others)?;
        }
        for Fault { photo_id, fault, detail } in &self.faults {
            writeln!(text, "photo {photo_id}: {fault}: {detail}")?;
        }
        if self.faults.is_empty() {
            writeln!(text, "every candidate is accounted for")?;
        }
        Ok(())
    }
}
