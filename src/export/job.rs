//! The export itself: crops are read and rendered in parallel, and written in order.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::card::{Card, CardCounter, SheetFace, THUMBNAIL};
use super::changes::RemovedFace;
use super::destination::{Destination, Output};
use super::entry::Entry;
use super::error::ExportError;
use super::face_source::FaceSource;
use super::layout::{Shard, entry_name, shards};
use super::manifest::{self, EarlierHeader, FileField, Header};
use super::parquet::ParquetFile;
use super::picture::{Encoding, Rendering};
use super::settings::{Classes, ExportFormat, ExportSettings};
use super::stylegan::{self, EarlierPictures, StyleGanZip};
use super::webdataset::TarShard;
use crate::dataset::Face;
use crate::dataset::selection::{SelectedFace, Selection};
use crate::domain::{ContentHash, Id, ImageFormat, RunName};
use crate::objects::{ObjectKey, Objects};

/// What an export did.
#[derive(Debug, Serialize)]
pub struct Exported {
    pub to: String,
    pub manifest: String,
    pub faces: usize,
    /// Faces whose pictures an earlier, interrupted export had written.
    pub already_there: usize,
    pub labels: usize,
}

/// What an export needs.
pub struct ExportJob<'a> {
    pub run: &'a RunName,
    pub faces: &'a dyn FaceSource,
    pub objects: Arc<dyn Objects>,
    pub settings: &'a ExportSettings,
    pub selection: &'a Selection,
    /// What an earlier export has and this one has not, if this is an export of changes.
    pub removed: Option<&'a [RemovedFace]>,
    pub to: &'a Destination,
    /// Ends the export; the same export continues it.
    pub shutdown: CancellationToken,
}

/// Crops that are read or rendered at the same time, for each core: one is read while another is rendered.
const AHEAD_PER_CORE: usize = 2;

