//! Verdicts as files: export of the log, and import of judgements that were made elsewhere.
//!
//! A file is JSON lines or CSV. Both have the fields of [`Verdict`]; a CSV separates the ids in `replaces` by blanks
//! and has `p_ok` and `model_sha256` for the prediction that was seen. An import needs `judgement` (or `status`) and
//! one of `photo_id` and `crop`.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use serde::Deserialize;

use crate::dataset::page::Order;
use crate::dataset::{Direction, Face, Index, IndexError, Query, Sort};
use crate::domain::{ContentHash, Id, Judgement, NgReason, SeenPrediction, Selection, Verdict, VerdictId, View};
use crate::objects::ObjectError;
use crate::source::timestamp::Timestamp;
use crate::verdicts::{AppendError, CropVerdicts, LogPosition, VerdictLog, VerdictWriter};

/// The format of a file of verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictFormat {
    JsonLines,
    Csv,
}

#[derive(Debug, thiserror::Error)]
pub enum VerdictFileError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("line {line}: {detail}")]
    Line { line: u64, detail: String },
    #[error("cannot write the verdicts: {0}")]
    Write(io::Error),
}

const COLUMNS: [&str; 14] = [
    "id",
    "photo_id",
    "crop",
    "judgement",
    "reason",
    "by",
    "at",
    "replaces",
    "selection",
    "view",
    "repeat",
    "p_ok",
    "model_sha256",
    "counts",
];

/// Writes verdicts to a file, one by one.
enum VerdictFileWriter<'a> {
    JsonLines(&'a mut dyn Write),
    Csv(Box<csv::Writer<&'a mut dyn Write>>),
}

impl<'a> VerdictFileWriter<'a> {
    fn new(format: VerdictFormat, to: &'a mut dyn Write) -> io::Result<Self> {
        Ok(match format {
            VerdictFormat::JsonLines => Self::JsonLines(to),
            VerdictFormat::Csv => {
                let mut writer = csv::Writer::from_writer(to);
                writer.write_record(COLUMNS)?;
                Self::Csv(Box::new(writer))
            }
        })
    }

    fn write(&mut self, verdict: &Verdict, counts: bool) -> io::Result<()> {
        match self {
            Self::JsonLines(to) => {
                #[derive(serde::Serialize)]
                struct Line<'a> {
                    #[serde(flatten)]
                    verdict: &'a Verdict,
                    counts: bool,
                }
                serde_json::to_writer(&mut *to, &Line { verdict, counts })?;
                to.write_all(b"\n")
            }
            Self::Csv(writer) => {
                let replaces: Vec<&str> = verdict.replaces.iter().map(VerdictId::as_str).collect();
                let seen = verdict.seen.as_ref();
                writer.write_record([
                    verdict.id.as_str(),
                    verdict.photo_id.as_str(),
                    &verdict.crop.to_string(),
                    verdict.judgement.as_str(),
                    verdict.reason.map_or("", NgReason::as_str),
                    &verdict.by,
                    &verdict.at.to_string(),
                    &replaces.join(" "),
                    verdict.selection.as_str(),
                    verdict.view.as_str(),
                    if verdict.repeat { "true" } else { "false" },
                    &seen.map(|seen| seen.p_ok.to_string()).unwrap_or_default(),
                    &seen.map(|seen| seen.model_sha256.to_string()).unwrap_or_default(),
                    if counts { "true" } else { "false" },
                ])?;
                Ok(())
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::JsonLines(to) => to.flush(),
            Self::Csv(mut writer) => writer.flush(),
        }
    }
}

/// Writes the log in its order, each verdict with whether it counts: no other replaces it. With `counting_only`, the
/// others are left out. Returns how many were written.
pub async fn export(
    log: &VerdictLog,
    format: VerdictFormat,
    counting_only: bool,
    to: &mut (dyn Write + Send),
) -> Result<u64, VerdictFileError> {
    let mut verdicts = Vec::new();
    let mut by_crop: HashMap<ContentHash, CropVerdicts> = HashMap::new();
    log.read(&mut LogPosition::default(), |verdict| {
        by_crop.entry(verdict.crop).or_default().apply(verdict.clone());
        verdicts.push(verdict);
    })
    .await?;
    let counts = |verdict: &Verdict| {
        let on_crop = by_crop.get(&verdict.crop).map_or(&[][..], CropVerdicts::verdicts);
        on_crop.iter().any(|counting| counting.id == verdict.id) && verdict.judgement != Judgement::Unjudged
    };
    let mut write = || {
        let mut writer = VerdictFileWriter::new(format, to)?;
        let mut written = 0;
        for verdict in &verdicts {
            let counts = counts(verdict);
            if counts || !counting_only {
                writer.write(verdict, counts)?;
                written += 1;
            }
        }
        writer.finish()?;
        Ok(written)
    };
    write().map_err(VerdictFileError::Write)
}

/// A line of a file that is imported.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VerdictRow {
    id: Option<VerdictId>,
    photo_id: Option<Id>,
    crop: Option<ContentHash>,
    #[serde(alias = "status", deserialize_with = "word")]
    judgement: Option<String>,
    #[serde(deserialize_with = "word")]
    reason: Option<String>,
    by: Option<String>,
    at: Option<serde_json::Value>,
    replaces: Vec<VerdictId>,
    selection: Option<Selection>,
    view: Option<View>,
    repeat: bool,
    seen: Option<SeenPrediction>,
}

