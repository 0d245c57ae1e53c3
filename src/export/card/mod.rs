//! The data card: what a dataset is, in Markdown and as a page.

mod markdown;
mod page;
mod sheets;

use std::collections::BTreeMap;

use super::entry::Entry;
use super::settings::{ExportSettings, Origin};
use crate::dataset::balance::{Balance, BalanceCounter, BalanceShare, BalancedFace, Grouping};
use crate::dataset::quality_histogram::QualityHistogram;
use crate::dataset::selection::Selection;
use crate::domain::{LandmarkScheme, RunName};
use crate::vision::rescale::Light;

pub use page::THUMBNAIL;
use sheets::SheetPicker;
pub use sheets::{Sheet, SheetFace};

/// Labels, hosts and sources that are named.
const NAMED: usize = 20;
const TERMS: &str = "The photos belong to their authors, and the people in them have rights of their own. The manifest \
                     names the source of each.";
const IBUG_TERMS: &str =
    "The landmarks come from a model that was trained on iBUG 300-W, whose licence excludes commercial use.";
const PERMISSIVE_TERMS: &str = "The landmarks come from MediaPipe's face mesh (Apache-2.0).";
const MIXED_TERMS: &str = "Some of the landmarks come from a model that was trained on iBUG 300-W, whose licence excludes \
                           commercial use, the others from MediaPipe's face mesh (Apache-2.0).";

/// Counts the faces of a dataset for its card.
pub struct CardCounter {
    balance: BalanceCounter,
    verdicts: BTreeMap<&'static str, u64>,
    alignments: BTreeMap<&'static str, u64>,
    landmarks: BTreeMap<&'static str, u64>,
    histograms: Vec<QualityHistogram>,
    sheets: SheetPicker,
}

impl CardCounter {
    /// `faces`: how many will be added.
    pub fn new(faces: usize) -> Self {
        Self {
            balance: BalanceCounter::default(),
            verdicts: BTreeMap::new(),
            alignments: BTreeMap::new(),
            landmarks: BTreeMap::new(),
            histograms: QualityHistogram::none(),
            sheets: SheetPicker::new(faces),
        }
    }

    pub fn add(&mut self, entry: &Entry) {
        let face = &entry.face;
        let verdict = face.verdict.as_ref().map_or("not judged", |verdict| verdict.judgement.as_str());
        *self.verdicts.entry(verdict).or_default() += 1;
        *self.alignments.entry(face.align.as_str()).or_default() += 1;
        *self.landmarks.entry(face.landmark_scheme.as_str()).or_default() += 1;
        // A version has no identities: they are numbered anew by each search.
        self.balance.add(BalancedFace::of(face, &face.host()).without_identity(), true);
        self.histograms.iter_mut().for_each(|histogram| histogram.add(face));
        self.sheets.add(entry);
    }

    pub fn finish(self, run: &RunName, settings: &ExportSettings, selection: &Selection) -> Card {
        let mut balance = self.balance.finish(false, NAMED);
        let terms = terms(&self.landmarks);
        let [verdicts, alignments, landmarks] =
            [("verdict", self.verdicts), ("alignment", self.alignments), ("landmarks", self.landmarks)]
                .map(|(by, counts)| grouping(by, counts));
        balance.groupings.splice(0..0, [verdicts, alignments, landmarks]);
        let mut histograms = self.histograms;
        histograms.retain(|histogram| histogram.faces() > 0);
        let (faces, size) = (selection.faces.len(), settings.size);
        Card {
            title: format!("Faces of run {run}"),
            summary: format!(
                "{faces} aligned {} of {size}x{size} pixels, made with facemill {}.",
                if faces == 1 { "face" } else { "faces" },
                env!("CARGO_PKG_VERSION")
            ),
            terms,
            facts: facts(settings, selection),
            balance,
            histograms,
            sheets: self.sheets.finish(),
        }
    }
}

/// What a card has. The same dataset has the same card.
pub struct Card {
    title: String,
    summary: String,
    terms: String,
    facts: Vec<(String, String)>,
    balance: Balance,
    histograms: Vec<QualityHistogram>,
    pub sheets: Vec<Sheet>,
}

/// What the sources of the photos and the landmark models demand. `landmarks`: faces by scheme.
fn terms(landmarks: &BTreeMap<&'static str, u64>) -> String {
    let has = |scheme: LandmarkScheme| landmarks.contains_key(scheme.as_str());
    match (has(LandmarkScheme::Ibug), has(LandmarkScheme::Permissive)) {
        (true, true) => format!("{TERMS} {MIXED_TERMS}"),
        (true, false) => format!("{TERMS} {IBUG_TERMS}"),
        (false, true) => format!("{TERMS} {PERMISSIVE_TERMS}"),
        (false, false) => TERMS.to_owned(),
    }
}

fn grouping(by: &'static str, counts: BTreeMap<&'static str, u64>) -> Grouping {
    let share = |(name, faces): (&str, u64)| BalanceShare { name: name.to_owned(), faces, left: None };
    Grouping { by, values: counts.len() as u64, shares: counts.into_iter().map(share).collect(), others: None }
}

/// Names and values of where the faces come from, and of what was left out.
fn facts(settings: &ExportSettings, selection: &Selection) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| facts.push((name.to_owned(), value));
    match &settings.origin {
        Origin::Query(wanted) => {
            let query = wanted.query.to_string();
            add("query", if query.is_empty() { "none: all faces".to_owned() } else { query });
            add("faces that fulfil it", selection.matching.to_string());
            if let Some(number) = wanted.number {
                add("wanted", format!("the first {number} by {}", wanted.sort));
            }
        }
        Origin::Version { header, since } => {
            add("version", header.name.to_string());
            add("digest of the version", header.digest.to_string());
            let query = header.selection.query.clone();
            add("query of the version", if query.is_empty() { "none: all faces".to_owned() } else { query });
            add("faces of the version", selection.matching.to_string());
            for (faces, why) in header.counts.left_out.known_reasons(header.selection.size) {
                add(&format!("left out by the version: {why}"), faces.to_string());
            }
            if let Some(since) = since {
                add("changes since", since.name.to_string());
            }
        }
    }
    // An export of a version chooses by size only.
    let reasons = if matches!(settings.origin, Origin::Query(_)) { 6 } else { 1 };
    for (faces, why) in selection.left_out.reasons(settings.size).into_iter().take(reasons) {
        add(&format!("left out: {why}"), faces.to_string());
    }
    let light = if settings.light == Light::Linear { "in linear light" } else { "in values of sRGB" };
    add("resized", format!("Lanczos, {light}"));
    facts
}