/// Writes the dataset. `progress` receives the number of faces of each step.
///
/// # Errors
/// A crop is missing or damaged, the destination has something else or cannot be written, or `shutdown` ends the export.
/// What was written stays, and the same export continues with it.
pub async fn export(job: &ExportJob<'_>, progress: &(dyn Fn(u64) + Sync)) -> Result<Exported, ExportError> {
    let ExportJob { settings, selection, to, .. } = job;
    let _lock = to.lock()?;
    let mark = manifest::fingerprint(settings, selection).map_err(|error| ExportError::write(to, error))?;
    let manifest_at = manifest_place(settings.format, to);
    let classes = Classification::new(settings.classes, selection);
    let header = |complete| Header {
        export: mark.clone(),
        complete,
        facemill: env!("CARGO_PKG_VERSION"),
        run: job.run.to_string(),
        faces: selection.faces.len(),
        settings: settings.text(),
        threshold: job.faces.threshold(),
        model_sha256: job.faces.model(),
        class_names: classes.names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let begun = begin(settings.format, to, &manifest_at, &mark).await?;
    if begun == Begun::New {
        let line = json_line(&header(false)).map_err(|error| ExportError::write(&manifest_at, error))?;
        manifest_at.write(line.into_bytes(), MANIFEST_TYPE).await?;
    }
    let mut already_there = 0;
    if settings.format == ExportFormat::Folder {
        already_there += write_folder(job, &classes, begun, progress).await?;
    }
    for shard in shards(settings.format, selection.faces.len()) {
        if begun == Begun::Again && to.join(&shard.name).exists().await? {
            already_there += shard.faces.len();
            progress(shard.faces.len() as u64);
            continue;
        }
        already_there += write_shard(job, &classes, &shard, &mark[..12], progress).await?;
    }
    check(settings, selection, to)?;

    let mut lines = json_line(&header(true)).map_err(|error| ExportError::write(&manifest_at, error))?;
    let mut metadata = String::new();
    let mut card = CardCounter::new(selection.faces.len());
    for (at, selected) in selection.faces.iter().enumerate() {
        let entry = classes.entry(job.faces, settings, at, selected)?;
        let line = |field| {
            manifest::line(&entry, settings.size, field).map_err(|error| ExportError::write(&manifest_at, error))
        };
        lines.push_str(&line(FileField::File)?);
        if settings.format == ExportFormat::Folder {
            metadata.push_str(&line(FileField::FileName)?);
        }
        card.add(&entry);
    }
    if settings.format == ExportFormat::Folder {
        to.join("metadata.jsonl").write(metadata.into_bytes(), MANIFEST_TYPE).await?;
    }
    if let Some(removed) = job.removed {
        let lines: serde_json::Result<String> = removed.iter().map(json_line).collect();
        let lines = lines.map_err(|error| ExportError::write(&manifest_at, error))?;
        to.join("removed.jsonl").write(lines.into_bytes(), MANIFEST_TYPE).await?;
    }
    let card = card.finish(job.run, settings, selection);
    let thumbnails = job.thumbnails(&card).await?;
    let [markdown, page] = card_places(settings.format, to);
    let has_tags = settings.format != ExportFormat::StyleGan;
    markdown.write(card.markdown(has_tags).into_bytes(), "text/markdown").await?;
    page.write(card.page(&thumbnails), "text/html; charset=utf-8").await?;
    // Last: a complete manifest stands for a complete dataset.
    manifest_at.write(lines.into_bytes(), MANIFEST_TYPE).await?;
    Ok(Exported {
        to: to.to_string(),
        manifest: manifest_at.to_string(),
        faces: selection.faces.len(),
        already_there,
        labels: selection.label_count(),
    })
}

const MANIFEST_TYPE: &str = "application/jsonl";

fn manifest_place(format: ExportFormat, to: &Destination) -> Destination {
    match format {
        ExportFormat::StyleGan => to.beside(".manifest.jsonl"),
        _ => to.join("manifest.jsonl"),
    }
}

/// The card in Markdown, and as a page.
fn card_places(format: ExportFormat, to: &Destination) -> [Destination; 2] {
    match format {
        ExportFormat::StyleGan => [".md", ".html"].map(|ending| to.beside(ending)),
        _ => ["README.md", "README.html"].map(|name| to.join(name)),
    }
}

fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// Whether the destination has a part of this export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    New,
    /// The manifest there is that of this export.
    Again,
}

async fn begin(
    format: ExportFormat,
    to: &Destination,
    manifest_at: &Destination,
    mark: &str,
) -> Result<Begun, ExportError> {
    let earlier = manifest_at.first_line().await?;
    let earlier = earlier.and_then(|line| serde_json::from_str::<EarlierHeader>(&line).ok());
    let occupied = match (&earlier, format) {
        (Some(earlier), _) if earlier.export == mark => return Ok(Begun::Again),
        // A manifest without an archive is what is left of an export that did not get far.
        (Some(EarlierHeader { complete: false, .. }) | None, ExportFormat::StyleGan) => to.exists().await?,
        (Some(_), _) => true,
        (None, _) => to.has_files().await?,
    };
    if occupied { Err(ExportError::Occupied { place: to.to_string() }) } else { Ok(Begun::New) }
}

/// The classes of labels.
struct Classification<'a> {
    names: Vec<&'a str>,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Classification<'a> {
    fn new(classes: Classes, selection: &'a Selection) -> Self {
        let names = if classes == Classes::Label { selection.labels() } else { Vec::new() };
        let by_name = names.iter().enumerate().map(|(class, name)| (*name, class)).collect();
        Self { names, by_name }
    }

    fn entry(
        &self,
        faces: &dyn FaceSource,
        settings: &ExportSettings,
        at: usize,
        selected: &SelectedFace,
    ) -> Result<Entry, ExportError> {
        let face = faces.face(&selected.photo_id)?.filter(|face| face.crop == selected.crop);
        Ok(Entry {
            name: entry_name(settings, at, selected),
            face: face.ok_or_else(|| ExportError::Left(selected.photo_id.clone()))?,
            label: selected.label.clone(),
            class: self.by_name.get(selected.label.as_str()).copied(),
        })
    }
}

