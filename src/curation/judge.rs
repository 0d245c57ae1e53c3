//! Requests for judging: lists, their entries, verdicts, and the life of clients.

use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tracing::Span;

use super::access::{Curator, Person};
use super::card::{Card, CountingVerdict, counting};
use super::entries::EntryReader;
use super::error::{ApiError, json_response};
use super::leases::Holder;
use super::lists::{List, ListCursor, ListOrder, random, unknown_list};
use super::part::lock;
use super::recorder::Recorded;
use super::request::{ClientId, JsonBody, MAX_ITEMS, bad_parameter, query};
use super::spans;
use super::state::Shared;
use crate::dataset::IndexError;
use crate::domain::clock::now;
use crate::domain::{Judgement, NgReason, Role, Selection, Verdict, VerdictId, View};
use crate::telemetry::instruments;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenList {
    #[serde(rename = "where", default)]
    query: String,
    sort: String,
    view: String,
    client: ClientId,
    #[serde(default)]
    after: Option<String>,
}

#[derive(Serialize)]
struct OpenedList {
    list: String,
    /// Faces in the list, and those of them that nobody has judged.
    total: u64,
    left: u64,
    selection: Selection,
}

pub async fn open_list(
    State(shared): State<Shared>,
    person: Person,
    JsonBody(body): JsonBody<OpenList>,
) -> Result<Response, ApiError> {
    let query = query(&body.query)?;
    let order: ListOrder = body.sort.parse().map_err(|error| bad_parameter("sort", error))?;
    let view = view_of_list(&body.view)?;
    let after = body.after.as_deref().map(str::parse::<ListCursor>).transpose();
    let after = after.map_err(|error| bad_parameter("after", error))?;
    let seed = match after {
        Some(after) => after.seed,
        None => random()?,
    };
    let holder = (person.name, body.client);
    lock(&shared.leases).renew(&holder);
    let name = holder.0;
    let list = shared.index.with(move |index| List::open(index, &query, order, view, &name, seed)).await;
    let (total, left, selection) = (list.rows.count(), list.unjudged.count(), list.selection);
    let list = lock(&shared.lists).add(list)?;
    Ok(json_response(StatusCode::OK, &OpenedList { list, total, left, selection }))
}

