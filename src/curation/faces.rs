//! Requests for faces: lists without leases, and everything about one face.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use super::access::Person;
use super::card::{Card, CountingVerdict, RelatedFaces, crop_path};
use super::entries::ticket;
use super::error::{ApiError, json_response};
use super::request::{MAX_ITEMS, Params};
use super::state::Shared;
use crate::archive::predictions::Predictions;
use crate::archive::run_classifier::ClassifierChange;
use crate::dataset::identities::FaceIdentity;
use crate::dataset::page::{Order, Sort};
use crate::dataset::{Cursor, Direction, Face, FaceStatus, IndexError};
use crate::domain::{
    Align, ContentHash, Fill, Id, Judgement, LandmarkScheme, NgReason, PhotoKey, Quality, Search, Verdict,
};
use crate::services::story::Story;

/// Verdicts in the history of a face; earlier ones are left out.
const HISTORY: usize = 500;
/// Near-duplicates of a face that are shown.
const NEAR_DUPLICATES: usize = 100;
/// Models whose predictions for a face are looked up; those of earlier ones are left out.
const MODELS: usize = 20;

/// A face in a listing.
#[derive(Serialize)]
struct FaceRow {
    photo_id: String,
    crop: ContentHash,
    format: &'static str,
    picture: String,
    size: u32,
    label: Option<String>,
    label_id: String,
    p_ok: Option<f64>,
    status: &'static str,
    judgement: Option<Judgement>,
    reason: Option<NgReason>,
    judged_by: Option<String>,
    host: String,
    mirrored: f64,
    mirrored_head: f64,
    blur: f64,
    exposure: f64,
    quality: Option<Quality>,
    score: f64,
    angle: f64,
    published: Option<String>,
    placeholder: bool,
}

impl FaceRow {
    fn of(face: &Face, threshold: f64) -> Self {
        let verdict = face.verdict.as_ref();
        let judgement = verdict.map(|verdict| verdict.judgement);
        Self {
            photo_id: face.photo_id.to_string(),
            crop: face.crop,
            format: face.format.extension(),
            picture: crop_path(face.crop),
            size: face.size,
            label: face.label_name.clone(),
            label_id: face.label_id.to_string(),
            p_ok: face.p_ok,
            status: FaceStatus::of(judgement, face.p_ok, threshold).as_str(),
            judgement,
            reason: verdict.and_then(|verdict| verdict.reason),
            judged_by: verdict.map(|verdict| verdict.by.clone()),
            host: face.host(),
            mirrored: face.mirrored,
            mirrored_head: face.mirrored_head,
            blur: face.blur,
            exposure: face.exposure,
            quality: face.quality.clone(),
            score: face.score,
            angle: face.angle,
            published: face.posted_at.clone(),
            placeholder: face.is_placeholder(),
        }
    }
}

#[derive(Serialize)]
struct FacePage {
    total: u64,
    faces: Vec<FaceRow>,
    next: Option<String>,
}

pub async fn list(State(shared): State<Shared>, _person: Person, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["where", "sort", "after", "limit"])?;
    let query = params.query()?;
    let order = params.parsed("sort")?.unwrap_or(Order { sort: Sort::Id, direction: Direction::Ascending });
    let after: Option<Cursor> = params.parsed("after")?;
    let limit = params.number("limit", 50, 1..=MAX_ITEMS)?;
    let page = shared.index.with(move |index| {
        let threshold = index.threshold();
        let page = index.page(&query, order, threshold, after.as_ref(), limit)?;
        Ok::<_, IndexError>(FacePage {
            total: index.count(&query, threshold),
            faces: page.faces.iter().map(|face| FaceRow::of(face, threshold)).collect(),
            next: page.next.map(|next| next.to_string()),
        })
    });
    Ok(json_response(StatusCode::OK, &page.await?))
}

/// Everything about a face.
#[derive(Serialize)]
struct FaceDetails {
    #[serde(flatten)]
    card: Card,
    face_id: String,
    label_id: String,
    align: Align,
    fill: Fill,
    search: Search,
    landmark_scheme: LandmarkScheme,
    /// Faces in the photo.
    faces: u32,
    /// In pixels of the upright original.
    square: FaceSquare,
    original: OriginalPicture,
    source: FaceSource,
    /// Further columns of the source.
    columns: BTreeMap<String, String>,
    placeholder: bool,
    damaged: Option<String>,
    /// The near-duplicates, the best first.
    group: Vec<FaceRow>,
    /// Whom the face looks like; none if it looks like no other one.
    identity: Option<FaceIdentity>,
    history: Vec<Verdict>,
    /// What counts on earlier crops of the photo, but not on this one.
    earlier: Vec<EarlierVerdict>,
    predictions: Vec<NamedPrediction>,
    trace: TraceLink,
    story: Vec<String>,
}

#[derive(Serialize)]
struct FaceSquare {
    centre: [f64; 2],
    side: f64,
    /// Degrees.
    angle: f64,
}

