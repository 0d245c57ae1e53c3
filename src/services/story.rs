//! The story of one photo: where it is, what the stages found out, and its history.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::archive::records::Records;
use crate::dataset::stored::StoredVerdicts;
use crate::domain::calendar;
use crate::domain::{
    Cause, ContentHash, Facts, Id, Judgement, NgReason, Photo, PhotoKey, Printable, StageName, State, Verdict,
};
use crate::ledger::{Event, Ledger, PhotoStatus};
use crate::objects::{ObjectError, ObjectKey};
use crate::server_error::ServerError;
use crate::verdicts::{CropVerdicts, VerdictLog};

/// All facts about a photo.
#[derive(Debug, Serialize)]
pub struct Story {
    key: PhotoKey,
    pub trace_id: String,
    /// The link to the trace in Jaeger, if its address is known.
    pub trace_url: Option<String>,
    state: State,
    stage: StageName,
    attempt: u32,
    /// Seconds since 1970, UTC; 0: at once.
    due_at: u64,
    cause: Option<Cause>,
    history: Vec<Event>,
    photo: Option<Photo>,
    objects: Vec<String>,
    /// The verdicts on the photo that no other replaces; empty unless they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verdicts: Vec<StoryVerdict>,
    #[serde(skip)]
    is_taken_down: bool,
}

/// A verdict on a crop of the photo.
#[derive(Debug, Serialize)]
struct StoryVerdict {
    judgement: Judgement,
    reason: Option<NgReason>,
    by: String,
    /// Milliseconds since 1970.
    at: u64,
    crop: ContentHash,
    /// Whether it is about a crop that the photo no longer has. It does not count then.
    on_earlier_crop: bool,
}

impl Story {
    /// None: the run does not know the photo. `records`: where the messages of ended photos are, if the ledger does not
    /// keep them. `jaeger`: where Jaeger is.
    pub async fn read(
        key: &PhotoKey,
        ledger: &dyn Ledger,
        records: Option<&Records>,
        jaeger: Option<&str>,
    ) -> Result<Option<Self>, ServerError> {
        let Some(mut status) = ledger.status(key).await? else { return Ok(None) };
        if let (None, Some(records)) = (&status.message, records) {
            status.message = records.read(key).await?.map(|record| record.message);
        }
        let history = ledger.history(key).await?;
        Ok(Some(Self::of(key.clone(), status, history, jaeger)))
    }

    pub fn photo_id(&self) -> &Id {
        &self.key.photo_id
    }

    /// The crop that the photo has now.
    pub fn crop(&self) -> Option<ContentHash> {
        self.photo.as_ref().and_then(|photo| photo.facts.crop.as_ref()).map(|crop| crop.sha256)
    }

    /// Adds the verdicts of people. `known`: those on the photo and its crop up to a position, from where the log is read;
    /// the default reads the whole log.
    pub async fn with_verdicts(mut self, log: &VerdictLog, known: StoredVerdicts) -> Result<Self, ObjectError> {
        // A photo that was taken down has none. An index that does not know that yet may have some.
        if self.is_taken_down {
            return Ok(self);
        }
        let crop = self.crop();
        let mut by_crop: BTreeMap<ContentHash, CropVerdicts> = BTreeMap::new();
        let mut add = |verdict: Verdict| by_crop.entry(verdict.crop).or_default().apply(verdict);
        let StoredVerdicts { verdicts, mut to } = known;
        verdicts.into_iter().for_each(&mut add);
        log.read(&mut to, |verdict| {
            if verdict.photo_id == self.key.photo_id || Some(verdict.crop) == crop {
                add(verdict);
            }
        })
        .await?;
        let counting = by_crop.values().filter(|on_crop| on_crop.judgement().is_some());
        self.verdicts = counting.flat_map(CropVerdicts::verdicts).map(|verdict| story_verdict(verdict, crop)).collect();
        self.verdicts.sort_by_key(|verdict| verdict.at);
        Ok(self)
    }

    fn of(key: PhotoKey, status: PhotoStatus, history: Vec<Event>, jaeger: Option<&str>) -> Self {
        let is_taken_down = status.is_taken_down();
        let photo = status.message.map(|message| message.photo).filter(|_| !is_taken_down);
        let facts = photo.as_ref().map(|photo| photo.facts.clone()).unwrap_or_default();
        let original = facts.original.map(|original| ObjectKey::original(original.sha256, original.format));
        let crop = facts.crop.map(|crop| ObjectKey::face(crop.sha256, crop.format));
        let trace_id = key.trace().trace_id_hex();
        Self {
            trace_url: jaeger.map(|jaeger| format!("{}/trace/{trace_id}", jaeger.trim_end_matches('/'))),
            trace_id,
            key,
            state: status.state,
            stage: status.stage,
            attempt: status.attempt,
            due_at: status.due_at,
            cause: status.cause,
            history,
            photo,
            objects: [original, crop].into_iter().flatten().map(|key| key.to_string()).collect(),
            verdicts: Vec::new(),
            is_taken_down,
        }
    }

