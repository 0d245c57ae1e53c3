//! `facemill duplicates`.

use std::collections::HashSet;
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use crate::archive::duplicates::StoredDuplicates;
use crate::cli::dataset::faces;
use crate::cli::dataset::features::FeatureArgs;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::process::person;
use crate::cli::progress::Bars;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::{Index, IndexError, Query};
use crate::domain::clock::now;
use crate::domain::{Id, Printable};
use crate::services::duplicates::{DuplicateFinder, DuplicatesError, Search, SearchProgress, SearchStep, part};
use crate::services::run_target::RunTarget;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Compares only faces that fulfil this query; all others are in no group then. docs/query.md has the fields
    #[arg(long = "where", value_name = "QUERY", value_parser = faces::query, conflicts_with = "part")]
    query: Option<Query>,
    /// Takes the faces of these photos out of their groups instead, for ever: they show something else
    #[arg(long, value_name = "PHOTO_ID", num_args = 1..)]
    part: Vec<Id>,
    /// Who parts them [default: this user]
    #[arg(long, value_name = "NAME", requires = "part")]
    by: Option<String>,
    /// How many groups are listed
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u16,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        let target = args.target.open().await?;
        let (mut index, source) = args.index.open(&target)?;
        let bars = Bars::new(!args.target.json);
        source.update(&mut index, &progress(&bars)).await.map_err(Failure::broken)?;
        if !args.part.is_empty() {
            bars.clear();
            return part_faces(args, &target, &index).await;
        }
        let search = search(args, &target, &index, &bars).await;
        bars.clear();
        let search = search?;
        source.update(&mut index, &|_| {}).await.map_err(Failure::broken)?;
        let groups = groups(&index, args.limit.into()).map_err(Failure::broken)?;
        let listing = Listing { search, groups };
        match args.target.json {
            true => print_json(&listing),
            false => print_text(&text(&listing)),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn search(args: &Args, target: &RunTarget, index: &Index, bars: &Bars) -> Result<Search, Failure> {
    let features = args.features.open(target.folder())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let finder = DuplicateFinder::open(&args.models.find(), features, threads, shown(bars));
    finder
        .map_err(Failure::broken)?
        .search(index, args.query.as_ref(), &target.objects, now().as_secs())
        .await
        .map_err(Failure::broken)
}

/// A bar for each step.
fn shown(bars: &Bars) -> SearchProgress {
    let (fingerprints, pairs) = (bars.count("compared", 0), bars.count("confirmed", 0));
    Arc::new(move |step| {
        let (bar, done, of) = match step {
            SearchStep::Fingerprints { done, of } => (&fingerprints, done, of),
            SearchStep::Pairs { done, of } => (&pairs, done, of),
        };
        bar.set_length(of);
        bar.set_position(done);
    })
}

async fn part_faces(args: &Args, target: &RunTarget, index: &Index) -> Result<(), Failure> {
    let by = args.by.clone().unwrap_or_else(person);
    let mut faces = Vec::new();
    for photo in &args.part {
        let face = index.face(photo).map_err(Failure::broken)?;
        let face =
            face.ok_or_else(|| Failure::usage(format!("the run has no face of photo {}", photo.as_str().printable())))?;
        faces.push((face.photo_id, face.crop));
    }
    let stored = StoredDuplicates::new(target.objects.clone(), target.run.clone());
    let parted = part(&stored, &faces, &by, now().as_secs()).await.map_err(|error| match error {
        DuplicatesError::NoGroup(_) => Failure::usage(error),
        error => Failure::broken(error),
    })?;
    match args.target.json {
        true => print_json(&serde_json::json!({ "parted": parted })),
        false => print_text(&format!("parted {}\n", counted(parted as u64, "crop"))),
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing {
    #[serde(flatten)]
    search: Search,
    /// Photos of each group, the best one first.
    #[serde(rename = "listed")]
    groups: Vec<Vec<Id>>,
}

/// The photos of the first groups, the best one of each first.
fn groups(index: &Index, limit: usize) -> Result<Vec<Vec<Id>>, IndexError> {
    let (mut groups, mut known) = (Vec::new(), HashSet::new());
    for row in index.duplicates_among(&index.rows(&Query::ALL, index.threshold())).iter() {
        if groups.len() >= limit {
            break;
        }
        let rows = index.group_of(row)?;
        if known.insert(rows.first().copied()) {
            groups.push(rows.into_iter().map(|row| index.photo_of(row).clone()).collect());
        }
    }
    Ok(groups)
}

fn text(Listing { search, groups }: &Listing) -> String {
    let mut text = String::new();
    for group in groups {
        let names: Vec<String> = group.iter().map(|id| id.as_str().printable().to_string()).collect();
        let (best, others) = names.split_first().map_or(("", &[][..]), |(best, others)| (best.as_str(), others));
        let _ = writeln!(text, "{best:<16} {}", others.join(" "));
    }
    let found = &search.found;
    let _ = writeln!(
        text,
        "{}, {} besides the best ones, of {} compared; {} shown by features to be something else",
        counted(found.groups, "group"),
        counted(search.duplicates, "crop"),
        counted(found.compared, "crop"),
        counted(search.refuted, "close pair")
    );
    if groups.len() < found.groups as usize {
        let shown = counted(groups.len() as u64, "group");
        let _ = writeln!(text, "listed: {shown}, the photo of the best crop first; --limit lists more");
    }
    if search.unmeasured > 0 {
        let _ = writeln!(
            text,
            "not compared: {} without a fingerprint; run `facemill measure`",
            counted(search.unmeasured, "crop")
        );
    }
    if search.unreadable > 0 {
        let _ = writeln!(text, "not readable: {}", counted(search.unreadable, "crop"));
    }
    text
}
