//! Finds the photos that a takedown means, and everything that belongs to them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::picture::PictureMarks;
use super::{Plan, PlannedPhoto, PlannedVersion, TakedownError, Why};
use crate::archive::models::StoredModels;
use crate::archive::records::Records;
use crate::archive::refusals::Refused;
use crate::archive::rescores::Rescores;
use crate::archive::run_classifier::RunClassifiers;
use crate::archive::takedowns::{Removal, RemovedFromVersion, RemovedOriginal, Takedown};
use crate::archive::versions::StoredVersions;
use crate::domain::photo_url::address_hash;
use crate::domain::{Candidate, ContentHash, Fingerprint, Id, Message, Photo, PhotoKey, RunName, State};
use crate::ledger::{Filter, Ledger, PhotoStatus};
use crate::objects::Objects;
use crate::pipeline::refused::are_near;
use crate::services::run_target::RunTarget;
use crate::verdicts::VerdictLog;
use crate::versions::{RemovedFaces, faces_of};

/// Which photos a person names.
#[derive(Debug, Clone)]
pub enum Chosen {
    Photos(Vec<Id>),
    /// The page that showed them, or the source that they were read from.
    Source(String),
    /// The name of the label, or its id.
    Label(String),
    Url(String),
    Picture(PictureMarks),
}

/// What to look for.
#[derive(Debug, Clone)]
pub struct SurveySettings {
    pub chosen: Chosen,
    /// Whether copies of the photos under other ids are meant, too.
    pub copies: bool,
    /// Whether photos of all runs of the store are meant.
    pub all_runs: bool,
    pub by: String,
    pub reason: Option<String>,
    /// Seconds since 1970, UTC.
    pub at: u64,
}

impl Chosen {
    fn has(&self, photo: &Photo, run: &RunName) -> bool {
        let candidate = &photo.candidate;
        match self {
            Self::Photos(ids) => photo.run == *run && ids.contains(&candidate.photo_id),
            Self::Source(source) => {
                let is_page = |page: &String| page == source || address_hash(page) == address_hash(source);
                candidate.source_url.as_ref().is_some_and(is_page) || candidate.source.as_ref() == Some(source)
            }
            Self::Label(label) => {
                candidate.label_name.as_ref() == Some(label) || candidate.label_id.as_str() == label.as_str()
            }
            Self::Url(url) => addresses(photo).contains(&address_hash(url)),
            Self::Picture(marks) => {
                let original = photo.facts.original.as_ref().map(|original| original.sha256);
                original == Some(marks.original)
                    || fingerprint(photo).zip(marks.fingerprint).is_some_and(|(a, b)| are_near(a, b))
            }
        }
    }
}

/// The hashes of the addresses at which a photo is known.
fn addresses(photo: &Photo) -> Vec<ContentHash> {
    // The ledger has lost its message.
    if photo.candidate.photo_url.is_empty() {
        return Vec::new();
    }
    let mended = photo.facts.mended_url.as_ref().map(|mended| address_hash(&mended.url));
    let mut addresses = vec![address_hash(&photo.candidate.photo_url)];
    addresses.extend(mended.filter(|mended| !addresses.contains(mended)));
    addresses
}

/// The photo of a message; without one, nothing but the id is known.
fn photo_of(run: &RunName, id: &Id, message: Option<Message>) -> Photo {
    let unknown = || Photo::new(run.clone(), Candidate::new(id.clone(), String::new()));
    message.map_or_else(unknown, |message| message.photo)
}

fn fingerprint(photo: &Photo) -> Option<Fingerprint> {
    photo.facts.crop.as_ref()?.fingerprint
}

/// What tells copies of a photo, 60 bytes and the id: a run may have a million of them. Eight bytes of a hash are enough.
struct Seen {
    run: usize,
    id: Id,
    is_named: bool,
    urls: Vec<u64>,
    original: Option<u64>,
    crop: Option<u64>,
    fingerprint: Option<Fingerprint>,
}