    /// As a person reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let state = match self.state {
            State::Ended(ending) => format!("{ending} at {}", self.stage),
            State::Waiting(position) if self.due_at > 0 => {
                format!("waiting for {}, due {} UTC", position.stage, calendar::second(self.due_at))
            }
            State::Waiting(position) => format!("waiting for {}", position.stage),
        };
        writeln!(text, "photo {}: {state}", self.key.photo_id.as_str().printable())?;
        if let Some(cause) = &self.cause {
            writeln!(text, "  {}", cause.to_string().printable())?;
        }
        writeln!(text, "\n  trace   {}", self.trace_url.as_ref().unwrap_or(&self.trace_id))?;
        if let Some(photo) = &self.photo {
            let candidate = &photo.candidate;
            writeln!(text, "  url     {}", candidate.photo_url.printable())?;
            if let Some(page) = &candidate.source_url {
                writeln!(text, "  page    {}", page.printable())?;
            }
            let label = match (&candidate.label_name, candidate.label_id.as_str()) {
                (None, "") => "none".to_owned(),
                (None, id) => id.printable().to_string(),
                // A table with names only has them as ids, too.
                (Some(name), id) if name == id => id.printable().to_string(),
                (Some(name), id) => format!("{} ({})", name.printable(), id.printable()),
            };
            writeln!(text, "  label   {label}, face {}", candidate.face_id.as_str().printable())?;
            if let Some(source) = &candidate.source {
                writeln!(text, "  source  {}", source.printable())?;
            }
            for (name, value) in &candidate.columns {
                writeln!(text, "  column  {}: {}", name.printable(), value.printable())?;
            }
            facts(text, &photo.facts)?;
        }
        for object in &self.objects {
            writeln!(text, "  object  {object}")?;
        }
        for verdict in &self.verdicts {
            let reason = verdict.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            let earlier = if verdict.on_earlier_crop { ", on an earlier crop: it does not count" } else { "" };
            writeln!(
                text,
                "  verdict {}{reason} by {}, {} UTC{earlier}",
                verdict.judgement,
                verdict.by.printable(),
                calendar::second(verdict.at / 1000)
            )?;
        }
        writeln!(text)?;
        for event in &self.history {
            let cause =
                event.cause.as_ref().map(|cause| format!("  {}", cause.to_string().printable())).unwrap_or_default();
            let attempt = if event.attempt > 1 { format!(" (attempt {})", event.attempt) } else { String::new() };
            writeln!(
                text,
                "  {}.{:03}  {:<9}{:<10}{:>6} ms{attempt}{cause}",
                calendar::second(event.at_ms / 1000),
                event.at_ms % 1000,
                event.stage.as_str(),
                event.what.as_str(),
                event.took_ms
            )?;
        }
        Ok(())
    }
}

fn story_verdict(verdict: &Verdict, crop: Option<ContentHash>) -> StoryVerdict {
    StoryVerdict {
        judgement: verdict.judgement,
        reason: verdict.reason,
        by: verdict.by.clone(),
        at: verdict.at,
        crop: verdict.crop,
        on_earlier_crop: Some(verdict.crop) != crop,
    }
}

fn facts(text: &mut String, facts: &Facts) -> std::fmt::Result {
    if let Some(original) = &facts.original {
        writeln!(text, "  file    {} bytes of {}", original.bytes, original.format.extension())?;
    }
    if let Some(face) = &facts.face {
        let (width, height) = (face.width, face.height);
        writeln!(text, "  face    tilted {:.1} degrees, score {:.2}, in {width} x {height}", face.angle, face.score)?;
    }
    if let Some(crop) = &facts.crop {
        let mirrored = 100.0 * crop.mirrored;
        writeln!(text, "  crop    {0} x {0} pixels, {mirrored:.1} % mirrored", crop.size)?;
    }
    if let Some(prediction) = &facts.prediction {
        writeln!(text, "  prediction P(OK) {:.4} by {}", prediction.p_ok, prediction.model)?;
    }
    Ok(())
}