/// Crops that are read and rendered at the same time.
fn parallelism() -> usize {
    AHEAD_PER_CORE * std::thread::available_parallelism().map_or(2, usize::from)
}

impl ExportJob<'_> {
    fn rendering(&self) -> Rendering {
        let encoding = match self.settings.format {
            ExportFormat::StyleGan => Encoding::StoredPng,
            _ => Encoding::Compressed(self.settings.image),
        };
        Rendering { size: self.settings.size, light: self.settings.light, encoding }
    }

    /// Reads and renders the crop of a face. The entry comes back with its picture.
    fn picture(&self, entry: Entry) -> impl Future<Output = Result<(Entry, Vec<u8>), ExportError>> + use<> {
        let (objects, rendering) = (self.objects.clone(), self.rendering());
        async move {
            let Face { photo_id, crop, format, .. } = &entry.face;
            let picture = render(&*objects, photo_id, (*crop, *format), rendering).await?;
            Ok((entry, picture))
        }
    }

    /// The faces of the sheets of a card, small, by their crops.
    async fn thumbnails(&self, card: &Card) -> Result<HashMap<ContentHash, Vec<u8>>, ExportError> {
        let rendering = Rendering { size: THUMBNAIL, light: self.settings.light, encoding: Encoding::Preview };
        let faces: HashMap<ContentHash, &SheetFace> =
            card.sheets.iter().flat_map(|sheet| &sheet.faces).map(|face| (face.crop, face)).collect();
        let thumbnails = stream::iter(faces.into_values()).map(|SheetFace { photo_id, crop, format, .. }| async move {
            self.check_shutdown()?;
            Ok((*crop, render(&*self.objects, photo_id, (*crop, *format), rendering).await?))
        });
        thumbnails.buffer_unordered(parallelism()).try_collect().await
    }

    fn check_shutdown(&self) -> Result<(), ExportError> {
        if self.shutdown.is_cancelled() { Err(ExportError::Interrupted) } else { Ok(()) }
    }
}

/// Reads a crop and renders it.
async fn render(
    objects: &dyn Objects,
    photo_id: &Id,
    (crop, format): (ContentHash, ImageFormat),
    rendering: Rendering,
) -> Result<Vec<u8>, ExportError> {
    let crop = objects.get(&ObjectKey::face(crop, format)).await;
    let crop = crop.map_err(|error| ExportError::Crop { photo_id: photo_id.clone(), error })?;
    let rendered = tokio::task::spawn_blocking(move || rendering.render(&crop)).await;
    let rendered = rendered.unwrap_or_else(|panic| Err(panic.to_string()));
    rendered.map_err(|detail| ExportError::Picture { photo_id: photo_id.clone(), detail })
}

