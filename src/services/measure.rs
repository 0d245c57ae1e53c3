//! Measures the crops of earlier versions: their quality, from the stored crops and originals. Crops and predictions stay
//! as they are.

use std::num::NonZero;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::archive::landmark_references::LandmarkReferences;
use crate::archive::records::Records;
use crate::domain::{Crop, Ending, Id, ImageFormat, LandmarkReference, Message, Original, PhotoKey, Record, RunName};
use crate::ledger::{Filter, Ledger, LedgerError};
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::pipeline::measures::{self, CropFacts};
use crate::vision::image::{Limits, decode, jpeg_quality};
use crate::vision::{fingerprint, pose, quality};

/// What a call did. A call that is repeated goes on where an earlier one was interrupted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Measured {
    /// Faces that have their numbers now.
    pub measured: u64,
    /// Faces that had them before.
    pub known: u64,
    /// Faces whose original is no longer there as it was: they have no JPEG quality. They are in `measured`, too.
    pub without_original: u64,
    /// Faces that moved on meanwhile.
    pub moved: u64,
    /// Faces whose crop is missing or cannot be decoded, and the first of their photos with the reason.
    pub unreadable: u64,
    pub reasons: Vec<(Id, String)>,
}

#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    #[error("cannot read or amend the photos of the run: {0}")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error("a measurement stopped: {0}")]
    Stopped(String),
}

/// Where faces are measured. `records`: the messages of ended photos, where the ledger does not keep them.
pub struct Measure<'a> {
    pub run: &'a RunName,
    pub ledger: &'a dyn Ledger,
    pub objects: Arc<dyn Objects>,
    pub records: Option<&'a Records>,
    /// Faces that are measured at a time.
    pub cores: NonZero<usize>,
}

enum One {
    Done { has_original: bool },
    Known,
    Moved,
    Unreadable(String),
}

