//! `facemill rebuild`.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use crate::archive::records::{Records, Unreadable};
use crate::cli::failure::Failure;
use crate::cli::operate::produce::CollectionArgs;
use crate::cli::output::{check_conflicts, counted, print_json, print_text};
use crate::cli::progress::Bars;
use crate::domain::RunName;
use crate::pipeline::producer;
use crate::services::rebuild::{self, Rebuilt};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    collection: CollectionArgs,
    /// Also publishes all waiting photos again, for lost queues; harmless if they were not lost
    #[arg(long)]
    queues: bool,
}

/// The result for the run.
#[derive(Debug, Serialize)]
struct RebuildOutcome {
    #[serde(flatten)]
    rebuilt: Rebuilt,
    /// Messages that were published again.
    published: u64,
}

pub fn run(Args { collection: args, queues }: Args) -> Result<ExitCode, Failure> {
    let options = args.reading.options(Some(&args.source.to_string()))?;
    let servers = args.servers.clients()?;
    args.source.check_for_installation(&servers.objects)?;
    let bars = Bars::new(!args.json);
    let _telemetry = crate::cli::process::observe("facemill=warn", &bars, "facemill-producer", false)?;
    let outcome = crate::cli::process::block_on(async {
        servers.check().await.map_err(Failure::broken)?;
        let candidates = args.source.candidates(|| Ok(servers.objects.clone()), options, &bars).await?;
        let (restore, enqueue) =
            (bars.count("restore", candidates.len() as u64), bars.count("enqueue", candidates.len() as u64));
        let (restored, enqueued) = (|photos| restore.inc(photos), |photos| enqueue.inc(photos));
        let records = Records::new(Arc::new(servers.objects.clone()));
        let (ledger, broker) = (&*servers.ledger, &servers.broker);
        let rebuilt = rebuild::rebuild(&args.run, &candidates, &records, ledger, broker, &restored, &enqueued).await;
        restore.finish_and_clear();
        enqueue.finish_and_clear();
        let again = |error: String| Failure::broken(format!("{error}; run the same command again to continue"));
        let rebuilt = rebuilt.map_err(|error| again(error.to_string()))?;
        let published = match queues {
            true => producer::enqueue_waiting(&args.run, ledger, broker).await,
            false => Ok(0),
        };
        Ok(RebuildOutcome { rebuilt, published: published.map_err(|error| again(error.to_string()))? })
    })?;
    if args.json { print_json(&outcome) } else { print_text(&text(&outcome, &args.run)) }?;
    match outcome.rebuilt.unreadable.len() {
        0 => check_conflicts(outcome.rebuilt.in_conflict),
        1 => Err(Failure::findings("one record cannot be read; its photo is not restored")),
        count => Err(Failure::findings(format!("{count} records cannot be read; their photos are not restored"))),
    }
}

fn text(RebuildOutcome { rebuilt, published }: &RebuildOutcome, run: &RunName) -> String {
    let Rebuilt { restored, stood, enqueued, never_taken, refused, unreadable, conflicts, .. } = rebuilt;
    let mut text = format!("run {run}: {restored} restored, {stood} known before, {enqueued} enqueued, ");
    let _ = writeln!(text, "{} refused", refused.len());
    if *never_taken > 0 {
        let candidates = counted(*never_taken, "candidate");
        let _ = writeln!(text, "{candidates} left out: the run has never taken them; `facemill produce` enqueues them");
    }
    if *published > 0 {
        let _ = writeln!(text, "{published} waiting photos published again");
    }
    for Unreadable { record, reason } in unreadable {
        let _ = writeln!(text, "{record}: {reason}");
    }
    for conflict in conflicts {
        let _ = writeln!(text, "{conflict}");
    }
    for refusal in refused {
        let _ = writeln!(text, "photo {}: {}", refusal.photo_id, refusal.reason);
    }
    text
}
