//! `facemill produce`.

use std::process::ExitCode;

use super::progress::Bars;
use super::run::MappingArgs;
use super::servers::ServerArgs;
use super::{Failure, print_json, print_text};
use crate::photo::{Candidate, RunName};
use crate::pipeline::producer::{self, Enqueued};
use crate::source::{self, Input, Mapping};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump, of any kind and compression, or a table of candidates; `-` is standard input
    dump: Input,
    #[command(flatten)]
    mapping: MappingArgs,
    /// The run's name, so that several collections can share an installation
    #[arg(long, env = "FACEMILL_RUN", default_value_t, value_name = "NAME")]
    run: RunName,
    /// Takes only the first N candidates
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    servers: ServerArgs,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let mapping = args.mapping.parse()?;
    let servers = args.servers.clients()?;
    let bars = Bars::new(!args.json);
    crate::telemetry::init("facemill=warn", bars.sink()).map_err(Failure::broken)?;
    let enqueued = super::block_on(async {
        // Before the dump is read, which may take long.
        servers.check().await?;
        let mut candidates = read(args.dump, mapping, &bars).await?;
        candidates.truncate(args.limit.unwrap_or(usize::MAX));
        let bar = bars.count("enqueue", candidates.len() as u64);
        let progress = |photos| bar.inc(photos);
        let enqueued = producer::enqueue(&args.run, &candidates, &*servers.ledger, &servers.broker, &progress).await;
        bar.finish_and_clear();
        enqueued.map_err(|error| Failure::broken(format!("{error}; run the same command again to go on")))
    })?;
    if args.json { print_json(&enqueued) } else { print_text(&text(&enqueued, &args.run)) }?;
    Ok(ExitCode::SUCCESS)
}

/// The candidates of a dump, off the threads of those who wait for servers.
pub async fn read(dump: Input, mapping: Mapping, bars: &Bars) -> Result<Vec<Candidate>, Failure> {
    let reading = bars.reading();
    let read = tokio::task::spawn_blocking(move || {
        let candidates = source::candidates(&dump, &source::Options { mapping }, &mut |p| reading.show(p));
        reading.finish();
        candidates
    });
    read.await.map_err(Failure::broken)?.map_err(Failure::broken)
}

fn text(enqueued: &Enqueued, run: &RunName) -> String {
    let Enqueued { new, known, refused } = enqueued;
    let mut text = format!("run {run}: {new} enqueued, {known} known before, {} refused\n", refused.len());
    for refusal in refused {
        text.push_str(&format!("photo {}: {}\n", refusal.photo_id, refusal.reason));
    }
    text
}
