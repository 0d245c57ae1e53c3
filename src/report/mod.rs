//! The report of a run: its records, its funnel, the causes of its outcomes, and a contact sheet of the crops.
//!
//! Faces, endings and counts come from the index of faces, photos that have not ended from the ledger.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::atomic_file::AtomicFile;
use crate::dataset::index::Index;
use crate::dataset::page::{Direction, Order, Sort};
use crate::dataset::{IndexSource, Query};
use crate::domain::Id;
use crate::ledger::{Filter, LedgerError};
use crate::objects::{ObjectKey, Objects};

mod error;
pub mod evaluation;
mod page;
mod pictures;
pub mod records;
mod tally;

#[cfg(test)]
pub(crate) mod fixtures;

pub use error::ReportError;
pub use page::About;
pub use pictures::{Pictures, RejectedPhotos};
pub use records::{FaceRecord, PhotoRecord, WaitingPhoto};
pub use tally::Funnel;

use page::ReportPage;
use tally::ReportTally;

/// The counts of a written report, and the path of its page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub funnel: Funnel,
    /// Number of photos that have not ended.
    pub waiting: u64,
    /// Number of photos that ended without a record, and the first of their ids.
    pub unrecorded: (u64, Vec<Id>),
    pub page: PathBuf,
}

/// What a report shows that the index does not have.
#[derive(Debug, Clone, Default)]
pub struct Unindexed {
    /// The photos that have not ended, in the order of their ids. Those that the index knows as ended are left out.
    pub waiting: Vec<WaitingPhoto>,
    pub rejected: Vec<RejectedPhotos>,
}

/// Who is told how far a report is.
pub struct ReportProgress<'a> {
    /// Receives the number of photos of each batch that the index takes in.
    pub indexed: &'a (dyn Fn(u64) + Sync),
    /// Receives how many small copies of pictures are made, and how many there are.
    pub thumbnails: &'a (dyn Fn(u64, u64) + Sync),
}

impl ReportProgress<'_> {
    /// Nobody is told.
    pub const SILENT: Self = Self { indexed: &|_| {}, thumbnails: &|_, _| {} };
}

/// Brings the index up to date and writes the report from it, with its pictures: see [`write`].
///
/// # Errors
/// When the ledger or the archive cannot be read, or a file cannot be written.
pub async fn write_all(
    dir: &Path,
    mut index: Index,
    source: &IndexSource,
    objects: &Arc<dyn Objects>,
    about: About,
    progress: ReportProgress<'_>,
) -> Result<Written, ReportError> {
    // Before the index: a photo that ends in between is in both, and not in neither.
    let waiting = waiting(source).await?;
    source.update(&mut index, progress.indexed).await?;
    let rejected = match about.pictures {
        Pictures { linked: false, thumbnails: false } => Vec::new(),
        _ => pictures::rejected(&index, source).await?,
    };
    match about.pictures.thumbnails {
        true => pictures::write_thumbnails(dir, &index, &rejected, objects, progress.thumbnails).await?,
        false => pictures::forget_thumbnails(dir, &HashSet::new()),
    }
    let (dir, unindexed) = (dir.to_owned(), Unindexed { waiting, rejected });
    let written = tokio::task::spawn_blocking(move || index.snapshot(|index| write(&dir, index, unindexed, &about))?);
    written.await.map_err(|panic| ReportError::Stopped(panic.to_string()))?
}

/// The photos that have not ended, in the order of their ids. They take about 200 bytes each.
async fn waiting(source: &IndexSource) -> Result<Vec<WaitingPhoto>, LedgerError> {
    const PAGE: usize = 1000;
    let filter = Filter { waiting: true, ..Filter::default() };
    let mut waiting: Vec<WaitingPhoto> = Vec::new();
    loop {
        let after = waiting.last().map(|photo| &photo.record.photo_id);
        let page = source.ledger.page(&source.run, &filter, after, PAGE).await?;
        if page.is_empty() {
            return Ok(waiting);
        }
        waiting.extend(page.into_iter().map(WaitingPhoto::from));
    }
}

