//! `facemill identities`.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use crate::cli::dataset::features::EmbeddingArgs;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::identities::{IdentitySummary, PairCounts, Suspect};
use crate::domain::Printable;
use crate::domain::clock::now;
use crate::services::identities::{IdentityFinder, IdentitySearch, SearchProgress, SearchStep};
use crate::similarity::identities::{DISTANCE, RoundProgress};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The distance of embeddings within which two faces count as one person: smaller values split people, larger ones
    /// mix them
    #[arg(long, value_name = "D", default_value_t = DISTANCE, value_parser = distance)]
    distance: f64,
    /// How many identities and suspects are listed
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u16,
    #[command(flatten)]
    embeddings: EmbeddingArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

fn distance(text: &str) -> Result<f64, String> {
    let distance = text.parse().ok().filter(|distance| (0.05..=0.8).contains(distance));
    distance.ok_or_else(|| "expected a number from 0.05 to 0.8".into())
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        let target = args.target.open().await?;
        let (mut index, source) = args.index.open(&target)?;
        let bars = Bars::new(!args.target.json);
        source.update(&mut index, &progress(&bars)).await.map_err(Failure::broken)?;
        let store = args.embeddings.open(target.folder())?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let finder = IdentityFinder::open(&args.models.find(), store, threads, shown(&bars));
        let mut finder = finder.map_err(Failure::broken)?;
        let search = finder.search(&index, &target.objects, args.distance, now().as_secs()).await;
        bars.clear();
        let search = search.map_err(Failure::broken)?;
        source.update(&mut index, &|_| {}).await.map_err(Failure::broken)?;
        let (identities, pairs) = index.identity_summaries(args.limit.into());
        let listing = Listing { search, pairs, identities, suspects: index.suspects() };
        match args.target.json {
            true => print_json(&listing),
            false => print_text(&text(&listing, args.limit.into())),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A bar for each step.
fn shown(bars: &Bars) -> SearchProgress {
    let (embeddings, grouping) = (bars.count("embedded", 0), bars.count("grouped", 0));
    Arc::new(move |step| match step {
        SearchStep::Embeddings { done, of } => {
            embeddings.set_length(of);
            embeddings.set_position(done);
        }
        SearchStep::Grouping(RoundProgress::Begins(points)) => {
            grouping.set_length(points);
            grouping.set_position(0);
        }
        SearchStep::Grouping(RoundProgress::Done(points)) => grouping.inc(points),
    })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing {
    #[serde(flatten)]
    search: IdentitySearch,
    /// Pairs of faces with labels that are in one identity.
    #[serde(flatten)]
    pairs: PairCounts,
    /// The largest ones.
    identities: Vec<IdentitySummary>,
    /// All faces whose label disagrees with their look.
    suspects: Vec<Suspect>,
}

fn text(listing: &Listing, limit: usize) -> String {
    let Listing { search, pairs, identities, suspects } = listing;
    let mut text = String::new();
    let shown = |text: &str| text.printable().to_string();
    for summary in identities {
        let IdentitySummary { identity, faces, label, of_label, labels } = summary;
        let (faces, label) = (counted(*faces, "face"), shown(label));
        let others = labels.saturating_sub(1);
        let rest =
            if others > 0 { format!(" ({of_label}), and {}", counted(others, "more label")) } else { String::new() };
        let _ = writeln!(text, "identity {identity:<6} {faces:<12} {label}{rest}");
    }
    for Suspect { photo_id, label, looks_like, identity } in suspects.iter().take(limit) {
        let (photo, label, looks_like) = (shown(photo_id.as_str()), shown(label), shown(looks_like));
        let _ = writeln!(
            text,
            "wrong person?  photo {photo} is labelled {label}, looks like {looks_like} (identity {identity})"
        );
    }
    let found = &search.found;
    let identities = if found.groups == 1 { "1 identity".to_owned() } else { format!("{} identities", found.groups) };
    let _ = writeln!(
        text,
        "{identities} with {} of {} compared; the largest has {}",
        counted(search.grouped, "crop"),
        found.compared,
        search.largest
    );
    if pairs.pairs > 0 {
        let share = 100.0 * pairs.of_one_label as f64 / pairs.pairs as f64;
        let _ = writeln!(text, "of {} in one identity, {share:.2} % have one label", counted(pairs.pairs, "pair"));
    }
    if !suspects.is_empty() {
        let _ = writeln!(
            text,
            "{} whose label disagrees with the look: facemill faces --where wrong_person",
            counted(suspects.len() as u64, "face")
        );
    }
    if search.unreadable > 0 {
        let _ = writeln!(text, "not compared: {} that cannot be read", counted(search.unreadable, "crop"));
    }
    text
}
