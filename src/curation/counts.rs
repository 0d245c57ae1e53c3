//! Requests for numbers of faces: by status and size, by label, by host; and the threshold, which changes them.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::access::{Curator, Person};
use super::error::{ApiError, json_response};
use super::request::{JsonBody, Params, check_share};
use super::state::Shared;
use crate::archive::run_classifier::ClassifierChange;
use crate::dataset::face::Text;
use crate::dataset::judging::{ByStatus, StatusCounts};
use crate::dataset::{FaceStatus, Index, Query};
use crate::domain::clock::now;

const MAX_LABELS: usize = 1000;

#[derive(Serialize)]
struct Counts {
    total: u64,
    statuses: BTreeMap<&'static str, u64>,
    /// Of the faces of at least so many pixels.
    sizes: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// OK faces of the run that are still wanted.
    left: u64,
    threshold: f64,
}

impl Counts {
    fn of(index: &Index, query: &Query, wanted: u64) -> Self {
        let threshold = index.threshold();
        let counts = index.status_counts(query, threshold);
        let of_run = if query == &Query::ALL { counts } else { index.status_counts(&Query::ALL, threshold) };
        Self {
            total: counts.total(),
            statuses: named(&counts.all),
            sizes: StatusCounts::SIZES.iter().map(u32::to_string).zip(counts.by_size.iter().map(named)).collect(),
            left: wanted.saturating_sub(of_run.all[FaceStatus::Ok as usize]),
            threshold,
        }
    }
}

fn named(counts: &ByStatus) -> BTreeMap<&'static str, u64> {
    FaceStatus::ALL.iter().map(|status| status.as_str()).zip(counts.iter().copied()).collect()
}

pub async fn counts(State(shared): State<Shared>, _person: Person, uri: Uri) -> Result<Response, ApiError> {
    let query = Params::read(&uri, &["where"])?.query()?;
    let wanted = shared.wanted;
    let counts = shared.index.with(move |index| Counts::of(index, &query, wanted)).await;
    Ok(json_response(StatusCode::OK, &counts))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetThreshold {
    threshold: f64,
}

/// Sets the P(OK) from which a face counts as predicted. The run's history of classifiers records who did.
pub async fn set_threshold(
    State(shared): State<Shared>,
    Curator(person): Curator,
    JsonBody(body): JsonBody<SetThreshold>,
) -> Result<Response, ApiError> {
    let threshold = check_share("threshold", body.threshold)?;
    let history = shared.classifiers.read(&shared.run).await?;
    let no_classifier = "the run has no classifier yet, and so no P(OK): see `facemill models`";
    let current = history.current().ok_or_else(|| ApiError::conflict("no-classifier", no_classifier))?;
    let change = ClassifierChange {
        threshold,
        at: now().as_secs(),
        by: person.name,
        why: "set on the page of curation".into(),
        ..current.clone()
    };
    shared.classifiers.change(&shared.run, change).await?;
    let history = shared.classifiers.read(&shared.run).await?;
    let wanted = shared.wanted;
    let counts = shared.index.with(move |index| {
        index.set_classifier(&history)?;
        Ok::<_, ApiError>(Counts::of(index, &Query::ALL, wanted))
    });
    Ok(json_response(StatusCode::OK, &counts.await?))
}

#[derive(Serialize)]
struct Labels {
    labels: Vec<LabelCount>,
}

#[derive(Serialize)]
struct LabelCount {
    label: String,
    count: u64,
}

#[derive(Serialize)]
struct Hosts {
    hosts: Vec<HostCount>,
}

#[derive(Serialize)]
struct HostCount {
    host: String,
    count: u64,
}

/// The texts that contain what a person has typed, the most frequent first.
async fn complete(shared: &Shared, text: Text, uri: &Uri) -> Result<Vec<(String, u64)>, ApiError> {
    let params = Params::read(uri, &["prefix", "limit"])?;
    let typed = params.text("prefix").unwrap_or_default().to_lowercase();
    let limit = params.number("limit", 20, 1..=MAX_LABELS)?;
    let found = shared.index.with(move |index| {
        let counts = index.count_by(text, &Query::ALL, index.threshold()).into_iter();
        let counts = counts.filter_map(|(text, count)| text.map(|text| (text, count)));
        counts.filter(|(text, _)| text.to_lowercase().contains(&typed)).take(limit).collect()
    });
    Ok(found.await)
}

pub async fn labels(State(shared): State<Shared>, _person: Person, uri: Uri) -> Result<Response, ApiError> {
    let labels = complete(&shared, Text::Label, &uri).await?.into_iter();
    let labels = labels.map(|(label, count)| LabelCount { label, count }).collect();
    Ok(json_response(StatusCode::OK, &Labels { labels }))
}

pub async fn hosts(State(shared): State<Shared>, _person: Person, uri: Uri) -> Result<Response, ApiError> {
    let hosts = complete(&shared, Text::Host, &uri).await?.into_iter();
    let hosts = hosts.map(|(host, count)| HostCount { host, count }).collect();
    Ok(json_response(StatusCode::OK, &Hosts { hosts }))
}

/// How many faces of a query each label has, the most frequent first.
pub async fn label_counts(State(shared): State<Shared>, _person: Person, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["where", "limit"])?;
    let (query, limit) = (params.query()?, params.number("limit", 100, 1..=MAX_LABELS)?);
    let counts = shared.index.with(move |index| index.count_by(Text::Label, &query, index.threshold())).await;
    let labels = counts.into_iter().filter_map(|(label, count)| Some(LabelCount { label: label?, count }));
    Ok(json_response(StatusCode::OK, &Labels { labels: labels.take(limit).collect() }))
}