/// A word in lower case: people write `OK` as well as `ok`.
fn word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(|word| word.to_lowercase()))
}

impl VerdictRow {
    fn from_json(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| error.to_string())
    }

    fn from_csv(columns: &csv::StringRecord, record: &csv::StringRecord) -> Result<Self, String> {
        let field = |name: &str| {
            let at = columns.iter().position(|column| column == name)?;
            record.get(at).map(str::trim).filter(|value| !value.is_empty())
        };
        fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: Option<&str>) -> Result<Option<T>, String> {
            value.map(str::parse).transpose().map_err(|error: T::Err| error.to_string())
        }
        let seen = match (parsed::<f64>(field("p_ok"))?, parsed(field("model_sha256"))?) {
            (Some(p_ok), Some(model_sha256)) => Some(SeenPrediction { p_ok, model_sha256 }),
            _ => None,
        };
        let replaces = field("replaces").unwrap_or_default().split_whitespace().map(str::parse);
        Ok(Self {
            id: parsed(field("id"))?,
            photo_id: field("photo_id").map(Id::from),
            crop: parsed(field("crop"))?,
            judgement: field("judgement").or_else(|| field("status")).map(str::to_lowercase),
            reason: field("reason").map(str::to_lowercase),
            by: field("by").map(str::to_owned),
            at: field("at").map(|at| at.parse::<u64>().map_or_else(|_| at.into(), Into::into)),
            replaces: replaces
                .collect::<Result<_, _>>()
                .map_err(|error: crate::domain::BadVerdictId| error.to_string())?,
            selection: parsed(field("selection"))?,
            view: parsed(field("view"))?,
            repeat: parsed(field("repeat"))?.unwrap_or_default(),
            seen,
        })
    }

    fn judgement(&self) -> Result<Judgement, String> {
        let judgement = self.judgement.as_deref().ok_or("`judgement` is missing: expected ok, ng or pending")?;
        judgement.parse().map_err(|error: crate::domain::UnknownName| error.to_string())
    }

    /// Milliseconds since 1970. None: the file does not say when.
    fn at(&self) -> Result<Option<u64>, String> {
        match &self.at {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(serde_json::Value::Number(number)) if number.is_u64() => Ok(number.as_u64()),
            Some(serde_json::Value::String(text)) => match Timestamp::parse(Some(text)) {
                Timestamp::At(seconds @ 0.., nanoseconds) => {
                    Ok(Some(seconds as u64 * 1000 + u64::from(nanoseconds / 1_000_000)))
                }
                _ => Err(format!("`at` is {text:?}: expected a time, or milliseconds since 1970")),
            },
            Some(other) => Err(format!("`at` is {other}: expected a time, or milliseconds since 1970")),
        }
    }
}

/// The photos and crops of a run, by each other.
struct Crops {
    by_photo: HashMap<Id, ContentHash>,
    by_crop: HashMap<ContentHash, Id>,
}

impl Crops {
    fn of(index: &Index) -> Result<Self, IndexError> {
        let mut crops = Self { by_photo: HashMap::new(), by_crop: HashMap::new() };
        let order = Order { sort: Sort::Updated, direction: Direction::Ascending };
        index.each_face(&Query::ALL, order, 0.0, |face: Face| {
            crops.by_photo.insert(face.photo_id.clone(), face.crop);
            crops.by_crop.insert(face.crop, face.photo_id);
            Ok::<_, IndexError>(())
        })?;
        Ok(crops)
    }

    /// None: the run has no such face.
    fn find(&self, photo_id: Option<Id>, crop: Option<ContentHash>) -> Option<(Id, ContentHash)> {
        match (photo_id, crop) {
            (Some(photo_id), Some(crop)) => Some((photo_id, crop)),
            (Some(photo_id), None) => self.by_photo.get(&photo_id).map(|crop| (photo_id, *crop)),
            (None, Some(crop)) => self.by_crop.get(&crop).map(|photo_id| (photo_id.clone(), crop)),
            (None, None) => None,
        }
    }
}

/// The result of an import.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    pub stored: u64,
    /// Verdicts that were in the log already.
    pub known: u64,
    /// Lines whose photo or crop is not in the run.
    pub unknown: Vec<u64>,
    /// Crops that now have verdicts that contradict each other.
    pub conflicts: u64,
}

