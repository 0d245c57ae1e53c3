//! `facemill suggest`.

use std::collections::HashSet;
use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::dataset::faces::query;
use crate::cli::dataset::features::FeatureArgs;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::dataset::train::shown;
use crate::cli::failure::Failure;
use crate::cli::output::{counted, print_json, print_text};
use crate::cli::progress::Bars;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::dataset::face::STATUS;
use crate::dataset::ok_left::{GOAL, OkLeft};
use crate::dataset::page::{Order, scattered};
use crate::dataset::suggested::RANDOM_SHARE;
use crate::dataset::{Direction, Face, Index, IndexError, Query, Sort};
use crate::domain::calendar;
use crate::domain::{Id, Printable, Selection};
use crate::objects::ObjectKey;
use crate::services::run_target::RunTarget;
use crate::services::suggestions::{
    ChosenMethod, Method, Suggested, Suggester, SuspiciousVerdict, SuspiciousVerdicts, suspicious_verdicts,
};
use crate::services::training::{Trainer, TrainingStep};
use crate::training::train::TrainingSettings;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many faces or verdicts are listed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
    /// Lists only faces that fulfil this query, and no random ones: "size>=512"; docs/query.md has the fields
    #[arg(long = "where", value_name = "QUERY", default_value = "", value_parser = query)]
    query: Query,
    /// Lists verdicts that a classifier trained on the others disagrees with: people should look at them again
    #[arg(long, conflicts_with = "query")]
    suspicious: bool,
    /// Determines which faces are the random ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    crate::cli::process::block_on(async {
        let target = args.target.open().await?;
        let (mut index, source) = args.index.open(&target)?;
        let bars = Bars::new(!args.target.json);
        source.update(&mut index, &progress(&bars)).await.map_err(Failure::broken)?;
        match args.suspicious {
            true => list_suspicious(args, &target, &index, &bars).await,
            false => list_faces(args, &target, &mut index, &bars).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A face to judge.
#[derive(Serialize)]
struct SuggestedFace {
    photo_id: Id,
    file: String,
    label_name: Option<String>,
    p_ok: Option<f64>,
    /// `random` for the random share, `suggested` for the order; `filter` with a query.
    selection: Selection,
}

impl SuggestedFace {
    fn of(face: &Face, selection: Selection) -> Self {
        Self {
            photo_id: face.photo_id.clone(),
            file: ObjectKey::face(face.crop, face.format).as_str().to_owned(),
            label_name: face.label_name.clone(),
            p_ok: face.p_ok,
            selection,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Listing {
    #[serde(flatten)]
    chosen: ChosenMethod,
    #[serde(flatten)]
    suggested: Suggested,
    faces: Vec<SuggestedFace>,
    ok_left: OkLeft,
}

async fn list_faces(args: &Args, target: &RunTarget, index: &mut Index, bars: &Bars) -> Result<(), Failure> {
    let chosen = ChosenMethod::of(index, &target.objects).await.map_err(Failure::broken)?;
    let features = args.features.open(target.folder())?;
    let mut suggester = Suggester::open(&args.models.find(), features, threads()).map_err(Failure::broken)?;
    let bar = shown(bars);
    let progress = move |done, of| bar(TrainingStep::Features { done, of });
    let suggested = suggester.order(index, &target.objects, &args.query, chosen.method, &progress).await;
    bars.clear();
    let suggested = suggested.map_err(Failure::broken)?;
    let faces = faces(args, index, suggested.number).map_err(Failure::broken)?;
    let ok_left = index.ok_left().map_err(Failure::broken)?;
    let listing = Listing { chosen, suggested, faces, ok_left };
    match args.target.json {
        true => print_json(&listing),
        false => print_text(&text(&listing)),
    }
}

/// The first faces of the order, with the random share among them. Each crop is there once.
fn faces(args: &Args, index: &Index, number: u64) -> Result<Vec<SuggestedFace>, IndexError> {
    let limit = usize::from(args.limit);
    let threshold = index.threshold();
    let is_filter = args.query.names_other_than(STATUS.name);
    let order = |sort| Order { sort, direction: Direction::Ascending };
    let rows = |query: &Query, sort| {
        let rows = index.unjudged(&index.rows(query, threshold));
        index.first(&rows, order(sort), threshold, None, rows.count() as usize).into_iter()
    };
    let mut random = rows(&Query::ALL, Sort::Random(args.seed));
    let mut in_order = rows(&args.query, Sort::Suggested(number));
    let (mut faces, mut known) = (Vec::new(), HashSet::new());
    let mut next = |rows: &mut dyn Iterator<Item = usize>| -> Result<Option<Face>, IndexError> {
        for row in rows {
            if let Some(face) = index.face_of(row)?
                && known.insert(face.crop)
            {
                return Ok(Some(face));
            }
        }
        Ok(None)
    };
    while faces.len() < limit {
        let place = args.seed.wrapping_add(faces.len() as u64);
        let is_random = !is_filter && scattered(place) % 1000 < RANDOM_SHARE;
        let (face, selection) = match is_random {
            true => (next(&mut random)?, Selection::Random),
            false if is_filter => (next(&mut in_order)?, Selection::Filter),
            false => (next(&mut in_order)?, Selection::Suggested),
        };
        let Some(face) = face else { break };
        faces.push(SuggestedFace::of(&face, selection));
    }
    Ok(faces)
}

fn text(listing: &Listing) -> String {
    let Listing { chosen: ChosenMethod { method, why }, suggested, faces, ok_left } = listing;
    let method = match method {
        Method::Typical => "typical and diverse crops first",
        Method::Uncertain => "the most uncertain crops first, nearly the same ones apart",
    };
    let mut text = format!("{method}, because {why}; {} compared\n", counted(suggested.candidates as u64, "crop"));
    if suggested.unreadable > 0 {
        let _ = writeln!(text, "not readable: {}", counted(suggested.unreadable as u64, "crop"));
    }
    for face in faces {
        let _ = writeln!(
            text,
            "{:<12} {:<6} {:<9} {:<24} {}",
            face.photo_id.as_str().printable().to_string(),
            probability(face.p_ok),
            face.selection.as_str(),
            name(face.label_name.as_deref()),
            face.file
        );
    }
    let _ = writeln!(text, "{} of {} unjudged faces", faces.len(), ok_left.unjudged);
    text.push_str(&left(ok_left));
    text
}

/// The estimate, and the stop rule.
fn left(ok_left: &OkLeft) -> String {
    let OkLeft { random, random_ok, unjudged, found, left, found_share_low, is_complete } = ok_left;
    let goal = 100.0 * GOAL;
    let Some(left) = left else {
        return "how many OK are left is not known: judge random pictures singly, which the page mixes in\n".into();
    };
    let mut text = format!(
        "{random} random pictures were judged singly, {random_ok} of them OK: about {:.0} OK are left among {unjudged} \
         unjudged faces ({:.0} to {:.0})\n",
        left.count, left.low, left.high
    );
    let share = 100.0 * found_share_low;
    let _ = match is_complete {
        true => {
            writeln!(text, "at least {goal:.0} % of all OK are found ({found}; at least {share:.1} %): you can stop")
        }
        false => writeln!(text, "{found} OK are found, at least {share:.1} % of all; stop at {goal:.0} %"),
    };
    text
}

fn probability(p_ok: Option<f64>) -> String {
    p_ok.map_or_else(|| "-".to_owned(), |p_ok| format!("{p_ok:.4}"))
}

fn name(label: Option<&str>) -> String {
    label.unwrap_or("-").printable().to_string()
}

async fn list_suspicious(args: &Args, target: &RunTarget, index: &Index, bars: &Bars) -> Result<(), Failure> {
    let settings =
        TrainingSettings { seed: args.seed, precision: 0.9, threads: threads(), created_from: String::new() };
    let features = args.features.open(target.folder())?;
    let trainer = Trainer::open(&args.models.find(), features, settings, shown(bars));
    let mut trainer = trainer.map_err(Failure::broken)?;
    let found = suspicious_verdicts(&mut trainer, &target.objects, index, args.limit.into()).await;
    bars.clear();
    let found = found.map_err(Failure::broken)?;
    if args.target.json {
        return print_json(&found);
    }
    let SuspiciousVerdicts { verdicts, suspicious, judged, unreadable } = &found;
    let mut text: String = verdicts.iter().map(suspicious_line).collect();
    let _ = writeln!(text, "{} of {suspicious} suspicious verdicts; {judged} were looked at", verdicts.len());
    if *unreadable > 0 {
        let _ = writeln!(text, "not readable: {}", counted(*unreadable as u64, "crop"));
    }
    print_text(&text)
}

/// Photo, verdict, P(OK), who, when, label and the key of the crop.
fn suspicious_line(one: &SuspiciousVerdict) -> String {
    let verdict = &one.verdict;
    format!(
        "{:<12} {:<4} P(OK) {:.4}  {:<12} {}  {:<24} {}\n",
        verdict.photo_id.as_str().printable().to_string(),
        verdict.judgement.as_str(),
        one.p_ok,
        verdict.by.printable().to_string(),
        calendar::minute(verdict.at / 1000),
        name(Some(&one.label)),
        ObjectKey::face(verdict.crop, one.format)
    )
}