/// Writes the pictures of a folder, each in a file of its own, and returns how many were there already.
async fn write_folder(
    job: &ExportJob<'_>,
    classes: &Classification<'_>,
    begun: Begun,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<usize, ExportError> {
    let media_type = job.settings.image.media_type();
    let faces = stream::iter(job.selection.faces.iter().enumerate()).map(|(at, selected)| async move {
        job.check_shutdown()?;
        let place = job.to.join(&entry_name(job.settings, at, selected));
        if begun == Begun::Again && place.exists().await? {
            return Ok(1);
        }
        let entry = classes.entry(job.faces, job.settings, at, selected)?;
        let (_, picture) = job.picture(entry).await?;
        place.write(picture, media_type).await?;
        Ok::<_, ExportError>(0)
    });
    let written = faces.buffer_unordered(parallelism()).inspect_ok(|_| progress(1));
    written.try_fold(0, |sum, there| std::future::ready(Ok(sum + there))).await
}

/// What the thread that writes a shard is told.
enum Step {
    Picture(Box<Entry>, Vec<u8>),
    /// No more pictures: the file is complete.
    Finish,
}

/// Writes a shard or an archive, and returns how many of its pictures an interrupted export had written.
async fn write_shard(
    job: &ExportJob<'_>,
    classes: &Classification<'_>,
    shard: &Shard,
    mark: &str,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<usize, ExportError> {
    let (format, size) = (job.settings.format, job.settings.size);
    let place = job.to.join(&shard.name);
    let output = place.create(mark, format.media_type())?;
    let earlier = place.earlier(mark).filter(|_| format == ExportFormat::StyleGan).map(EarlierPictures::new);
    let (sender, mut steps) = mpsc::channel::<Step>(2);
    let writer = tokio::task::spawn_blocking(move || {
        let mut writer = ShardWriter::new(format, size, output)?;
        while let Some(step) = steps.blocking_recv() {
            match step {
                Step::Picture(entry, picture) => writer.add(&entry, picture)?,
                Step::Finish => return writer.finish()?.publish(),
            }
        }
        Ok::<(), io::Error>(())
    });
    // A writer that has failed takes no more steps: its error says why.
    let send = async |step| drop(sender.send(step).await);

    let mut known = 0;
    if let Some(mut earlier) = earlier {
        for at in shard.faces.clone() {
            let entry = classes.entry(job.faces, job.settings, at, &job.selection.faces[at])?;
            let Some(picture) = earlier.next(&entry.name) else { break };
            job.check_shutdown()?;
            send(Step::Picture(Box::new(entry), picture)).await;
            progress(1);
            known += 1;
        }
    }
    let rest = stream::iter(shard.faces.clone().skip(known));
    let pictures = rest.map(|at| async move {
        job.check_shutdown()?;
        job.picture(classes.entry(job.faces, job.settings, at, &job.selection.faces[at])?).await
    });
    let rendered = pictures.buffered(parallelism()).try_for_each(async |(entry, picture)| {
        send(Step::Picture(Box::new(entry), picture)).await;
        progress(1);
        Ok(())
    });
    let rendered = rendered.await;
    if rendered.is_ok() {
        send(Step::Finish).await;
    }
    drop(sender);
    let written = writer.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    rendered?;
    written.map_err(|error| ExportError::write(&place, error)).map(|()| known)
}

/// Writes a file with many pictures.
enum ShardWriter {
    StyleGan(Box<StyleGanZip<Output>>),
    WebDataset(Box<TarShard<Output>>),
    Parquet(Box<ParquetFile<Output>>),
}

impl ShardWriter {
    fn new(format: ExportFormat, size: u32, to: Output) -> io::Result<Self> {
        Ok(match format {
            ExportFormat::WebDataset => Self::WebDataset(Box::new(TarShard::new(to, size))),
            ExportFormat::Parquet => Self::Parquet(Box::new(ParquetFile::new(to)?)),
            ExportFormat::StyleGan | ExportFormat::Folder => Self::StyleGan(Box::new(StyleGanZip::new(to))),
        })
    }

    fn add(&mut self, entry: &Entry, picture: Vec<u8>) -> io::Result<()> {
        match self {
            Self::StyleGan(zip) => zip.add(entry, &picture),
            Self::WebDataset(shard) => shard.add(entry, &picture),
            Self::Parquet(file) => file.add(entry, picture),
        }
    }

    fn finish(self) -> io::Result<Output> {
        match self {
            Self::StyleGan(zip) => zip.finish(),
            Self::WebDataset(shard) => shard.finish(),
            Self::Parquet(file) => file.finish(),
        }
    }
}

/// Checks what was written by the rules of its readers.
fn check(settings: &ExportSettings, selection: &Selection, to: &Destination) -> Result<(), ExportError> {
    // An archive in S3 was written by the same code; reading it back would cost as much as the export.
    let (ExportFormat::StyleGan, Destination::Local(path)) = (settings.format, to) else { return Ok(()) };
    let archive = File::open(path).map_err(|error| ExportError::write(to, error))?;
    stylegan::check(io::BufReader::new(archive), settings.size, selection.faces.len())
        .map_err(|detail| ExportError::Invalid { place: to.to_string(), detail })
}