/// Writes `faces.jsonl`, `photos.jsonl` and `report.html` into `dir`, in the order of photo ids. Each file is replaced
/// as a whole or stays as it is.
///
/// # Errors
/// When the index cannot be read, or a file cannot be written.
pub fn write(dir: &Path, index: &Index, unindexed: Unindexed, about: &About) -> Result<Written, ReportError> {
    let Unindexed { waiting, mut rejected } = unindexed;
    if about.pictures.thumbnails {
        let has_thumbnail = |key: &ObjectKey| {
            let path = key.content_hash().map(Pictures::thumbnail);
            path.is_some_and(|path| dir.join(path).is_file())
        };
        rejected.iter_mut().for_each(|of_cause| of_cause.originals.retain(|(_, key)| has_thumbnail(key)));
    }
    let still_waits = |photo: WaitingPhoto| match index.has_ended(&photo.record.photo_id) {
        Ok(false) => Some(Ok(photo)),
        Ok(true) => None,
        Err(error) => Some(Err(error)),
    };
    let waiting = waiting.into_iter().filter_map(still_waits).collect::<Result<Vec<_>, _>>()?;
    let mut faces = Draft::create(dir.join("faces.jsonl"))?;
    let mut photos = Draft::create(dir.join("photos.jsonl"))?;
    let mut page = Draft::create(dir.join("report.html"))?;
    let threshold = about.ok_threshold.unwrap_or_else(|| index.threshold());
    let tally = ReportTally::of(index, &waiting, threshold)?;

    write_photos(&mut photos, index, &waiting)?;
    let mut sheet = page.write(|file| ReportPage::begin(file, about))?;
    let by_id = Order { sort: Sort::Id, direction: Direction::Ascending };
    index.each_face(&Query::ALL, by_id, threshold, |face| {
        let record = FaceRecord::of(&face);
        faces.line(&record)?;
        let original = ObjectKey::original(face.original, face.original_format);
        page.write(|file| sheet.face(file, &record, &original))
    })?;
    page.write(|file| sheet.finish(file, about, &tally, &rejected))?;

    let path = page.path.clone();
    // The page is published last, so that the records it shows exist when it appears.
    for draft in [faces, photos, page] {
        draft.publish()?;
    }
    let waiting = waiting.len() as u64;
    Ok(Written { funnel: tally.funnel, waiting, unrecorded: tally.unrecorded, page: path })
}

/// A line for each photo, ended or waiting.
fn write_photos(photos: &mut Draft, index: &Index, waiting: &[WaitingPhoto]) -> Result<(), ReportError> {
    let mut waiting = waiting.iter().map(|photo| &photo.record).peekable();
    index.each_ended(|ended| {
        while let Some(record) = waiting.next_if(|record| record.photo_id < ended.photo_id) {
            photos.line(record)?;
        }
        photos.line(&PhotoRecord::from(ended))
    })?;
    waiting.try_for_each(|record| photos.line(record))
}

/// A file that appears when it is complete.
struct Draft {
    path: PathBuf,
    file: BufWriter<AtomicFile>,
}

impl Draft {
    fn create(path: PathBuf) -> Result<Self, ReportError> {
        match AtomicFile::create(&path) {
            Ok(file) => Ok(Self { path, file: BufWriter::with_capacity(1 << 16, file) }),
            Err(source) => Err(ReportError::File { path, source }),
        }
    }

    fn write<T>(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> Result<T, ReportError> {
        write(&mut self.file).map_err(|source| ReportError::File { path: self.path.clone(), source })
    }

    fn line(&mut self, record: &impl Serialize) -> Result<(), ReportError> {
        self.write(|mut file| {
            serde_json::to_writer(&mut file, record)?;
            file.write_all(b"\n")
        })
    }

    fn publish(self) -> Result<(), ReportError> {
        let Self { path, file } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(AtomicFile::publish).map_err(|source| ReportError::File { path, source })
    }
}
