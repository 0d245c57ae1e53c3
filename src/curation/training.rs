//! Training from the page: one job at a time, beside the requests. The new classifier is stored, and not used yet.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::access::{Curator, Person};
use super::error::{ApiError, json_response};
use super::feature_settings::FeatureSettings;
use super::state::{CurationState, Shared};
use crate::services::judged_crops::judged_crops;
use crate::services::training::{RunTraining, Trainer, train_run};
use crate::training::train::TrainingSettings;

/// The precision of OK for which the threshold is chosen.
const PRECISION: f64 = 0.9;
const SEED: u64 = 1;

pub async fn training(State(shared): State<Shared>, _person: Person) -> Response {
    let state = shared.training.state();
    json_response(StatusCode::OK, &state)
}

/// Starts a training, which goes on without the client.
pub async fn start(State(shared): State<Shared>, Curator(person): Curator) -> Result<Response, ApiError> {
    shared.training.begin(&person.name)?;
    let state = shared.training.state();
    tokio::spawn(async move {
        let (of_job, handle) = (shared.clone(), Handle::current());
        // On a thread of its own, because it computes for minutes.
        let job = spawn_blocking(move || handle.block_on(train(&of_job)));
        let trained = job.await.unwrap_or_else(|panic| Err(format!("it panicked: {panic}")));
        match &trained {
            Ok(training) => tracing::info!(model = training.model, by = person.name, "trained a classifier"),
            Err(message) => tracing::warn!(message, by = person.name, "a training failed"),
        }
        shared.training.end(person.name, trained);
    });
    Ok(json_response(StatusCode::ACCEPTED, &state))
}

async fn train(shared: &Arc<CurationState>) -> Result<RunTraining, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let judged = shared.index.with(|index| judged_crops(index)).await.map_err(|error| text(&error))?;
    let history = shared.classifiers.read(&shared.run).await.map_err(|error| text(&error))?;
    let before = history.current().map(|current| (current.model.clone(), current.threshold));
    let FeatureSettings { models, .. } = &shared.training.features;
    let features = shared.training.features.open_store().map_err(|error| text(&error))?;
    let settings = TrainingSettings {
        seed: SEED,
        precision: PRECISION,
        // The other half is for the people who judge meanwhile.
        threads: std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
        created_from: format!("verdicts on {} crops of run {}", judged.crops.len(), shared.run),
    };
    let of_progress = shared.clone();
    let progress = Arc::new(move |step| of_progress.training.report(step));
    let mut trainer = Trainer::open(models, features, settings, progress).map_err(|error| text(&error))?;
    let trained = train_run(&mut trainer, &shared.objects, &judged, before).await;
    trained.map(|(_, training)| training).map_err(|error| text(&error))
}