fn short(hash: ContentHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What the named photos have.
#[derive(Default)]
struct Marks {
    urls: HashSet<u64>,
    originals: HashSet<u64>,
    crops: HashSet<u64>,
    fingerprints: Vec<Fingerprint>,
}

impl Marks {
    fn add(&mut self, seen: &Seen) {
        self.urls.extend(&seen.urls);
        self.originals.extend(seen.original);
        self.crops.extend(seen.crop);
        self.fingerprints.extend(seen.fingerprint);
    }

    fn copied_by(&self, seen: &Seen) -> Option<Why> {
        let is_near = |one: Fingerprint| self.fingerprints.iter().any(|other| are_near(*other, one));
        match () {
            () if seen.original.is_some_and(|original| self.originals.contains(&original)) => Some(Why::SameOriginal),
            () if seen.urls.iter().any(|url| self.urls.contains(url)) => Some(Why::SameUrl),
            () if seen.crop.is_some_and(|crop| self.crops.contains(&crop)) => Some(Why::SameCrop),
            () if seen.fingerprint.is_some_and(is_near) => Some(Why::NearCopy),
            () => None,
        }
    }
}

/// Looks for the photos in all runs of the store. `progress` receives the number of photos of each step.
///
/// # Errors
/// A named photo does not exist, or ledger or object store cannot be read.
pub async fn plan_takedown(
    target: &RunTarget,
    settings: &SurveySettings,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Plan, TakedownError> {
    let survey = Survey {
        run: &target.run,
        ledger: &*target.ledger,
        objects: target.objects.clone(),
        records: target.records.as_ref(),
        settings,
    };
    survey.plan(progress).await
}

struct Survey<'a> {
    run: &'a RunName,
    ledger: &'a dyn Ledger,
    objects: Arc<dyn Objects>,
    records: Option<&'a Records>,
    settings: &'a SurveySettings,
}

impl Survey<'_> {
    /// Photos on one page of the ledger.
    const PAGE: usize = 500;

    async fn plan(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Plan, TakedownError> {
        let runs = self.ledger.runs().await?;
        let mut seen = Vec::new();
        for (number, run) in runs.iter().enumerate() {
            self.walk(number, run, &mut seen, progress).await?;
        }
        if let Chosen::Photos(ids) = &self.settings.chosen {
            for id in ids {
                let key = PhotoKey { run: self.run.clone(), photo_id: id.clone() };
                if self.ledger.status(&key).await?.is_none() {
                    return Err(TakedownError::NoPhoto { run: key.run, photo_id: key.photo_id });
                }
            }
        }
        let (mut marks, mut kept) = (Marks::default(), Marks::default());
        seen.iter().filter(|seen| seen.is_named).for_each(|seen| marks.add(seen));
        let is_meant = |seen: &Seen| self.settings.all_runs || runs[seen.run] == *self.run;
        let (mut taken, mut elsewhere) = (Vec::new(), 0);
        for seen in &seen {
            let why = if seen.is_named { Some(Why::Named) } else { marks.copied_by(seen) };
            match why {
                Some(why) if is_meant(seen) && (why == Why::Named || self.settings.copies) => {
                    taken.push((PhotoKey { run: runs[seen.run].clone(), photo_id: seen.id.clone() }, why));
                }
                Some(_) => {
                    elsewhere += u64::from(!is_meant(seen));
                    kept.add(seen);
                }
                None => {}
            }
        }
        self.collect(&runs, taken, &kept, elsewhere).await
    }

    async fn walk(
        &self,
        number: usize,
        run: &RunName,
        seen: &mut Vec<Seen>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), TakedownError> {
        let mut after = None;
        loop {
            let page = self.ledger.page(run, &Filter::default(), after.as_ref(), Self::PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.photo_id.clone());
            let count = page.len() as u64;
            let page = match self.records {
                Some(records) => records.complete(run, page).await?,
                None => page,
            };
            let left = page.into_iter().filter(|entry| !entry.status.is_taken_down());
            seen.extend(left.map(|entry| {
                let photo = photo_of(run, &entry.photo_id, entry.status.message);
                Seen {
                    run: number,
                    is_named: self.settings.chosen.has(&photo, self.run),
                    urls: addresses(&photo).into_iter().map(short).collect(),
                    original: photo.facts.original.as_ref().map(|original| short(original.sha256)),
                    crop: photo.facts.crop.as_ref().map(|crop| short(crop.sha256)),
                    fingerprint: fingerprint(&photo),
                    id: entry.photo_id,
                }
            }));
            progress(count);
        }
    }

    async fn photo(&self, key: &PhotoKey) -> Result<Option<(PhotoStatus, Photo)>, TakedownError> {
        let Some(mut status) = self.ledger.status(key).await? else { return Ok(None) };
        if let (None, Some(records)) = (&status.message, self.records) {
            status.message = records.read(key).await?.map(|record| record.message);
        }
        let photo = photo_of(&key.run, &key.photo_id, status.message.take());
        Ok((!status.is_taken_down()).then_some((status, photo)))
    }

    /// Everything that belongs to the photos.
    async fn collect(
        &self,
        runs: &[RunName],
        taken: Vec<(PhotoKey, Why)>,
        kept: &Marks,
        elsewhere: u64,
    ) -> Result<Plan, TakedownError> {
        let mut found = Found::default();
        match &self.settings.chosen {
            Chosen::Url(url) => found.urls.extend([address_hash(url)]),
            Chosen::Picture(marks) => {
                found.refused_originals.extend([marks.original]);
                found.fingerprints.extend(marks.fingerprint);
            }
            _ => {}
        }
        let (mut photos, mut waiting) = (Vec::new(), 0);
        for (key, why) in taken {
            let Some((status, photo)) = self.photo(&key).await? else { continue };
            waiting += u64::from(matches!(status.state, State::Waiting(_)));
            found.add(&photo);
            let Candidate { photo_url, label_name, .. } = photo.candidate;
            let has_crop = photo.facts.crop.is_some();
            let PhotoKey { run, photo_id } = key;
            photos.push(PlannedPhoto { run, photo_id, photo_url, label: label_name, why, has_crop });
        }
        let mut by_run: HashMap<RunName, HashSet<Id>> = HashMap::new();
        for photo in &photos {
            by_run.entry(photo.run.clone()).or_default().insert(photo.photo_id.clone());
        }
        for (run, ids) in &by_run {
            let judged = VerdictLog::new(self.objects.clone(), run.clone()).crops_of(ids).await?;
            found.crops.extend(judged);
        }
        let versions = self.versions(runs, &by_run, &mut found, kept).await?;
        let (originals, kept_originals): (Vec<_>, Vec<_>) =
            found.originals.into_values().partition(|original| !kept.originals.contains(&short(original.sha256)));
        let crops: Vec<ContentHash> =
            found.crops.into_iter().filter(|crop| !kept.crops.contains(&short(*crop))).collect();
        if !crops.is_empty() {
            found.models.extend(self.models(runs).await?);
        }
        let is_scored = self.is_scored_again(by_run.keys()).await?;
        let refused = Refused {
            urls: found.urls.into_iter().collect(),
            originals: found.refused_originals.into_iter().collect(),
            fingerprints: match self.settings.copies {
                true => found.fingerprints.into_iter().collect(),
                false => Vec::new(),
            },
        };
        let named = |version: &PlannedVersion| RemovedFromVersion {
            run: version.run.clone(),
            version: version.version.clone(),
        };
        Ok(Plan {
            elsewhere,
            kept_originals: kept_originals.len() as u64,
            waiting,
            refused: [refused.urls.len(), refused.originals.len(), refused.fingerprints.len()],
            takedown: Takedown {
                at: self.settings.at,
                by: self.settings.by.clone(),
                reason: self.settings.reason.clone(),
                photos: photos
                    .iter()
                    .map(|photo| PhotoKey { run: photo.run.clone(), photo_id: photo.photo_id.clone() })
                    .collect(),
                pending: Some(Removal {
                    refused,
                    originals,
                    crops,
                    models: found.models.into_iter().collect(),
                    versions: versions.iter().map(named).collect(),
                    queues: waiting > 0 || is_scored,
                }),
            },
            versions,
            photos,
        })
    }

    /// The versions that have the photos. What they know of earlier crops and originals is added to `found`.
    async fn versions(
        &self,
        runs: &[RunName],
        by_run: &HashMap<RunName, HashSet<Id>>,
        found: &mut Found,
        kept: &Marks,
    ) -> Result<Vec<PlannedVersion>, TakedownError> {
        let mut planned = Vec::new();
        for run in runs.iter().filter(|run| by_run.contains_key(run)) {
            let stored = StoredVersions::new(self.objects.clone(), run.clone());
            let removed = RemovedFaces {
                photos: by_run.get(run).cloned().unwrap_or_default(),
                crops: found.crops.iter().copied().filter(|crop| !kept.crops.contains(&short(*crop))).collect(),
                originals: HashSet::new(),
            };
            for header in stored.all().await? {
                let faces = faces_of(&stored, &header, &removed).await?;
                if faces.is_empty() {
                    continue;
                }
                planned.push(PlannedVersion { run: run.clone(), version: header.name, faces: faces.len() as u64 });
                for face in faces {
                    found.crops.insert(face.crop);
                    found.refused_originals.insert(face.original);
                    let original = RemovedOriginal { sha256: face.original, format: face.original_format };
                    found.originals.insert(face.original, original);
                }
            }
        }
        Ok(planned)
    }

    /// All models that may have scored a crop.
    async fn models(&self, runs: &[RunName]) -> Result<BTreeSet<ContentHash>, TakedownError> {
        let mut models: BTreeSet<ContentHash> =
            StoredModels::new(self.objects.clone()).all().await?.into_iter().collect();
        let (classifiers, rescores) = (RunClassifiers::new(self.objects.clone()), Rescores::new(self.objects.clone()));
        for run in runs {
            models.extend(classifiers.read(run).await?.changes.iter().map(|change| change.model_sha256));
            models.extend(rescores.all(run).await?.iter().map(|rescore| rescore.model_sha256));
        }
        Ok(models)
    }

    /// Whether crops of these runs may wait to be scored again.
    async fn is_scored_again(&self, mut runs: impl Iterator<Item = &RunName>) -> Result<bool, TakedownError> {
        let rescores = Rescores::new(self.objects.clone());
        loop {
            let Some(run) = runs.next() else { return Ok(false) };
            if rescores.all(run).await?.iter().any(|rescore| !rescore.has_ended) {
                return Ok(true);
            }
        }
    }
}

/// What belongs to the photos, in an order that is the same each time.
#[derive(Default)]
struct Found {
    urls: BTreeSet<ContentHash>,
    refused_originals: BTreeSet<ContentHash>,
    fingerprints: BTreeSet<Fingerprint>,
    originals: std::collections::BTreeMap<ContentHash, RemovedOriginal>,
    crops: BTreeSet<ContentHash>,
    models: BTreeSet<ContentHash>,
}

impl Found {
    fn add(&mut self, photo: &Photo) {
        let facts = &photo.facts;
        self.urls.extend(addresses(photo));
        if let Some(original) = &facts.original {
            self.refused_originals.insert(original.sha256);
            let removed = RemovedOriginal { sha256: original.sha256, format: original.format };
            self.originals.insert(original.sha256, removed);
        }
        if let Some(crop) = &facts.crop {
            self.crops.insert(crop.sha256);
            self.fingerprints.extend(crop.fingerprint);
        }
        self.models.extend(facts.prediction.as_ref().map(|prediction| prediction.model_sha256));
    }
}
