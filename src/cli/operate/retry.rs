//! `facemill retry`.

use std::collections::HashMap;
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
use crate::domain::{Ending, Id, PhotoKey, Position};
use crate::ledger::{Entry, Filter};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which photos: "outcome=gone and cause=http-403 and host=photos.example"; also stage
    #[arg(long = "where", value_name = "QUERY", value_parser = filter::of_endings)]
    filter: Filter,
    /// Also publishes photos again that an interrupted retry requeued and no stage has processed since
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    place: RunTargetArgs,
}

/// Printed for a folder, where no worker runs now.
pub const NEXT_RUN: &str = "they lie in the folder's queues: the next `facemill run` goes on with them\n";

#[derive(Debug, Default, Serialize)]
struct Summary {
    requeued: u64,
    published_again: u64,
    letters_removed: u64,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let _telemetry = crate::cli::process::observe("facemill=warn", &Bars::new(false), "facemill-producer", false)?;
    crate::cli::process::block_on(async {
        let holding = args.place.hold().await?;
        let mut summary = Summary::default();
        if args.again {
            summary.published_again = republish(&holding, &args.filter).await?;
        }
        let mut failed = HashMap::new();
        for ending in [Ending::Gone, Ending::Rejected, Ending::Failed] {
            if args.filter.ending.is_none_or(|wanted| wanted == ending) {
                let filter = Filter { ending: Some(ending), ..args.filter.clone() };
                summary.requeued += requeue(&holding, &filter, &mut failed).await?;
            }
        }
        summary.letters_removed = remove_letters(&holding, &failed).await?;
        match args.place.json {
            true => print_json(&summary),
            false => print_text(&summary.text(holding.is_folder())),
        }?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Photos on one page of the ledger, and how many of them are requeued at a time.
const PAGE: usize = 500;
const TOGETHER: usize = 16;

fn interrupted(error: impl std::fmt::Display) -> Failure {
    Failure::broken(format!("{error}; run the same command with --again to go on"))
}

/// Requeues the photos that the filter selects. `failed` receives the new positions of those with a dead letter.
async fn requeue(
    holding: &LockedRun,
    filter: &Filter,
    failed: &mut HashMap<PhotoKey, Position>,
) -> Result<u64, Failure> {
    let (mut requeued, mut after) = (0, None);
    while let Some(page) = page(holding, filter, &mut after).await? {
        let messages: Vec<Option<Message>> = stream::iter(page)
            .map(async |entry: Entry| {
                let key = PhotoKey { run: holding.run.clone(), photo_id: entry.photo_id };
                holding.requeue().requeue(&key).await
            })
            .buffered(TOGETHER)
            .try_collect()
            .await
            .map_err(interrupted)?;
        for message in messages.into_iter().flatten() {
            requeued += 1;
            if filter.ending == Some(Ending::Failed) {
                failed.insert(message.photo.key(), message.position);
            }
        }
    }
    Ok(requeued)
}

async fn republish(holding: &LockedRun, filter: &Filter) -> Result<u64, Failure> {
    // With the cause of its ending a photo that was sent back has nothing to do any more.
    let waiting = Filter { waiting: true, ending: None, cause: None, ..filter.clone() };
    let (mut published, mut after) = (0, None);
    while let Some(page) = page(holding, &waiting, &mut after).await? {
        let again: Vec<bool> = stream::iter(page)
            .map(async |entry: Entry| holding.requeue().republish(&entry.status).await)
            .buffered(TOGETHER)
            .try_collect()
            .await
            .map_err(interrupted)?;
        published += again.into_iter().filter(|&published| published).count() as u64;
    }
    Ok(published)
}

/// The next page, none after the last.
async fn page(holding: &LockedRun, filter: &Filter, after: &mut Option<Id>) -> Result<Option<Vec<Entry>>, Failure> {
    let page = holding.ledger.page(&holding.run, filter, after.as_ref(), PAGE).await.map_err(interrupted)?;
    *after = page.last().map(|last| last.photo_id.clone());
    Ok((!page.is_empty()).then_some(page))
}

/// Deletes the dead letters of photos that were requeued, but not letters that were written later.
async fn remove_letters(holding: &LockedRun, failed: &HashMap<PhotoKey, Position>) -> Result<u64, Failure> {
    if failed.is_empty() {
        return Ok(0);
    }
    let is_past = |letter: &DeadLetter| {
        let message = Message::decode(letter.body.as_bytes());
        message.is_ok_and(|message| failed.get(&message.photo.key()).is_some_and(|now| message.position < *now))
    };
    holding.broker.take_dead_letters(&is_past).await.map(|removed| removed.len() as u64).map_err(Failure::broken)
}

impl Summary {
    fn text(&self, is_folder: bool) -> String {
        let Self { requeued, published_again, letters_removed } = self;
        let mut text = format!("{requeued} photos sent back, {letters_removed} dead letters removed\n");
        if *published_again > 0 {
            text.push_str(&format!("{published_again} published again that had been sent back before\n"));
        }
        if is_folder && requeued + published_again > 0 {
            text.push_str(NEXT_RUN);
        }
        text
    }
}
