//! Requests for the balance of faces.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::access::Person;
use super::error::{ApiError, json_response};
use super::request::Params;
use super::state::Shared;
use crate::dataset::caps::Caps;
use crate::dataset::face::Number;
use crate::dataset::page::{Direction, Order, Sort};

const MAX_NAMED: usize = 1000;

/// How the faces of a query are spread, and what caps would do to that. The faces with the highest P(OK) are left, as in
/// an export.
pub async fn balance(State(shared): State<Shared>, _person: Person, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["where", "limit", "max_per_label", "max_per_identity"])?;
    let (query, named) = (params.query()?, params.number("limit", 20, 1..=MAX_NAMED)?);
    // 0 stands for no cap.
    let cap = |name| Ok::<_, ApiError>(Some(params.number(name, 0, 0..=usize::MAX)?).filter(|most| *most > 0));
    let caps = Caps { per_label: cap("max_per_label")?, per_identity: cap("max_per_identity")? };
    let order = Order { sort: Sort::By(Number::POk), direction: Direction::Descending };
    let balance = shared.index.with(move |index| index.balance(&query, index.threshold(), order, caps, named)).await;
    Ok(json_response(StatusCode::OK, &balance))
}