fn view_of_list(text: &str) -> Result<View, ApiError> {
    match text.parse() {
        Ok(view @ (View::Single | View::Grid)) => Ok(view),
        _ => Err(ApiError::invalid("bad-field", "view: expected single or grid")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadEntries {
    client: ClientId,
    #[serde(default)]
    after: Option<String>,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    50
}

#[derive(Serialize)]
struct Entries {
    entries: Vec<Card>,
    next: Option<String>,
}

pub async fn read_entries(
    State(shared): State<Shared>,
    Path(list): Path<String>,
    person: Person,
    JsonBody(body): JsonBody<ReadEntries>,
) -> Result<Response, ApiError> {
    if !(1..=MAX_ITEMS).contains(&body.limit) {
        return Err(ApiError::invalid("bad-field", format!("limit: expected 1 to {MAX_ITEMS}")));
    }
    let after = body.after.as_deref().map(str::parse::<ListCursor>).transpose();
    let after = after.map_err(|error| bad_parameter("after", error))?;
    let list = lock(&shared.lists).get(&list, &person.name)?;
    let may_judge = person.role == Role::Curator;
    let holder: Holder = (person.name, body.client);
    let state = shared.clone();
    let read = shared.index.with(move |index| {
        let mut list = lock(&list);
        if !list.fits(index) {
            return Err(unknown_list());
        }
        let mut leases = lock(&state.leases);
        leases.renew(&holder);
        let after = after.unwrap_or(ListCursor { number: 0, seed: list.seed, place: None });
        let (list, leases, tickets) = (&mut *list, &mut *leases, &state.tickets);
        let mut reader = EntryReader { index, list, leases, may_judge, holder: &holder, tickets };
        Ok(reader.read(after, body.limit)?)
    });
    let (entries, next) = read.await?;
    Ok(json_response(StatusCode::OK, &Entries { entries, next: next.map(|next| next.to_string()) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendVerdicts {
    client: ClientId,
    verdicts: Vec<SentVerdict>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentVerdict {
    id: String,
    ticket: String,
    judgement: String,
    #[serde(default)]
    reason: Option<String>,
    view: String,
    #[serde(default)]
    replaces: Vec<String>,
}

#[derive(Serialize)]
struct VerdictResults {
    results: Vec<VerdictResult>,
}

#[derive(Serialize)]
struct VerdictResult {
    id: String,
    result: &'static str,
    /// The verdicts that count, if the client did not name one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdicts: Option<Vec<CountingVerdict>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

pub async fn send_verdicts(
    State(shared): State<Shared>,
    Curator(person): Curator,
    JsonBody(body): JsonBody<SendVerdicts>,
) -> Result<Response, ApiError> {
    if body.verdicts.len() > MAX_ITEMS {
        return Err(ApiError::invalid("bad-field", format!("verdicts: expected at most {MAX_ITEMS}")));
    }
    lock(&shared.leases).renew(&(person.name.clone(), body.client));
    // A client that hangs up does not stop the work half-way.
    let task = tokio::spawn(async move { record(&shared, &person, &body.verdicts).await });
    let results = task.await.map_err(ApiError::internal)??;
    Ok(json_response(StatusCode::OK, &VerdictResults { results }))
}

/// Stores those that are valid, and says of each what became of it.
async fn record(shared: &Shared, person: &Person, sent: &[SentVerdict]) -> Result<Vec<VerdictResult>, ApiError> {
    let at = now().as_millis() as u64;
    let read: Vec<Result<Verdict, String>> = sent.iter().map(|sent| read_verdict(shared, person, sent, at)).collect();
    let valid: Vec<Verdict> = read.iter().flatten().cloned().collect();
    let spans: Vec<Span> = valid.iter().map(|verdict| spans::verdict(&shared.run, verdict)).collect();
    let began = Instant::now();
    let recorded = shared.recorder.record(&valid).await;
    if let Some(instruments) = instruments::get() {
        instruments.verdicts_stored(began.elapsed(), recorded.is_ok());
    }
    let recorded = recorded.inspect_err(|error| {
        spans.iter().for_each(|span| spans::finish(span, Err(&error.message)));
    })?;
    let stored: Vec<Verdict> = valid.clone();
    let others = shared.index.with(move |index| {
        let others = stored.iter().map(|verdict| {
            let on_crop = index.verdicts_on(verdict.crop)?;
            // A verdict that a later one of the same request replaces does not conflict.
            let counts = on_crop.verdicts().iter().any(|counting| counting.id == verdict.id);
            Ok(Some(counting(&on_crop)).filter(|counting| counts && counting.len() > 1))
        });
        others.collect::<Result<Vec<_>, IndexError>>()
    });
    let mut outcomes = recorded.into_iter().zip(others.await?).zip(spans);
    let results = sent.iter().zip(read).map(|(sent, read)| {
        let outcome = read.and_then(|verdict| Ok((verdict, outcomes.next().ok_or_else(String::new)?)));
        match outcome {
            Ok((verdict, ((recorded, others), span))) => {
                let result = VerdictResult::of(&verdict.id, recorded, others);
                spans::finish(&span, Ok(result.result));
                count(verdict.view.as_str(), verdict.judgement.as_str(), result.result);
                result
            }
            Err(message) => {
                count("", "", "refused");
                VerdictResult { id: sent.id.clone(), result: "refused", verdicts: None, message: Some(message) }
            }
        }
    });
    Ok(results.collect())
}

impl VerdictResult {
    /// `others`: the verdicts that count, if there are others than this one.
    fn of(id: &VerdictId, recorded: Recorded, others: Option<Vec<CountingVerdict>>) -> Self {
        let of = |result, verdicts| Self { id: id.to_string(), result, verdicts, message: None };
        match (recorded, others) {
            (Recorded::Stored, None) => of("stored", None),
            (Recorded::Stored, others) => of("conflict", others),
            (Recorded::Known, others) => of("known", others),
            (Recorded::IdTaken, _) => {
                let message = "the id is that of another verdict: send it under a new one";
                Self { message: Some(message.to_owned()), ..of("refused", None) }
            }
        }
    }
}

fn count(view: &'static str, judgement: &'static str, result: &'static str) {
    if let Some(instruments) = instruments::get() {
        instruments.verdict(view, judgement, result);
    }
}

fn read_verdict(shared: &Shared, person: &Person, sent: &SentVerdict, at: u64) -> Result<Verdict, String> {
    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
        text.parse().map_err(|error: T::Err| error.to_string().chars().take(300).collect())
    }
    let ticket = shared.tickets.open_ticket(&sent.ticket).map_err(|error| error.to_string())?;
    if ticket.person != person.name {
        return Err("the face was shown to another person: list it again".into());
    }
    let view = match parsed(&sent.view)? {
        View::Bulk => return Err("view: expected single or grid".into()),
        view => view,
    };
    let replaces: Vec<VerdictId> = match ticket.repeat {
        true => Vec::new(),
        false => sent.replaces.iter().map(|id| parsed(id)).collect::<Result<_, _>>()?,
    };
    let verdict = Verdict {
        id: parsed(&sent.id)?,
        photo_id: ticket.photo_id,
        crop: ticket.crop,
        judgement: parsed::<Judgement>(&sent.judgement)?,
        reason: sent.reason.as_deref().map(parsed::<NgReason>).transpose()?,
        by: person.name.clone(),
        at,
        replaces,
        selection: ticket.selection,
        view,
        repeat: ticket.repeat,
        seen: ticket.seen,
    };
    verdict.check().map_err(|fault| fault.to_string())?;
    Ok(verdict)
}

/// The client is still there.
pub async fn keep_alive(
    State(shared): State<Shared>,
    Path(client): Path<String>,
    person: Person,
) -> Result<StatusCode, ApiError> {
    let holder = (person.name, client_id(&client)?);
    lock(&shared.leases).renew(&holder);
    Ok(StatusCode::NO_CONTENT)
}

/// The client has gone.
pub async fn close_client(
    State(shared): State<Shared>,
    Path(client): Path<String>,
    person: Person,
) -> Result<StatusCode, ApiError> {
    let holder = (person.name, client_id(&client)?);
    lock(&shared.leases).close(&holder);
    Ok(StatusCode::NO_CONTENT)
}

fn client_id(text: &str) -> Result<ClientId, ApiError> {
    text.parse().map_err(|error| ApiError::malformed("bad-client", error))
}
