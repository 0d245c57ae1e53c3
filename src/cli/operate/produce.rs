//! `facemill produce`.

use std::process::ExitCode;
use std::sync::Arc;

use crate::archive::records::Records;
use crate::archive::refusals::Refusals;
use crate::archive::run_candidates::RunCandidates;
use crate::archive::run_folders::StoredRunFolders;
use crate::cli::failure::Failure;
use crate::cli::output::{check_conflicts, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::flags::{FaceArgs, ModelArgs};
use crate::cli::settings::reading::ReadingArgs;
use crate::cli::settings::servers::ServerArgs;
use crate::cli::settings::source_arg::SourceArg;
use crate::domain::RunName;
use crate::pipeline::producer::Enqueued;
use crate::pipeline::refused;
use crate::pipeline::run_shapes::landmark_hashes;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    collection: CollectionArgs,
    /// Takes only the first N candidates
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Copies the photos of a folder into the bucket; otherwise the bucket links to them
    #[arg(long, help_heading = "Source")]
    copy: bool,
    #[command(flatten)]
    faces: FaceArgs,
    #[command(flatten)]
    models: ModelArgs,
}

/// A source and its run on an installation.
#[derive(Debug, clap::Args)]
pub struct CollectionArgs {
    /// A dump, a list of URLs or a table of photos, of any kind and compression: a file, s3://BUCKET/KEY, or `-` for
    /// standard input; or a folder with photos: s3://BUCKET/PREFIX/
    #[arg(value_parser = SourceArg::parser(), value_name = "SOURCE")]
    pub source: SourceArg,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// The run's name, so that several collections can share an installation
    #[arg(long, env = "FACEMILL_RUN", default_value_t, value_name = "NAME")]
    pub run: RunName,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub servers: ServerArgs,
}

pub fn run(Args { collection: args, limit, copy, faces, models }: Args) -> Result<ExitCode, Failure> {
    let options = args.reading.options(Some(&args.source.to_string()))?;
    let folder = args.source.run_folder(copy)?;
    let faults = faces.faults();
    if !faults.is_empty() {
        return Err(Failure::settings(&faults));
    }
    let servers = args.servers.clients()?;
    let bars = Bars::new(!args.json);
    let _telemetry = crate::cli::process::observe("facemill=warn", &bars, "facemill-producer", false)?;
    let enqueued = crate::cli::process::block_on(async {
        // This precedes the dump, which may take long to read.
        servers.check().await.map_err(Failure::broken)?;
        let objects = Arc::new(servers.objects.clone());
        faces.given().agree(&args.run, &landmark_hashes(models.find()), objects).await.map_err(Failure::broken)?;
        args.source.check_for_installation(&servers.objects)?;
        let mut candidates = args.source.candidates(|| Ok(servers.objects.clone()), options, &bars).await?;
        candidates.truncate(limit.unwrap_or(usize::MAX));
        if let Some(folder) = folder {
            let folders = StoredRunFolders::new(Arc::new(servers.objects.clone()));
            folders.add(&args.run, &folder).await.map_err(Failure::broken)?;
        }
        let taken = RunCandidates::new(Arc::new(servers.objects.clone()));
        taken.add(&args.run, &candidates).await.map_err(Failure::broken)?;
        let bar = bars.count("enqueue", candidates.len() as u64);
        let progress = |photos| bar.inc(photos);
        let records = Records::new(Arc::new(servers.objects.clone()));
        let refusals = Refusals::new(Arc::new(servers.objects.clone()));
        let (ledger, broker) = (&*servers.ledger, &servers.broker);
        let enqueued =
            refused::enqueue(&args.run, &candidates, ledger, broker, Some(&records), &refusals, &progress).await;
        bar.finish_and_clear();
        broker.close().await;
        enqueued.map_err(|error| Failure::broken(format!("{error}; run the same command again to continue")))
    })?;
    if args.json { print_json(&enqueued) } else { print_text(&text(&enqueued, &args.run)) }?;
    check_conflicts(enqueued.in_conflict)
}

fn text(enqueued: &Enqueued, run: &RunName) -> String {
    let Enqueued { new, known, refused, conflicts, taken_down, .. } = enqueued;
    let mut text = format!("run {run}: {new} enqueued, {known} known before, {} refused\n", refused.len());
    if *taken_down > 0 {
        text.push_str(&format!("{taken_down} not enqueued: they were taken down\n"));
    }
    for conflict in conflicts {
        text.push_str(&format!("{conflict}\n"));
    }
    for refusal in refused {
        text.push_str(&format!("photo {}: {}\n", refusal.photo_id, refusal.reason));
    }
    text
}