#[derive(Serialize)]
struct OriginalPicture {
    picture: String,
    format: &'static str,
    bytes: u64,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct FaceSource {
    photo_url: String,
    source_url: Option<String>,
    host: String,
    published: Option<String>,
    /// The file or folder that the photo was read from.
    name: Option<String>,
}

#[derive(Serialize)]
struct NamedPrediction {
    model: ContentHash,
    name: String,
    p_ok: f64,
    current: bool,
}

#[derive(Serialize)]
struct EarlierVerdict {
    crop: ContentHash,
    #[serde(flatten)]
    verdict: CountingVerdict,
}

#[derive(Serialize)]
struct TraceLink {
    id: String,
    url: Option<String>,
}

impl From<&Verdict> for EarlierVerdict {
    fn from(verdict: &Verdict) -> Self {
        Self { crop: verdict.crop, verdict: verdict.into() }
    }
}

pub async fn one(
    State(shared): State<Shared>,
    person: Person,
    Path(photo_id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let id = Id::new(photo_id);
    let (wanted, tickets) = (id.clone(), shared.clone());
    let found = shared.index.with(move |index| {
        let Some(row) = index.row_of(&wanted) else { return Ok(None) };
        let Some(face) = index.face_of(row)? else { return Ok(None) };
        let verdicts = index.verdicts_on(face.crop)?;
        let keys = index.keys_of_crop(face.crop)?;
        let related = RelatedFaces::of(index, row, &keys)?;
        let group = index.group_of(row)?;
        let others = group.into_iter().filter(|other| !keys.contains(&index.key(*other))).take(NEAR_DUPLICATES);
        let mut group = Vec::new();
        for other in others {
            group.extend(index.face_of(other)?.map(|face| FaceRow::of(&face, index.threshold())));
        }
        let sealed = tickets.tickets.seal(&ticket(index, &face, crate::domain::Selection::Filter, &person.name));
        let card = Card::of(&face, &verdicts, related, index.threshold(), sealed);
        let history = index.verdict_history(&face.photo_id, face.crop, HISTORY)?;
        let earlier = index.earlier_verdicts(&face.photo_id, face.crop)?;
        Ok::<_, IndexError>(Some((face, card, group, index.identity_of(row), history, earlier)))
    });
    let unknown = || ApiError::not_found("the run has no face of this photo");
    let (face, card, group, identity, history, earlier) = found.await?.ok_or_else(unknown)?;
    let key = PhotoKey { run: shared.run.clone(), photo_id: id };
    let story = Story::read(&key, &*shared.ledger, shared.records.as_ref(), shared.jaeger.as_deref()).await?;
    let trace_id = key.trace().trace_id_hex();
    let trace = TraceLink { id: trace_id, url: story.as_ref().and_then(|story| story.trace_url.clone()) };
    let details = FaceDetails {
        card,
        face_id: face.face_id.to_string(),
        label_id: face.label_id.to_string(),
        align: face.align,
        fill: face.fill,
        search: face.search,
        landmark_scheme: face.landmark_scheme,
        faces: face.faces,
        square: FaceSquare { centre: face.centre, side: face.side, angle: face.angle },
        original: OriginalPicture {
            picture: format!("/pictures/originals/{}", face.original),
            format: face.original_format.extension(),
            bytes: face.original_bytes,
            width: face.width,
            height: face.height,
        },
        source: FaceSource {
            host: face.host(),
            photo_url: face.photo_url.clone(),
            source_url: face.source_url.clone(),
            published: face.posted_at.clone(),
            name: face.source.clone(),
        },
        placeholder: face.is_placeholder(),
        columns: face.columns,
        damaged: face.damaged,
        group,
        identity,
        history,
        earlier: earlier.iter().map(EarlierVerdict::from).collect(),
        predictions: predictions(&shared, face.crop).await?,
        trace,
        story: story.map(|story| story.text().lines().map(str::to_owned).collect()).unwrap_or_default(),
    };
    Ok(json_response(StatusCode::OK, &details))
}

/// The predictions of the classifiers that the run has had, the current one first.
async fn predictions(shared: &Shared, crop: ContentHash) -> Result<Vec<NamedPrediction>, ApiError> {
    let history = shared.classifiers.read(&shared.run).await?;
    let mut models: Vec<&ClassifierChange> = Vec::new();
    for change in history.changes.iter().rev() {
        if models.len() < MODELS && !models.iter().any(|known| known.model_sha256 == change.model_sha256) {
            models.push(change);
        }
    }
    let archive = Predictions::new(shared.objects.clone());
    let mut found = Vec::new();
    for (at, model) in models.into_iter().enumerate() {
        if let Some(prediction) = archive.read(model.model_sha256, crop).await? {
            let (model, name) = (model.model_sha256, model.model.clone());
            found.push(NamedPrediction { model, name, p_ok: prediction.p_ok, current: at == 0 });
        }
    }
    Ok(found)
}
