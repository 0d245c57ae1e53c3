//! The report of a run: its records, its funnel, the causes of its outcomes, and a contact sheet of the crops.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::archive::records::Records;
use crate::domain::{Ending, Id, RunName, State};
use crate::ledger::{Entry, Filter, Ledger, LedgerError};
use crate::objects::{ObjectError, ObjectKey};

mod page;
pub mod records;
mod tally;

#[cfg(test)]
mod fixtures;

pub use page::About;
pub use records::{FaceRecord, PhotoRecord};
pub use tally::Funnel;

use page::Page;
use tally::ReportTally;

/// The counts of a written report, and the path of its page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub funnel: Funnel,
    /// Number of photos that have not ended.
    pub waiting: u64,
    pub page: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("cannot read the ledger for the report: {0}")]
    Ledger(#[from] LedgerError),
    #[error("cannot read the photos' records for the report: {0}")]
    Records(#[from] ObjectError),
    #[error("cannot write {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("photo {0} ended as predicted, but some of its facts are missing: run `facemill run` to fetch it again")]
    Incomplete(Id),
    #[error("the report is incomplete: {0}")]
    Stopped(String),
}

/// Writes `faces.jsonl`, `photos.jsonl` and `report.html` into `dir`, in order of photo id, from the current ledger.
///
/// Reads the ledger once, page by page. Facts that the ledger no longer has come from `records`. Memory does not grow
/// with the number of photos. Each file is replaced as a whole or stays as it is.
///
/// # Errors
///
/// When the ledger or a record cannot be read, when a photo that ended as predicted lacks facts, or when a file cannot
/// be written.
pub async fn write_all(
    dir: &Path,
    ledger: &dyn Ledger,
    records: Option<&Records>,
    about: About,
) -> Result<Written, ReportError> {
    const PAGE: usize = 1000;
    let run = about.run.clone();
    let dir = dir.to_owned();
    let (pages, inbox) = mpsc::channel(2);
    let writer = tokio::task::spawn_blocking(move || write_pages(&dir, about, inbox));

    let mut after: Option<Id> = None;
    loop {
        let page = page(&run, ledger, records, after.as_ref(), PAGE).await;
        after = page.as_ref().ok().and_then(|entries| entries.last()).map(|last| last.photo_id.clone());
        let is_last = after.is_none();
        // The writer closes the channel only when it fails; its error is returned below.
        if pages.send(page).await.is_err() || is_last {
            break;
        }
    }
    drop(pages);
    writer.await.map_err(|panic| ReportError::Stopped(panic.to_string()))?
}

async fn page(
    run: &RunName,
    ledger: &dyn Ledger,
    records: Option<&Records>,
    after: Option<&Id>,
    limit: usize,
) -> Result<Vec<Entry>, ReportError> {
    let entries = ledger.page(run, &Filter::default(), after, limit).await?;
    match records {
        Some(records) => Ok(records.complete(run, entries).await?),
        None => Ok(entries),
    }
}

/// Writes pages until an empty one arrives. When the channel closes before that, no file is replaced.
fn write_pages(
    dir: &Path,
    about: About,
    mut inbox: mpsc::Receiver<Result<Vec<Entry>, ReportError>>,
) -> Result<Written, ReportError> {
    let mut writer = Writer::begin(dir, about)?;
    loop {
        let page =
            inbox.blocking_recv().ok_or_else(|| ReportError::Stopped("reading the ledger was interrupted".into()))?;
        let entries = page?;
        if entries.is_empty() {
            return writer.finish();
        }
        entries.iter().try_for_each(|entry| writer.entry(entry))?;
    }
}

/// The three files while they are written.
struct Writer {
    about: About,
    tally: ReportTally,
    faces: Draft,
    photos: Draft,
    page: Draft,
    sheet: Page,
}

impl Writer {
    fn begin(dir: &Path, about: About) -> Result<Self, ReportError> {
        std::fs::create_dir_all(dir).map_err(|source| ReportError::File { path: dir.to_owned(), source })?;
        let faces = Draft::create(dir.join("faces.jsonl"))?;
        let photos = Draft::create(dir.join("photos.jsonl"))?;
        let mut page = Draft::create(dir.join("report.html"))?;
        let sheet = page.write(|file| Page::begin(file, &about))?;
        Ok(Self { tally: ReportTally::new(about.ok_threshold), about, faces, photos, page, sheet })
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), ReportError> {
        let record = PhotoRecord::of(entry);
        let photo = entry.status.message.as_ref().map(|message| &message.photo);
        self.photos.line(&record)?;
        self.tally.photo(&record, photo);
        if entry.status.state != State::Ended(Ending::Predicted) {
            return Ok(());
        }
        let incomplete = || ReportError::Incomplete(entry.photo_id.clone());
        let photo = photo.ok_or_else(incomplete)?;
        let face = FaceRecord::of(photo).ok_or_else(incomplete)?;
        let original = photo.facts.original.as_ref().ok_or_else(incomplete)?;
        self.faces.line(&face)?;
        self.page.write(|file| self.sheet.face(file, &face, &ObjectKey::original(original.sha256, original.format)))?;
        self.tally.face(&face);
        Ok(())
    }

    fn finish(mut self) -> Result<Written, ReportError> {
        self.page.write(|file| self.sheet.finish(file, &self.about, &self.tally))?;
        let page = self.page.path.clone();
        // The page is published last, so that the records it shows exist when it appears.
        for draft in [self.faces, self.photos, self.page] {
            draft.publish()?;
        }
        Ok(Written { funnel: self.tally.funnel, waiting: self.tally.waiting(), page })
    }
}

/// A file that is written under a temporary name and renamed when it is complete.
struct Draft {
    path: PathBuf,
    draft: PathBuf,
    file: BufWriter<File>,
}

impl Draft {
    fn create(path: PathBuf) -> Result<Self, ReportError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let draft = path.with_file_name(name);
        let file = File::create(&draft).map_err(|source| ReportError::File { path: draft.clone(), source })?;
        Ok(Self { path, draft, file: BufWriter::with_capacity(1 << 16, file) })
    }

    fn write<T>(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> Result<T, ReportError> {
        write(&mut self.file).map_err(|source| ReportError::File { path: self.draft.clone(), source })
    }

    fn line(&mut self, record: &impl Serialize) -> Result<(), ReportError> {
        self.write(|mut file| {
            serde_json::to_writer(&mut file, record)?;
            file.write_all(b"\n")
        })
    }

    fn publish(mut self) -> Result<(), ReportError> {
        self.write(|file| file.flush())?;
        self.file
            .get_ref()
            .sync_all()
            .and_then(|()| std::fs::rename(&self.draft, &self.path))
            .map_err(|source| ReportError::File { path: self.path, source })
    }
}
