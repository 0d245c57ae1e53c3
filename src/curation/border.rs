//! The border: what lies around a P(OK), what accepting all above it would give, and how sure that is.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use super::access::Person;
use super::card::{Card, RelatedFaces};
use super::entries::ticket;
use super::error::{ApiError, json_response};
use super::request::Params;
use super::state::Shared;
use super::tickets::TicketKey;
use crate::dataset::face::{FIELDS, Number};
use crate::dataset::interval::EstimatedShare;
use crate::dataset::page::{Order, Sort};
use crate::dataset::query::{Operator, Value};
use crate::dataset::{Direction, Index, IndexError, Query};
use crate::domain::Selection;

/// Crops that are shown on each side.
const AROUND: usize = 12;
const BINS: usize = 50;

#[derive(Serialize)]
struct Border {
    p: f64,
    /// Unjudged faces with a P(OK) at or above `p`, below it, and all unjudged ones.
    above: u64,
    below: u64,
    unjudged: u64,
    /// Unjudged crops around `p`, best first.
    crops: Vec<Card>,
    precision: Option<Precision>,
    histogram: Histogram,
}

/// The share of OK at or above `p`, from pictures of the whole run that were chosen at random and judged singly.
#[derive(Serialize)]
struct Precision {
    n: u64,
    ok: u64,
    #[serde(flatten)]
    share: EstimatedShare,
}

/// Unjudged faces by P(OK), in equal parts of 0 to 1.
#[derive(Serialize)]
struct Histogram {
    bins: Vec<u64>,
}

pub async fn border(State(shared): State<Shared>, person: Person, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["p", "where"])?;
    let (query, p) = (params.query()?, params.number("p", 0.5, 0.0..=1.0)?);
    let tickets = shared.clone();
    let border = shared.index.with(move |index| {
        let rows = index.unjudged(&index.rows(&query, index.threshold()));
        let (bins, above, below) = index.p_ok_histogram(&rows, p, BINS);
        let crops = around(index, &query, p, &tickets.tickets, &person.name)?;
        let precision = match index.model() {
            Some(model) => {
                let sample = index.random_sample(model, p)?;
                let share = EstimatedShare::of(sample.ok, sample.judged);
                share.map(|share| Precision { n: sample.judged, ok: sample.ok, share })
            }
            None => None,
        };
        let histogram = Histogram { bins };
        Ok::<_, IndexError>(Border { p, above, below, unjudged: rows.count(), crops, precision, histogram })
    });
    Ok(json_response(StatusCode::OK, &border.await?))
}

/// A query for those whose P(OK) is on one side of `p`.
pub fn beside(query: &Query, operator: Operator, p: f64) -> Query {
    let field = &FIELDS[Number::POk as usize];
    Query::And(vec![query.clone(), Query::Compare(field, operator, Value::Number(p))])
}

fn around(index: &Index, query: &Query, p: f64, tickets: &TicketKey, person: &str) -> Result<Vec<Card>, IndexError> {
    let threshold = index.threshold();
    let nearest = |operator, direction| {
        let rows = index.unjudged(&index.rows(&beside(query, operator, p), threshold));
        index.first(&rows, Order { sort: Sort::By(Number::POk), direction }, threshold, None, AROUND)
    };
    let above = nearest(Operator::GreaterOrEqual, Direction::Ascending);
    let below = nearest(Operator::Less, Direction::Descending);
    let mut cards = Vec::new();
    for row in above.into_iter().rev().chain(below) {
        let Some(face) = index.face_of(row)? else { continue };
        let (verdicts, keys) = (index.verdicts_on(face.crop)?, index.keys_of_crop(face.crop)?);
        let related = RelatedFaces::of(index, row, &keys)?;
        let sealed = tickets.seal(&ticket(index, &face, Selection::Filter, person));
        cards.push(Card::of(&face, &verdicts, related, threshold, sealed));
    }
    Ok(cards)
}
