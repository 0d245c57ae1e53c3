//! Cuts the crops of a run anew for another run, with other settings, from the originals that are kept: nothing is
//! fetched.
//!
//! A photo starts at the first stage whose result may differ: at crop, if the settings find the same faces, else at
//! detect. An ending that the new settings cannot change is taken over without work: gone, taken down, rejected by
//! fetch and, if the settings find the same faces, by detect. So the new run accounts for these photos, and `audit`
//! finds them. Left out are photos that have not ended, and those that failed before they had an original: a later call
//! takes them, when the first run has an answer.
//!
//! A call may be repeated after any failure. A photo that the new run knows stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::kept_originals::{KeptOriginals, Taken};
use crate::archive::records::Records;
use crate::archive::run_folders::StoredRunFolders;
use crate::archive::run_settings::RunSettings;
use crate::broker::Broker;
use crate::domain::clock::now;
use crate::domain::{Ending, Facts, Message, Original, Photo, PhotoKey, Record, RunName, Selection, StageName, State};
use crate::ledger::{Entry, Filter, Ledger, LedgerError, PhotoStatus, Registration};
use crate::objects::{ObjectError, Objects};
use crate::pipeline::producer::{self, ProducerError};
use crate::verdicts::{AppendError, LogPosition, VerdictLog, VerdictWriter};

#[derive(Debug, thiserror::Error)]
pub enum RecropError {
    #[error("cannot read the photos of the run, or register them: {0}")]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Producer(#[from] ProducerError),
    #[error("cannot take over the verdicts: {0}")]
    Verdicts(#[from] AppendError),
}

/// The run whose originals are cut anew.
pub struct Source<'a> {
    pub run: &'a RunName,
    pub ledger: &'a dyn Ledger,
    pub objects: Arc<dyn Objects>,
    /// The messages of ended photos, where the ledger does not keep them.
    pub records: Option<&'a Records>,
    pub settings: &'a RunSettings,
}

/// The run that gets the new crops.
pub struct Destination<'a> {
    pub run: &'a RunName,
    pub ledger: &'a dyn Ledger,
    pub broker: &'a dyn Broker,
    pub objects: Arc<dyn Objects>,
    /// Where its ledger leaves the messages of ended photos.
    pub records: Option<&'a Records>,
    pub settings: &'a RunSettings,
}

/// What a call did with the photos and the verdicts of the first run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recropped {
    /// Photos that start at detect.
    pub at_detect: u64,
    /// Photos that start at crop, with the landmarks that are known.
    pub at_crop: u64,
    /// Endings that were taken over.
    pub ended: u64,
    /// Photos that the new run knew before.
    pub known: u64,
    pub left_out: LeftOut,
    /// Verdicts that were taken over, and those that the new run had already.
    pub verdicts: u64,
    pub known_verdicts: u64,
}

/// Photos that were not taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// They have not ended.
    pub in_progress: u64,
    /// They failed before they had an original.
    pub failed: u64,
    /// The original is no longer there.
    pub without_original: u64,
    /// They ended, and there is no record of it.
    pub unrecorded: u64,
    /// The new run has other photos with their ids.
    pub in_conflict: u64,
}

impl LeftOut {
    /// Those that a person has to look at. The others are taken by a later call.
    pub fn findings(&self) -> u64 {
        self.without_original + self.unrecorded + self.in_conflict
    }
}

/// What happens to a photo.
enum Step {
    Enter(StageName, Box<Photo>),
    End(Box<Record>),
    InProgress,
    Failed,
    WithoutOriginal,
    Unrecorded,
}

/// A run that is cut anew for another one.
pub struct Recrop<'a> {
    pub from: Source<'a>,
    pub to: Destination<'a>,
    pub originals: KeptOriginals,
}

