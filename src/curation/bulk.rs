//! Verdicts on many faces at once, and their undo.
//!
//! The ids of the verdicts follow from the id of the request and the crops: a request that is sent again after a kill
//! stores what is missing, and nothing twice.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tracing::Span;

use super::access::Curator;
use super::border::beside;
use super::error::{ApiError, json_response};
use super::recorder::Recorded;
use super::request::{JsonBody, check_share, query};
use super::spans;
use super::state::{CurationState, Shared};
use crate::dataset::query::Operator;
use crate::dataset::{Index, IndexError, Query};
use crate::domain::clock::now;
use crate::domain::{ContentHash, Judgement, SeenPrediction, Selection, Verdict, VerdictId, View};
use crate::telemetry::instruments;

/// Faces of one request.
const MOST: u64 = 200_000;
/// Faces whose verdicts are stored together.
const CHUNK: usize = 1000;
/// Digits of the hash in the id of a verdict.
const DIGITS: usize = 24;
const UNDO: &str = "undo";

/// The id of a request: 1 to 32 of `[A-Za-z0-9-]`, made by the client.
struct BulkId(String);

impl BulkId {
    const MAX_LENGTH: usize = 32;

    fn read(text: &str) -> Result<Self, ApiError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        match (1..=Self::MAX_LENGTH).contains(&text.len()) && text.chars().all(legal) {
            true => Ok(Self(text.to_owned())),
            false => Err(ApiError::invalid("bad-field", "id: expected 1 to 32 of A-Z, a-z, 0-9 and '-'")),
        }
    }

    /// What the ids of all its verdicts begin with, and their length.
    fn verdicts(&self) -> (String, usize) {
        let prefix = format!("{}-", self.0);
        let length = prefix.len() + DIGITS;
        (prefix, length)
    }

    /// The same of their undos.
    fn undos(&self) -> (String, usize) {
        let prefix = format!("{}-{UNDO}", self.0);
        let length = prefix.len() + DIGITS;
        (prefix, length)
    }

    fn id((prefix, _): &(String, usize), crop: ContentHash) -> Result<VerdictId, ApiError> {
        format!("{prefix}{}", &crop.to_string()[..DIGITS]).parse().map_err(ApiError::internal)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeAll {
    id: String,
    judgement: Judgement,
    #[serde(rename = "where", default)]
    query: String,
    /// Only faces with a P(OK) at or above this.
    #[serde(default)]
    from: Option<f64>,
    /// Only faces with a P(OK) below this.
    #[serde(default)]
    below: Option<f64>,
    /// How many faces the person was told.
    count: u64,
}

#[derive(Serialize)]
struct JudgedAll {
    /// Verdicts in the log for this request: one for each crop.
    stored: u64,
    /// For the undo.
    undo: String,
}

/// Judges all unjudged faces of a query.
pub async fn judge_all(
    State(shared): State<Shared>,
    Curator(person): Curator,
    JsonBody(body): JsonBody<JudgeAll>,
) -> Result<Response, ApiError> {
    let id = BulkId::read(&body.id)?;
    if !matches!(body.judgement, Judgement::Ok | Judgement::Ng) {
        return Err(ApiError::invalid("bad-field", "judgement: expected ok or ng"));
    }
    let mut query = query(&body.query)?;
    if let Some(from) = body.from {
        query = beside(&query, Operator::GreaterOrEqual, check_share("from", from)?);
    }
    if let Some(below) = body.below {
        query = beside(&query, Operator::Less, check_share("below", below)?);
    }
    let bulk = Bulk { id, by: person.name, judgement: body.judgement, query, count: body.count };
    // A client that hangs up does not stop the work half-way.
    let stored = tokio::spawn(async move { bulk.store(&shared).await }).await.map_err(ApiError::internal)??;
    Ok(json_response(StatusCode::OK, &JudgedAll { stored, undo: body.id }))
}

struct Bulk {
    id: BulkId,
    by: String,
    judgement: Judgement,
    query: Query,
    count: u64,
}

impl Bulk {
    async fn store(self, shared: &CurationState) -> Result<u64, ApiError> {
        let _alone = shared.bulk.lock().await;
        let ids = self.id.verdicts();
        let (query, count, judgement, known, undos) =
            (self.query, self.count, self.judgement, ids.clone(), self.id.undos());
        let keys = shared.index.with(move |index| {
            let rows = index.unjudged(&index.rows(&query, index.threshold()));
            let earlier = index.verdicts_named(&known.0, known.1, "", 1)?;
            let is_undone = index.count_verdicts_named(&undos.0, undos.1)? > 0;
            check(rows.count(), count, earlier.first().map(|verdict| verdict.judgement), judgement, is_undone)?;
            Ok::<_, ApiError>(rows.iter().map(|row| index.key(row)).collect::<Vec<_>>())
        });
        let keys = keys.await?;
        for chunk in keys.chunks(CHUNK) {
            let (chunk, at) = (chunk.to_vec(), now().as_millis() as u64);
            let (by, ids) = (self.by.clone(), ids.clone());
            let verdicts = shared.index.with(move |index| verdicts(index, &chunk, &ids, judgement, &by, at)).await?;
            record(shared, &verdicts).await?;
        }
        Ok(shared.index.with(move |index| index.count_verdicts_named(&ids.0, ids.1)).await?)
    }
}

/// Stores the verdicts; each is a span in the trace of its photo.
async fn record(shared: &CurationState, verdicts: &[Verdict]) -> Result<(), ApiError> {
    let spans: Vec<Span> = verdicts.iter().map(|verdict| spans::verdict(&shared.run, verdict)).collect();
    let recorded = shared.recorder.record(verdicts).await.inspect_err(|error| {
        spans.iter().for_each(|span| spans::finish(span, Err(&error.message)));
    })?;
    for ((verdict, recorded), span) in verdicts.iter().zip(recorded).zip(&spans) {
        let result = match recorded {
            Recorded::Stored => "stored",
            Recorded::Known => "known",
            Recorded::IdTaken => "refused",
        };
        spans::finish(span, Ok(result));
        if let Some(instruments) = instruments::get() {
            instruments.verdict(verdict.view.as_str(), verdict.judgement.as_str(), result);
        }
    }
    Ok(())
}

/// Whether the person knows what will happen. `count`: what they were told. `earlier`: the judgement of the verdicts that
/// a request under this id has stored before.
fn check(
    unjudged: u64,
    count: u64,
    earlier: Option<Judgement>,
    judgement: Judgement,
    is_undone: bool,
) -> Result<(), ApiError> {
    if is_undone || earlier.is_some_and(|earlier| earlier != judgement) {
        let message = "the id is that of another request, or of one that was undone: use a new one";
        return Err(ApiError::conflict("id-taken", message));
    }
    if unjudged > MOST {
        return Err(ApiError::invalid(
            "too-many",
            format!("{unjudged} faces: expected at most {MOST}; add conditions"),
        ));
    }
    // A request that is sent again finds fewer: it has judged some of them.
    let is_expected = if earlier.is_some() { unjudged <= count } else { unjudged == count };
    match is_expected {
        true => Ok(()),
        false => {
            let error = ApiError::conflict("count", format!("there are {unjudged} faces now, not {count}"));
            Err(ApiError { count: Some(unjudged), ..error })
        }
    }
}

/// The verdicts on the faces with these keys that nobody has judged meanwhile.
fn verdicts(
    index: &Index,
    keys: &[i64],
    ids: &(String, usize),
    judgement: Judgement,
    by: &str,
    at: u64,
) -> Result<Vec<Verdict>, ApiError> {
    let model = index.model();
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(keys.len());
    let mut crops = std::collections::HashSet::new();
    for key in keys {
        let Some(row) = index.row(*key) else { continue };
        let Some(face) = index.face_of(row)? else { continue };
        let counting = index.verdicts_on(face.crop)?;
        if counting.judgement().is_some() || !crops.insert(face.crop) {
            continue;
        }
        verdicts.push(Verdict {
            id: BulkId::id(ids, face.crop)?,
            photo_id: face.photo_id,
            crop: face.crop,
            judgement,
            reason: None,
            by: by.to_owned(),
            at,
            // Undos count, too, until they are replaced.
            replaces: counting.verdicts().iter().map(|verdict| verdict.id.clone()).collect(),
            selection: Selection::Filter,
            view: View::Bulk,
            repeat: false,
            seen: model.zip(face.p_ok).map(|(model_sha256, p_ok)| SeenPrediction { p_ok, model_sha256 }),
        });
    }
    Ok(verdicts)
}

#[derive(Serialize)]
struct Undone {
    /// Verdicts that were taken back now.
    stored: u64,
}

/// Takes the verdicts of a request back. What people have judged since stays.
pub async fn undo(
    State(shared): State<Shared>,
    Curator(person): Curator,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = BulkId::read(&id)?;
    let task = tokio::spawn(async move { take_back(&shared, &id, &person.name).await });
    let stored = task.await.map_err(ApiError::internal)??;
    Ok(json_response(StatusCode::OK, &Undone { stored }))
}

async fn take_back(shared: &CurationState, id: &BulkId, by: &str) -> Result<u64, ApiError> {
    let _alone = shared.bulk.lock().await;
    let (mut after, mut stored) = (String::new(), 0);
    loop {
        let ((prefix, length), from) = (id.verdicts(), after.clone());
        let found = shared.index.with(move |index| {
            let verdicts = index.verdicts_named(&prefix, length, &from, CHUNK)?;
            let last = verdicts.last().map(|verdict| verdict.id.to_string());
            let mut counting = Vec::new();
            for verdict in verdicts {
                let on_crop = index.verdicts_on(verdict.crop)?;
                if verdict.view == View::Bulk && on_crop.verdicts().iter().any(|other| other.id == verdict.id) {
                    counting.push(verdict);
                }
            }
            Ok::<_, IndexError>((last, counting))
        });
        let (last, verdicts) = found.await?;
        let Some(last) = last else {
            return match after.is_empty() {
                true => Err(ApiError::not_found("there are no verdicts of this request")),
                false => Ok(stored),
            };
        };
        after = last;
        let (at, ids) = (now().as_millis() as u64, id.undos());
        let undo = |verdict: Verdict| {
            let (id, replaces) = (BulkId::id(&ids, verdict.crop)?, vec![verdict.id.clone()]);
            Ok(Verdict { id, judgement: Judgement::Unjudged, by: by.to_owned(), at, replaces, ..verdict })
        };
        let undos = verdicts.into_iter().map(undo).collect::<Result<Vec<_>, ApiError>>()?;
        record(shared, &undos).await?;
        stored += undos.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_verdicts_and_undos_are_valid_and_differ() {
        let longest = BulkId::read(&"x".repeat(BulkId::MAX_LENGTH)).ok().unwrap();
        let crop = ContentHash::of(b"crop");
        let ids = [longest.verdicts(), longest.undos()].map(|names| {
            let id = BulkId::id(&names, crop).unwrap();
            assert!(id.as_str().starts_with(&names.0) && id.as_str().len() == names.1);
            id
        });
        assert_ne!(ids[0], ids[1]);
        for bad in ["", "a/b", &"x".repeat(BulkId::MAX_LENGTH + 1)] {
            assert!(BulkId::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_count_must_be_what_the_person_was_told() {
        let check = |unjudged, count, earlier| check(unjudged, count, earlier, Judgement::Ok, false);
        assert_eq!(check(5, 5, None), Ok(()));
        let changed = check(6, 5, None).unwrap_err();
        assert_eq!((changed.status, changed.count), (StatusCode::CONFLICT, Some(6)));
        assert!(check(4, 5, None).is_err());
        assert_eq!(check(4, 5, Some(Judgement::Ok)), Ok(()), "sent again");
        assert!(check(6, 5, Some(Judgement::Ok)).is_err());
        assert_eq!(check(4, 5, Some(Judgement::Ng)).unwrap_err().code, "id-taken");
        assert_eq!(check(MOST + 1, MOST + 1, None).unwrap_err().code, "too-many");
    }
}