/// Who judged, and when, where the file does not say.
#[derive(Debug, Clone)]
pub struct Defaults {
    pub by: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// Verdicts that are stored in one write.
const BATCH: usize = 500;

/// Adds the judgements of a file to the log. The whole file is read and checked before the first is stored. A file that
/// is imported again adds nothing.
///
/// A row without an id replaces the row before it for the same crop, and nothing else: a judgement that contradicts one
/// in the log is a conflict, which a person decides.
pub async fn import(
    log: VerdictLog,
    index: &Index,
    format: VerdictFormat,
    from: &mut dyn BufRead,
    defaults: &Defaults,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Imported, VerdictFileError> {
    let crops = Crops::of(index)?;
    let mut imported = Imported::default();
    let mut verdicts = Vec::new();
    let mut last: HashMap<ContentHash, (u64, VerdictId)> = HashMap::new();
    rows(format, from, &mut |line, row| {
        let judgement = row.judgement()?;
        let reason =
            row.reason.as_deref().map(str::parse::<NgReason>).transpose().map_err(|error| error.to_string())?;
        let at = row.at()?;
        if row.photo_id.is_none() && row.crop.is_none() {
            return Err("both `photo_id` and `crop` are missing".into());
        }
        let Some((photo_id, crop)) = crops.find(row.photo_id, row.crop) else {
            imported.unknown.push(line);
            return Ok(());
        };
        let by = row.by.unwrap_or_else(|| defaults.by.clone());
        let (number, previous) = match last.get(&crop) {
            Some((number, id)) => (number + 1, Some(id.clone())),
            None => (1, None),
        };
        let own_id = row.id.is_some();
        let id = match row.id {
            Some(id) => id,
            None => made_id(&format!("{crop} {number} {judgement} {reason:?} {by} {at:?}"))?,
        };
        let replaces = if own_id || row.repeat { row.replaces } else { previous.into_iter().collect() };
        if !row.repeat {
            last.insert(crop, (number, id.clone()));
        }
        let verdict = Verdict {
            id,
            photo_id,
            crop,
            judgement,
            reason,
            by,
            at: at.unwrap_or(defaults.at),
            replaces,
            selection: row.selection.unwrap_or(Selection::Import),
            view: row.view.unwrap_or(View::Single),
            repeat: row.repeat,
            seen: row.seen,
        };
        verdict.check().map_err(|fault| fault.to_string())?;
        verdicts.push(verdict);
        Ok(())
    })?;

    let mut by_crop: HashMap<ContentHash, CropVerdicts> = HashMap::new();
    let mut writer =
        VerdictWriter::open(log, |verdict| by_crop.entry(verdict.crop).or_default().apply(verdict)).await?;
    let contested = |by_crop: &HashMap<ContentHash, CropVerdicts>| {
        by_crop.values().filter(|on_crop| on_crop.is_conflict()).count() as u64
    };
    let before = contested(&by_crop);
    for batch in verdicts.chunks(BATCH) {
        let appended = writer.append(batch).await?;
        imported.known += appended.known as u64;
        imported.stored += (batch.len() - appended.known) as u64;
        for verdict in appended.news {
            by_crop.entry(verdict.crop).or_default().apply(verdict);
        }
        progress(batch.len() as u64);
    }
    imported.conflicts = contested(&by_crop).saturating_sub(before);
    Ok(imported)
}

/// An id that is the same each time the same file is imported.
fn made_id(act: &str) -> Result<VerdictId, String> {
    let hash = ContentHash::of(act.as_bytes()).to_string();
    format!("import-{}", &hash[..32]).parse().map_err(|error: crate::domain::BadVerdictId| error.to_string())
}

/// Visits the rows of a file with their line numbers. An error of `visit` names the line.
fn rows(
    format: VerdictFormat,
    from: &mut dyn BufRead,
    visit: &mut dyn FnMut(u64, VerdictRow) -> Result<(), String>,
) -> Result<(), VerdictFileError> {
    match format {
        VerdictFormat::JsonLines => {
            for (line, text) in (1..).zip(from.lines()) {
                let failed = |detail: String| VerdictFileError::Line { line, detail };
                let text = text.map_err(|error| failed(error.to_string()))?;
                if !text.trim().is_empty() {
                    VerdictRow::from_json(&text).and_then(|row| visit(line, row)).map_err(failed)?;
                }
            }
        }
        VerdictFormat::Csv => {
            let mut reader = csv::Reader::from_reader(from);
            let failed = |error: &csv::Error| {
                let line = error.position().map_or(1, csv::Position::line);
                VerdictFileError::Line { line, detail: error.to_string() }
            };
            let columns = reader.headers().map_err(|error| failed(&error))?.clone();
            for record in reader.records() {
                let record = record.map_err(|error| failed(&error))?;
                let line = record.position().map_or(1, csv::Position::line);
                let row = VerdictRow::from_csv(&columns, &record).and_then(|row| visit(line, row));
                row.map_err(|detail| VerdictFileError::Line { line, detail })?;
            }
        }
    }
    Ok(())
}
