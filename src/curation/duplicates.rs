//! Requests for near-duplicates.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::access::Curator;
use super::error::{ApiError, json_response};
use super::state::Shared;
use crate::domain::Id;
use crate::domain::clock::now;
use crate::services::duplicates::{self, DuplicatesError};

#[derive(Serialize)]
struct Parted {
    /// Crops that left the group.
    parted: usize,
}

/// Takes a face out of its group. Later searches for duplicates keep it apart.
pub async fn part(
    State(shared): State<Shared>,
    Curator(person): Curator,
    Path(photo_id): Path<String>,
) -> Result<Response, ApiError> {
    let photo = Id::new(photo_id);
    let wanted = photo.clone();
    let face = shared.index.with(move |index| index.face(&wanted)).await?;
    let face = face.ok_or_else(|| ApiError::not_found("the run has no face of this photo"))?;
    // A client that hangs up does not stop the work half-way.
    let task = tokio::spawn(async move {
        let stored = &shared.source.duplicates;
        let parted = duplicates::part(stored, &[(photo, face.crop)], &person.name, now().as_secs()).await?;
        shared.source.group(&mut shared.index.clone()).await?;
        Ok::<_, ApiError>(parted)
    });
    let parted = task.await.map_err(ApiError::internal)??;
    Ok(json_response(StatusCode::OK, &Parted { parted }))
}

impl From<DuplicatesError> for ApiError {
    fn from(error: DuplicatesError) -> Self {
        match error {
            DuplicatesError::NoGroup(_) => Self::conflict("no-group", error),
            DuplicatesError::Objects(error) => error.into(),
            error => Self::internal(error),
        }
    }
}
