//! `facemill dataset`.

use std::fmt::Write;
use std::process::ExitCode;

use crate::archive::versions::{StoredVersions, Tombstone, VersionHeader};
use crate::cli::dataset::balance;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::dataset::selection::SelectionArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, faces_of_labels, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::domain::clock::now;
use crate::domain::{Printable, VersionName, calendar};
use crate::versions::{ChangedFace, Difference, FaceKey, compare, freeze, header};

/// Faces of each kind that a comparison names.
const NAMED: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Makes a version: the selected faces and all that is known of them now, for good
    Freeze {
        /// The name of the version: letters, digits, '.', '_' and '-'
        #[arg(value_name = "NAME")]
        name: VersionName,
        #[command(flatten)]
        selection: SelectionArgs,
        #[command(flatten)]
        index: IndexArgs,
        #[command(flatten)]
        target: RunTargetArgs,
    },
    /// Shows how faces are spread over labels, poses, sizes, sources and years, and what caps would do to that
    Balance(balance::Args),
    /// Lists the versions of a run
    List {
        #[command(flatten)]
        target: RunTargetArgs,
    },
    /// Shows how a version was made and what it has
    Show {
        #[arg(value_name = "NAME")]
        name: VersionName,
        #[command(flatten)]
        target: RunTargetArgs,
    },
    /// Compares two versions: faces that were added, removed, or have another crop or label
    Diff {
        #[arg(value_name = "BEFORE")]
        before: VersionName,
        #[arg(value_name = "AFTER")]
        after: VersionName,
        #[command(flatten)]
        target: RunTargetArgs,
    },
}

/// A progress bar for the faces of a version, of which the number is known with the first shard.
pub fn shards(bars: &Bars, what: &'static str) -> impl Fn(u64, u64) + Sync + use<> {
    let bar = bars.count(what, 0);
    move |faces, all| {
        bar.set_length(all);
        bar.inc(faces);
    }
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        match &args.action {
            Action::Balance(args) => balance::show(args).await?,
            Action::Freeze { name, selection, index, target } => make(name, selection, index, target).await?,
            Action::List { target } => list(target).await?,
            Action::Show { name, target } => {
                let header = header(&versions(target).await?, name).await.map_err(Failure::broken)?;
                if target.json { print_json(&header)? } else { print_text(&description(&header))? }
            }
            Action::Diff { before, after, target } => {
                let difference = compare(&versions(target).await?, before, after).await.map_err(Failure::broken)?;
                match target.json {
                    true => print_json(&difference)?,
                    false => print_text(&changes(&difference, before, after))?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn versions(target: &RunTargetArgs) -> Result<StoredVersions, Failure> {
    let target = target.open().await?;
    Ok(StoredVersions::new(target.objects.clone(), target.run.clone()))
}

async fn make(
    name: &VersionName,
    selection: &SelectionArgs,
    index: &IndexArgs,
    target: &RunTargetArgs,
) -> Result<(), Failure> {
    let opened = target.open().await?;
    let (mut index, source) = index.open(&opened)?;
    let bars = Bars::new(true);
    let updated = source.update(&mut index, &progress(&bars)).await;
    updated.map_err(Failure::broken)?;
    let versions = StoredVersions::new(opened.objects.clone(), opened.run.clone());
    let at = now().as_secs();
    let frozen = freeze(&index, &versions, name, &selection.settings(), at, &shards(&bars, "freezing")).await;
    bars.clear();
    let header = frozen.map_err(Failure::broken)?;
    if target.json { print_json(&header) } else { print_text(&description(&header)) }
}

async fn list(target: &RunTargetArgs) -> Result<(), Failure> {
    let all = versions(target).await?.all().await.map_err(Failure::broken)?;
    if target.json {
        return print_json(&all);
    }
    let mut text = String::new();
    for header in &all {
        let VersionHeader { name, counts, selection, .. } = header;
        let day = calendar::day(header.frozen_at);
        let _ = writeln!(text, "{name}  {day}  {}  {}", faces_of_labels(counts.faces, counts.labels), selection.query);
    }
    if all.is_empty() {
        text.push_str("no versions: `facemill dataset freeze NAME` makes one\n");
    }
    print_text(&text)
}

fn description(header: &VersionHeader) -> String {
    let VersionHeader { selection, counts, .. } = header;
    let mut rows = vec![
        ("version", header.name.to_string()),
        ("run", header.run.to_string()),
        ("frozen on", format!("{}, with facemill {}", calendar::day(header.frozen_at), header.facemill)),
        ("has", faces_of_labels(counts.faces, counts.labels)),
        ("query", if selection.query.is_empty() { "none: all faces".to_owned() } else { selection.query.clone() }),
        ("size", format!("{} pixels{}", selection.size, if selection.upscale { " or less" } else { " or more" })),
    ];
    if let Some(number) = selection.number {
        rows.push(("at most", format!("{}, first by {}", counted(number as u64, "face"), selection.sort)));
    }
    if let Some(limit) = selection.per_label {
        rows.push(("a label", format!("at most {}", counted(limit as u64, "face"))));
    }
    if let Some(limit) = selection.per_identity {
        rows.push(("an identity", format!("at most {}", counted(limit as u64, "face"))));
    }
    for (count, why) in counts.left_out.known_reasons(selection.size) {
        rows.push(("left out", format!("{count}, {why}")));
    }
    let by_name = |counts: &std::collections::BTreeMap<String, u64>| {
        let all: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        all.join(", ")
    };
    rows.push(("verdicts", by_name(&counts.by_verdict)));
    rows.push(("alignment", by_name(&counts.by_alignment)));
    rows.push(("threshold", format!("{:.4}", header.threshold)));
    if let Some(model) = header.model_sha256 {
        rows.push(("classifier", model.to_string()));
    }
    rows.push(("digest", header.digest.to_string()));
    for Tombstone { faces, at, digest_before } in &header.tombstones {
        let lost = format!("{faces} taken down on {}; the digest was {digest_before}", calendar::day(*at));
        rows.push(("tombstone", lost));
    }
    rows.into_iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect()
}

fn changes(difference: &Difference, before: &VersionName, after: &VersionName) -> String {
    let Difference { added, removed, changed, same } = difference;
    let mut text = format!(
        "{before} to {after}: {} added, {} removed, {} changed, {same} the same\n",
        added.len(),
        removed.len(),
        changed.len()
    );
    let face = |sign: char, key: &FaceKey| {
        format!("{sign} {}  {}\n", key.photo_id.as_str().printable(), key.label.printable())
    };
    let mut named = |all: usize, lines: Vec<String>| {
        let count = lines.len();
        text.extend(lines);
        if all > count {
            let _ = writeln!(text, "  and {} more: --json has all", all - count);
        }
    };
    named(added.len(), added.iter().take(NAMED).map(|key| face('+', key)).collect());
    named(removed.len(), removed.iter().take(NAMED).map(|key| face('-', key)).collect());
    named(changed.len(), changed.iter().take(NAMED).map(change).collect());
    text
}

fn change(ChangedFace { before, after }: &ChangedFace) -> String {
    let id = before.photo_id.as_str().printable();
    let labels = match before.label == after.label {
        true => before.label.printable().to_string(),
        false => format!("{} is now {}", before.label.printable(), after.label.printable()),
    };
    let crop = if before.crop == after.crop { "" } else { ", another crop" };
    format!("~ {id}  {labels}{crop}\n")
}
