//! `facemill rebuild`.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use super::produce::CollectionArgs;
use super::progress::Bars;
use super::{Failure, print_json, print_text};
use crate::photo::RunName;
use crate::pipeline::rebuild::{self, Rebuilt};
use crate::pipeline::record::{Records, Unreadable};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    collection: CollectionArgs,
}

pub fn run(Args { collection: args }: Args) -> Result<ExitCode, Failure> {
    let mapping = args.mapping.parse()?;
    let servers = args.servers.clients()?;
    let bars = Bars::new(!args.json);
    let _telemetry = super::observe("facemill=warn", &bars, "facemill-producer", false)?;
    let rebuilt = super::block_on(async {
        servers.check().await?;
        let candidates = args.dump.candidates(&servers.objects, mapping, &bars).await?;
        let (restore, enqueue) =
            (bars.count("restore", candidates.len() as u64), bars.count("enqueue", candidates.len() as u64));
        let (restored, enqueued) = (|photos| restore.inc(photos), |photos| enqueue.inc(photos));
        let records = Records::new(Arc::new(servers.objects.clone()));
        let (ledger, broker) = (&*servers.ledger, &servers.broker);
        let rebuilt = rebuild::rebuild(&args.run, &candidates, &records, ledger, broker, &restored, &enqueued).await;
        restore.finish_and_clear();
        enqueue.finish_and_clear();
        rebuilt.map_err(|error| Failure::broken(format!("{error}; run the same command again to go on")))
    })?;
    if args.json { print_json(&rebuilt) } else { print_text(&text(&rebuilt, &args.run)) }?;
    match rebuilt.unreadable.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(Failure::findings("one record cannot be read, and its photo is left out")),
        count => Err(Failure::findings(format!("{count} records cannot be read, and their photos are left out"))),
    }
}

fn text(rebuilt: &Rebuilt, run: &RunName) -> String {
    let Rebuilt { restored, stood, enqueued, refused, unreadable } = rebuilt;
    let mut text = format!("run {run}: {restored} restored, {stood} stood already, {enqueued} enqueued, ");
    let _ = writeln!(text, "{} refused", refused.len());
    for Unreadable { record, reason } in unreadable {
        let _ = writeln!(text, "{record}: {reason}");
    }
    for refusal in refused {
        let _ = writeln!(text, "photo {}: {}", refusal.photo_id, refusal.reason);
    }
    text
}
