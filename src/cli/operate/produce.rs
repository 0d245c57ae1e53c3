//! `facemill produce`.

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::archive::records::Records;
use crate::archive::run_settings::StoredRunSettings;
use crate::cli::failure::Failure;
use crate::cli::output::{check_conflicts, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::flags::{FaceArgs, ModelArgs};
use crate::cli::settings::reading::ReadingArgs;
use crate::cli::settings::servers::ServerArgs;
use crate::domain::{Candidate, RunName};
use crate::inference;
use crate::objects::s3::{Reader, S3};
use crate::pipeline::producer::{self, Enqueued};
use crate::pipeline::run_shapes::run_settings;
use crate::source::{self, Input};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    collection: CollectionArgs,
    /// Takes only the first N candidates
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    faces: FaceArgs,
    #[command(flatten)]
    models: ModelArgs,
}

/// A dump and its run on an installation.
#[derive(Debug, clap::Args)]
pub struct CollectionArgs {
    /// The dump, of any kind and compression, or a table of candidates: a file, s3://BUCKET/KEY, or `-` for standard
    /// input
    #[arg(value_parser = Dump::parser())]
    pub dump: Dump,
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

/// The location of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dump {
    Here(Input),
    S3 { bucket: String, key: String },
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(input) => input.fmt(f),
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{key}"),
        }
    }
}

impl Dump {
    /// The parser for the command line.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::parse)
    }

    fn parse(text: OsString) -> Result<Self, &'static str> {
        let Some(address) = text.to_str().and_then(|text| text.strip_prefix("s3://")) else {
            return Ok(Self::Here(text.into()));
        };
        match address.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                Ok(Self::S3 { bucket: bucket.into(), key: key.into() })
            }
            _ => Err("expected s3://BUCKET/KEY"),
        }
    }

    /// Reads the whole dump. `objects` is called only for a dump in S3, which is streamed and not stored.
    pub async fn candidates(
        self,
        objects: impl FnOnce() -> Result<S3, Failure>,
        options: source::Options,
        bars: &Bars,
    ) -> Result<Vec<Candidate>, Failure> {
        let reading = bars.reading();
        let read = match self {
            Self::Here(input) => tokio::task::spawn_blocking(move || {
                let candidates = source::candidates(&input, &options, &mut |progress| reading.show(progress));
                reading.finish();
                candidates
            }),
            Self::S3 { bucket, key } => {
                let download = objects()?.in_bucket(&bucket).download(&key).await.map_err(Failure::broken)?;
                let reader = Reader::new(download);
                tokio::task::spawn_blocking(move || {
                    let candidates = source::candidates_from(reader, &options, &mut |progress| reading.show(progress));
                    reading.finish();
                    candidates
                })
            }
        };
        read.await.map_err(Failure::broken)?.map_err(Failure::broken)
    }
}

pub fn run(Args { collection: args, limit, faces, models }: Args) -> Result<ExitCode, Failure> {
    let options = args.reading.options(Some(&args.dump.to_string()))?;
    let faults = faces.faults();
    if !faults.is_empty() {
        return Err(Failure::all(faults));
    }
    let servers = args.servers.clients()?;
    let bars = Bars::new(!args.json);
    let _telemetry = crate::cli::process::observe("facemill=warn", &bars, "facemill-producer", false)?;
    let enqueued = crate::cli::process::block_on(async {
        // This precedes the dump, which may take long to read.
        servers.check().await.map_err(Failure::broken)?;
        let landmarks = models.find().landmarks();
        let landmarks = tokio::task::spawn_blocking(move || inference::sha256(&landmarks)).await;
        let landmarks = landmarks.map_err(Failure::broken)?.map_err(Failure::broken)?;
        let settings = run_settings(&faces.detect(), &faces.crop(), landmarks);
        let stored = StoredRunSettings::new(Arc::new(servers.objects.clone()));
        stored.agree(&args.run, &settings).await.map_err(Failure::broken)?;
        let mut candidates = args.dump.candidates(|| Ok(servers.objects.clone()), options, &bars).await?;
        candidates.truncate(limit.unwrap_or(usize::MAX));
        let bar = bars.count("enqueue", candidates.len() as u64);
        let progress = |photos| bar.inc(photos);
        let records = Records::new(Arc::new(servers.objects.clone()));
        let (ledger, broker) = (&*servers.ledger, &servers.broker);
        let enqueued = producer::enqueue(&args.run, &candidates, ledger, broker, Some(&records), &progress).await;
        bar.finish_and_clear();
        enqueued.map_err(|error| Failure::broken(format!("{error}; run the same command again to continue")))
    })?;
    if args.json { print_json(&enqueued) } else { print_text(&text(&enqueued, &args.run)) }?;
    check_conflicts(enqueued.in_conflict)
}

fn text(enqueued: &Enqueued, run: &RunName) -> String {
    let Enqueued { new, known, refused, conflicts, .. } = enqueued;
    let mut text = format!("run {run}: {new} enqueued, {known} known before, {} refused\n", refused.len());
    for conflict in conflicts {
        text.push_str(&format!("{conflict}\n"));
    }
    for refusal in refused {
        text.push_str(&format!("photo {}: {}\n", refusal.photo_id, refusal.reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_s3_differ_from_files() {
        let s3 = Dump::S3 { bucket: "dumps".into(), key: "2026/a.sql.gz".into() };
        assert_eq!(Dump::parse("s3://dumps/2026/a.sql.gz".into()), Ok(s3));
        assert_eq!(Dump::parse("s3/a.sql".into()), Ok(Dump::Here(Input::File("s3/a.sql".into()))));
        assert_eq!(Dump::parse("-".into()), Ok(Dump::Here(Input::Stdin)));
        for bad in ["s3://", "s3://dumps", "s3://dumps/", "s3:///key"] {
            assert!(Dump::parse(bad.into()).is_err(), "{bad}");
        }
    }
}
