//! The training that a server runs: one at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::error::ApiError;
use super::feature_settings::FeatureSettings;
use crate::domain::clock::now;
use crate::services::training::{RunTraining, TrainingStep};

/// The training of this server, if there was one.
pub struct TrainingJob {
    pub features: FeatureSettings,
    state: Mutex<TrainingState>,
}

/// How far the training is, or how the last one ended. `at`: when it started or ended, in milliseconds since 1970.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum TrainingState {
    Idle,
    Running {
        by: String,
        at: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<TrainingStep>,
    },
    Done {
        by: String,
        at: u64,
        training: Box<RunTraining>,
    },
    Failed {
        by: String,
        at: u64,
        message: String,
    },
}

impl TrainingJob {
    pub fn new(features: FeatureSettings) -> Self {
        Self { features, state: Mutex::new(TrainingState::Idle) }
    }

    /// How far it is.
    pub fn state(&self) -> TrainingState {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, TrainingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// A training runs.
    pub fn begin(&self, by: &str) -> Result<(), ApiError> {
        let mut state = self.lock();
        if let TrainingState::Running { by, .. } = &*state {
            return Err(ApiError::conflict("training", format!("{by} trains at the moment: wait until it has ended")));
        }
        *state = TrainingState::Running { by: by.to_owned(), at: milliseconds(), progress: None };
        Ok(())
    }

    pub fn report(&self, step: TrainingStep) {
        if let TrainingState::Running { progress, .. } = &mut *self.lock() {
            *progress = Some(step);
        }
    }

    pub fn end(&self, by: String, trained: Result<RunTraining, String>) {
        let at = milliseconds();
        *self.lock() = match trained {
            Ok(training) => TrainingState::Done { by, at, training: Box::new(training) },
            Err(message) => TrainingState::Failed { by, at, message },
        };
    }
}

fn milliseconds() -> u64 {
    now().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;
    use crate::inference::Models;

    #[test]
    fn one_training_runs_at_a_time_and_reports_its_steps() {
        let features = FeatureSettings { models: Models::at("nowhere"), store: "nowhere".into(), most_bytes: 1 };
        let job = TrainingJob::new(features);
        let shown = || serde_json::to_value(&*job.lock()).unwrap();
        assert_eq!(shown()["state"], "idle");
        job.begin("ada").unwrap();
        assert_eq!(
            (&shown()["state"], &shown()["by"], shown().get("progress")),
            (&"running".into(), &"ada".into(), None)
        );
        let refused = job.begin("grace").unwrap_err();
        assert_eq!((refused.status, refused.code), (StatusCode::CONFLICT, "training"));
        job.report(TrainingStep::Features { done: 3, of: 9 });
        assert_eq!(shown()["progress"], serde_json::json!({ "step": "features", "done": 3, "of": 9 }));
        job.end("ada".into(), Err("too few verdicts".into()));
        assert_eq!((&shown()["state"], &shown()["message"]), (&"failed".into(), &"too few verdicts".into()));
        job.report(TrainingStep::Fits { done: 1, of: 2 });
        job.begin("grace").unwrap();
        assert_eq!(shown()["by"], "grace");
    }
}