impl Measure<'_> {
    /// Photos that are listed at a time.
    const PAGE: usize = 500;
    /// Unreadable crops that are named.
    const NAMED: usize = 20;

    /// Measures all faces of the run that are not measured. `progress` receives the number of photos of each step.
    pub async fn run(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Measured, MeasureError> {
        let filter = Filter { ending: Some(Ending::Predicted), ..Filter::default() };
        let mut measured = Measured::default();
        let mut after: Option<Id> = None;
        loop {
            let page = self.ledger.page(self.run, &filter, after.as_ref(), Self::PAGE).await?;
            let Some(last) = page.last() else { return Ok(measured) };
            after = Some(last.photo_id.clone());
            let work = page.into_iter().map(|entry| async {
                let id = entry.photo_id;
                let message = entry.status.message;
                Ok::<_, MeasureError>((id.clone(), self.photo(id, message).await?))
            });
            let mut done = stream::iter(work.collect::<Vec<_>>()).buffered(self.cores.get());
            while let Some((id, one)) = done.try_next().await? {
                match one {
                    One::Known => measured.known += 1,
                    One::Moved => measured.moved += 1,
                    One::Done { has_original } => {
                        measured.measured += 1;
                        measured.without_original += u64::from(!has_original);
                    }
                    One::Unreadable(reason) => {
                        measured.unreadable += 1;
                        if measured.reasons.len() < Self::NAMED {
                            measured.reasons.push((id, reason));
                        }
                    }
                }
                progress(1);
            }
        }
    }

    async fn photo(&self, photo_id: Id, message: Option<Message>) -> Result<One, MeasureError> {
        let key = PhotoKey { run: self.run.clone(), photo_id };
        let known = match (message, self.records) {
            (Some(message), _) => Record { ending: Ending::Predicted, cause: None, message },
            (None, Some(records)) => match records.read(&key).await {
                Ok(Some(record)) if record.ending == Ending::Predicted => record,
                Ok(Some(_)) => return Ok(One::Moved),
                Ok(None) => return Ok(One::Unreadable("the photo has no record".into())),
                Err(error) => return unreadable(error),
            },
            (None, None) => return Ok(One::Unreadable("the photo has no message".into())),
        };
        let facts = &known.message.photo.facts;
        let (Some(original), Some(crop)) = (facts.original.clone(), facts.crop.clone()) else {
            return Ok(One::Unreadable("its record has no crop".into()));
        };
        let scheme = facts.face.as_ref().map(|face| face.landmark_scheme).unwrap_or_default();
        if crop.quality.is_some() && crop.fingerprint.is_some() {
            return Ok(One::Known);
        }
        let bytes = match self.objects.get(&ObjectKey::face(crop.sha256, crop.format)).await {
            Ok(bytes) => bytes,
            Err(error) => return unreadable(error),
        };
        let file = self.original(&original).await?;
        let has_original = file.is_some();
        let references = LandmarkReferences::new(self.objects.clone());
        let reference = references.fix(self.run, &pose::reference(crop.align, scheme)).await?;
        let work = move || measure(crop, &bytes, file.flatten(), &reference);
        let made = tokio::task::spawn_blocking(work).await.map_err(|panic| MeasureError::Stopped(panic.to_string()))?;
        let crop = match made {
            Ok(crop) => crop,
            Err(reason) => return Ok(One::Unreadable(reason)),
        };
        let mut record = known.clone();
        record.message.photo.facts.crop = Some(crop);
        // The record comes first: readers of the feed look it up.
        if let Some(records) = self.records
            && !records.replace(&known, &record).await?
        {
            return Ok(One::Moved);
        }
        match self.ledger.amend(&record.message, Ending::Predicted).await? {
            true => Ok(One::Done { has_original }),
            false => Ok(One::Moved),
        }
    }

    /// The file of the original if it is a JPEG. The outer None: it is no longer there as it was.
    async fn original(&self, original: &Original) -> Result<Option<Option<Bytes>>, MeasureError> {
        if original.format != ImageFormat::Jpeg {
            return Ok(Some(None));
        }
        match self.objects.get(&ObjectKey::original(original.sha256, original.format)).await {
            Ok(file) => Ok(Some(Some(file))),
            Err(ObjectError::Missing(_) | ObjectError::Changed { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// An object that is missing or damaged stays so; other errors end the call.
fn unreadable(error: ObjectError) -> Result<One, MeasureError> {
    match error {
        ObjectError::Server(crate::server_error::ServerError::Unavailable { .. }) => Err(error.into()),
        _ => Ok(One::Unreadable(error.to_string())),
    }
}

fn measure(
    mut crop: Crop,
    bytes: &[u8],
    original: Option<Bytes>,
    reference: &LandmarkReference,
) -> Result<Crop, String> {
    let pixels = decode(bytes, Limits::default()).map_err(|error| error.to_string())?;
    if pixels.dimensions() != (crop.size, crop.size) || crop.landmarks.len() != 68 {
        return Err("its crop is not the one of its record".into());
    }
    let jpeg_quality = original.as_deref().and_then(jpeg_quality);
    let facts = CropFacts { landmarks: &crop.landmarks, angle: crop.angle, jpeg_quality, reference };
    crop.fingerprint = Some(fingerprint::of(&pixels));
    crop.quality = Some(measures::quality(&pixels, &quality::measure(&pixels, &crop.landmarks), facts));
    Ok(crop)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use ::image::{Rgb, RgbImage};

    use super::*;
    use crate::dataset::index::Index;
    use crate::dataset::{IndexSource, Query};
    use crate::domain::{Align, Candidate, ContentHash, Face, Photo, Position, Search, StageName};
    use crate::ledger::sqlite::Sqlite;
    use crate::objects::folder::Folder;
    use crate::sqlite::{Access, Database};
    use crate::vision::image::encode;

    const CORES: NonZero<usize> = NonZero::new(2).unwrap();

    fn picture(id: u8) -> RgbImage {
        RgbImage::from_fn(96, 96, |x, y| Rgb([(x * 2) as u8 ^ id, (y * 2) as u8, 90]))
    }

    /// A run with crops of an earlier version, in a folder.
    struct Earlier {
        _scratch: tempfile::TempDir,
        ledger: Arc<Sqlite>,
        objects: Arc<dyn Objects>,
        records: Option<Records>,
        run: RunName,
    }

    impl Earlier {
        async fn with_photos(ids: &[u8], has_records: bool) -> Self {
            let scratch = tempfile::tempdir().unwrap();
            let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
            let database = Database::open(&scratch.path().join("ledger.sqlite"), Access::Write).unwrap();
            let ledger = Arc::new(Sqlite::open(database).await.unwrap());
            let records = has_records.then(|| Records::new(objects.clone()));
            let made = Self { _scratch: scratch, ledger, objects, records, run: RunName::default() };
            for id in ids {
                made.add(*id).await;
            }
            made
        }

        async fn add(&self, id: u8) {
            let crop = encode(&picture(id), ImageFormat::Png).unwrap();
            let original = encode(&picture(id), ImageFormat::Jpeg).unwrap();
            let (sha256, original_sha256) = (ContentHash::of(&crop), ContentHash::of(&original));
            self.objects.put(&ObjectKey::face(sha256, ImageFormat::Png), crop.into(), "image/png").await.unwrap();
            let bytes = original.len() as u64;
            let key = ObjectKey::original(original_sha256, ImageFormat::Jpeg);
            self.objects.put(&key, original.into(), "image/jpeg").await.unwrap();
            let mut photo = Photo::new(self.run.clone(), Candidate::example(id.into()));
            photo.facts.original = Some(Original { sha256: original_sha256, bytes, format: ImageFormat::Jpeg });
            let landmarks: Vec<[f32; 2]> =
                (0..68u8).map(|at| [f32::from(at % 9) * 8.0 + 10.0, f32::from(at) + 8.0]).collect();
            photo.facts.face = Some(Face {
                width: 96,
                height: 96,
                angle: 0.0,
                score: 1.0,
                landmarks: landmarks.clone(),
                landmark_scheme: Default::default(),
                faces: 1,
                search: Search::Guided,
            });
            photo.facts.crop = Some(Crop {
                sha256,
                format: ImageFormat::Png,
                align: Align::Paper,
                fill: Default::default(),
                angle: 3.0,
                centre: [48.0, 48.0],
                side: 96.0,
                size: 96,
                landmarks,
                mirrored: 0.0,
                mirrored_head: 0.0,
                mirrored_grid: vec![0.0; 16],
                blur: 100.0,
                exposure: 0.5,
                quality: None,
                fingerprint: None,
            });
            let position = Position::entering(StageName::Classify);
            let message = Message { position, ..Message::first(photo, 5) };
            if let Some(records) = &self.records {
                let record = Record { ending: Ending::Predicted, cause: None, message: message.clone() };
                records.write(&record).await.unwrap();
            }
            assert!(self.ledger.restore(&message, Ending::Predicted, None).await.unwrap());
        }

        async fn measure(&self) -> Measured {
            let records = self.records.as_ref();
            let measure =
                Measure { run: &self.run, ledger: &*self.ledger, objects: self.objects.clone(), records, cores: CORES };
            measure.run(&|_| ()).await.unwrap()
        }

        async fn message(&self, id: u8) -> Message {
            let key = PhotoKey { run: self.run.clone(), photo_id: i64::from(id).into() };
            self.ledger.status(&key).await.unwrap().unwrap().message.unwrap()
        }
    }

    #[tokio::test]
    async fn faces_of_an_earlier_version_are_measured_once() {
        for has_records in [false, true] {
            let run = Earlier::with_photos(&[1, 2, 3], has_records).await;
            let source =
                IndexSource::new(run.run.clone(), run.ledger.clone(), run.objects.clone(), run.records.clone());
            let mut index = Index::open(":memory:".as_ref(), &run.run).unwrap();
            source.update(&mut index, &|_| ()).await.unwrap();
            let count = |index: &Index, query: &str| {
                index.count(&Query::parse(query, crate::dataset::face::FIELDS).unwrap(), 0.5)
            };
            assert_eq!((count(&index, "contrast is null"), count(&index, "jpeg_quality=100")), (3, 0));
            let before = run.message(2).await;

            let calls = Mutex::new(0);
            let records = run.records.as_ref();
            let measure =
                Measure { run: &run.run, ledger: &*run.ledger, objects: run.objects.clone(), records, cores: CORES };
            let measured = measure.run(&|photos| *calls.lock().unwrap() += photos).await.unwrap();
            assert_eq!(measured, Measured { measured: 3, ..Measured::default() });
            assert_eq!(*calls.lock().unwrap(), 3);
            let after = run.message(2).await;
            let quality = after.photo.facts.crop.as_ref().unwrap().quality.clone().unwrap();
            assert_eq!((quality.pixels, quality.jpeg_quality), (ContentHash::of(&picture(2)), Some(100)));
            let mut unmeasured = after.clone();
            let crop = unmeasured.photo.facts.crop.as_mut().unwrap();
            assert_eq!(crop.fingerprint, Some(fingerprint::of(&picture(2))));
            (crop.quality, crop.fingerprint) = (None, None);
            assert_eq!(unmeasured, before, "nothing else changes");
            if let Some(records) = &run.records {
                assert_eq!(records.read(&after.photo.key()).await.unwrap().unwrap().message, after);
            }

            source.update(&mut index, &|_| ()).await.unwrap();
            assert_eq!((count(&index, "contrast is null"), count(&index, "jpeg_quality=100")), (0, 3));
            assert_eq!(count(&index, &format!("pixels={}", quality.pixels)), 1);
            // A face that comes later is the only one that is left.
            run.add(4).await;
            assert_eq!(run.measure().await, Measured { measured: 1, known: 3, ..Measured::default() });
        }
    }

    #[tokio::test]
    async fn missing_originals_and_crops_are_counted() {
        let run = Earlier::with_photos(&[1, 2, 3], false).await;
        let facts: HashMap<u8, _> = [(1, run.message(1).await), (2, run.message(2).await)].into();
        let original = facts[&1].photo.facts.original.clone().unwrap();
        run.objects.delete(&ObjectKey::original(original.sha256, original.format)).await.unwrap();
        let crop = facts[&2].photo.facts.crop.clone().unwrap();
        let key = ObjectKey::face(crop.sha256, crop.format);
        // An object that is there under the hash of its content is not written again.
        run.objects.delete(&key).await.unwrap();
        run.objects.put(&key, Bytes::from("text"), "image/png").await.unwrap();
        let measured = run.measure().await;
        assert_eq!((measured.measured, measured.without_original, measured.unreadable), (2, 1, 1), "{measured:?}");
        assert_eq!(measured.reasons[0].0, 2.into());
        assert_eq!(run.message(1).await.photo.facts.crop.unwrap().quality.unwrap().jpeg_quality, None);
        assert_eq!(run.measure().await.known, 2, "the others are tried again");
    }

    #[tokio::test]
    async fn a_record_that_has_changed_meanwhile_stays() {
        let run = Earlier::with_photos(&[1], true).await;
        let records = run.records.as_ref().unwrap();
        let key = run.message(1).await.photo.key();
        let known = records.read(&key).await.unwrap().unwrap();
        let mut newer = known.clone();
        newer.message.attempt = 7;
        records.write(&newer).await.unwrap();
        assert!(!records.replace(&known, &known).await.unwrap());
        assert_eq!(records.read(&key).await.unwrap().unwrap(), newer);
        assert_eq!(run.measure().await.moved, 1);
    }
}