impl Recrop<'_> {
    /// Photos in one page of the ledger.
    const PAGE: usize = 500;
    /// Originals that are taken, and endings that are stored, at a time.
    const CONCURRENCY: usize = 16;
    /// Verdicts that are stored in one write.
    const VERDICTS: usize = 500;

    /// Takes over the verdicts, then all photos. `progress` receives the number of photos of each page.
    pub async fn run(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Recropped, RecropError> {
        let mut done = Recropped::default();
        self.take_folders().await?;
        // Before the crops: a verdict waits for its crop, and so counts from the first moment.
        self.take_verdicts(&mut done).await?;
        let mut after = None;
        loop {
            let page = self.from.ledger.page(self.from.run, &Filter::default(), after.as_ref(), Self::PAGE).await?;
            let Some(last) = page.last() else { return Ok(done) };
            after = Some(last.photo_id.clone());
            let count = page.len() as u64;
            let page = match self.from.records {
                Some(records) => records.complete(self.from.run, page).await?,
                None => page,
            };
            self.take_photos(page, &mut done).await?;
            progress(count);
        }
    }

    /// Photos of a folder may be fetched again in the new run, by `facemill retry`.
    async fn take_folders(&self) -> Result<(), ObjectError> {
        let known = StoredRunFolders::new(self.from.objects.clone()).read(self.from.run).await?;
        let stored = StoredRunFolders::new(self.to.objects.clone());
        for folder in &known.folders {
            stored.add(self.to.run, folder).await?;
        }
        Ok(())
    }

    /// Copies the log of verdicts. A verdict counts for the crop with its hash, so those on other crops count for
    /// nothing; the index shows them as earlier ones. Repeats measure people, and are left where they were made. The
    /// others count as imported: of the faces of this run they are no random choice.
    async fn take_verdicts(&self, done: &mut Recropped) -> Result<(), RecropError> {
        let mut verdicts = Vec::new();
        let from = VerdictLog::new(self.from.objects.clone(), self.from.run.clone());
        from.read(&mut LogPosition::default(), |verdict| verdicts.push(verdict)).await?;
        verdicts.retain(|verdict| !verdict.repeat);
        verdicts.iter_mut().for_each(|verdict| verdict.selection = Selection::Import);
        let to = VerdictLog::new(self.to.objects.clone(), self.to.run.clone());
        let mut writer = VerdictWriter::open(to, |_| ()).await?;
        let all = verdicts.len() as u64;
        verdicts.retain(|verdict| writer.knows(verdict).is_none());
        done.known_verdicts = all - verdicts.len() as u64;
        for batch in verdicts.chunks(Self::VERDICTS) {
            let appended = writer.append(batch).await?;
            done.verdicts += (batch.len() - appended.known) as u64;
        }
        Ok(())
    }

    async fn take_photos(&self, page: Vec<Entry>, done: &mut Recropped) -> Result<(), RecropError> {
        let steps = stream::iter(page).map(|entry| self.step(entry.status)).buffered(Self::CONCURRENCY);
        let (mut entering, mut ending) = (BTreeMap::<StageName, Vec<Photo>>::new(), Vec::new());
        for step in steps.try_collect::<Vec<_>>().await? {
            match step {
                Step::Enter(stage, photo) => entering.entry(stage).or_default().push(*photo),
                Step::End(record) => ending.push(record),
                Step::InProgress => done.left_out.in_progress += 1,
                Step::Failed => done.left_out.failed += 1,
                Step::WithoutOriginal => done.left_out.without_original += 1,
                Step::Unrecorded => done.left_out.unrecorded += 1,
            }
        }
        for (stage, photos) in entering {
            let Destination { run, ledger, broker, .. } = self.to;
            for registration in producer::enqueue_at(run, stage, photos, ledger, broker).await? {
                match (registration, stage) {
                    (Registration::New, StageName::Crop) => done.at_crop += 1,
                    (Registration::New, _) => done.at_detect += 1,
                    (Registration::Pending | Registration::InProgress, _) => done.known += 1,
                    (Registration::Conflict, _) => done.left_out.in_conflict += 1,
                }
            }
        }
        let ends = stream::iter(ending).map(|record| self.end(*record)).buffered(Self::CONCURRENCY);
        for is_new in ends.try_collect::<Vec<bool>>().await? {
            *(if is_new { &mut done.ended } else { &mut done.known }) += 1;
        }
        Ok(())
    }

    async fn step(&self, status: PhotoStatus) -> Result<Step, RecropError> {
        let is_taken_down = status.is_taken_down();
        let State::Ended(ending) = status.state else { return Ok(Step::InProgress) };
        let Some(message) = status.message else { return Ok(Step::Unrecorded) };
        let same_faces = self.from.settings.find_the_same_faces_as(self.to.settings);
        let is_final = match (ending, message.position.stage) {
            _ if is_taken_down => true,
            (Ending::Gone, _) | (Ending::Rejected, StageName::Fetch) => true,
            (Ending::Rejected, StageName::Detect) => same_faces,
            _ => false,
        };
        let original = message.photo.facts.original.clone();
        if is_final {
            // `facemill retry` may want it.
            if let Some(original) = &original {
                let _: Taken = self.take(original).await?;
            }
            return Ok(Step::End(Box::new(self.ended(message, ending, status.cause))));
        }
        let Some(original) = original else { return Ok(Step::Failed) };
        if self.take(&original).await? == Taken::Missing {
            return Ok(Step::WithoutOriginal);
        }
        let mut photo = self.renamed(message.photo);
        let Facts { decoding, face, crop, prediction, .. } = &mut photo.facts;
        (*crop, *prediction) = (None, None);
        if same_faces && face.is_some() {
            return Ok(Step::Enter(StageName::Crop, Box::new(photo)));
        }
        (*decoding, *face) = (None, None);
        Ok(Step::Enter(StageName::Detect, Box::new(photo)))
    }

    async fn take(&self, original: &Original) -> Result<Taken, ObjectError> {
        self.originals.take(original).await
    }

    fn renamed(&self, photo: Photo) -> Photo {
        Photo { run: self.to.run.clone(), ..photo }
    }

    /// The record of a photo that ends in the new run as it did in the first one.
    fn ended(&self, message: Message, ending: Ending, cause: Option<crate::domain::Cause>) -> Record {
        let stage = message.position.stage;
        let message = Message::entering(stage, self.renamed(message.photo), now().as_secs());
        Record { ending, cause, message }
    }

    /// False: the new run knows the photo.
    async fn end(&self, record: Record) -> Result<bool, RecropError> {
        let key: PhotoKey = record.message.photo.key();
        if self.to.ledger.status(&key).await?.is_some() {
            return Ok(false);
        }
        // The record comes first: readers of the feed look it up.
        if let Some(records) = self.to.records {
            records.write(&record).await?;
        }
        Ok(self.to.ledger.restore(&record.message, record.ending, record.cause.as_ref()).await?)
    }
}
