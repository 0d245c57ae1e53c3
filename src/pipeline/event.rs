//! What happens to photos while a pipeline runs, told once and to everyone alike.

use std::sync::Arc;

use crate::ledger::{Event, Happening};
use crate::photo::{Photo, PhotoKey, StageName};

/// A step of a photo that the ledger has just written down.
pub struct Happened<'a> {
    pub photo: &'a Photo,
    pub event: &'a Event,
}

impl Happened<'_> {
    /// The one line that the log gets of it.
    pub fn log(&self) {
        let (event, key) = (self.event, self.photo.key());
        let trace_id = key.trace().trace_id_hex();
        let (stage, attempt, took_ms) = (event.stage.as_str(), event.attempt, event.took_ms);
        let what = event.what.as_str();
        let cause = event.cause.as_ref().map(tracing::field::display);
        match event.what {
            Happening::Failed => tracing::warn!(photo = %key, stage, what, cause, attempt, took_ms, trace_id),
            Happening::Retried => tracing::info!(photo = %key, stage, what, cause, attempt, took_ms, trace_id),
            _ => tracing::debug!(photo = %key, stage, what, cause, attempt, took_ms, trace_id),
        }
    }

    /// The same for programs: one JSON object.
    pub fn json(&self) -> serde_json::Value {
        let PhotoKey { run, photo_id } = self.photo.key();
        serde_json::json!({
            "at_ms": self.event.at_ms,
            "run": run,
            "photo_id": photo_id,
            "stage": self.event.stage,
            "what": self.event.what,
            "cause": self.event.cause,
            "attempt": self.event.attempt,
            "took_ms": self.event.took_ms,
        })
    }
}

/// Wants to know what happens. It is called on the way of every photo: it must be quick and must not block.
pub trait Observer: Send + Sync {
    fn happened(&self, happened: &Happened<'_>);

    /// A worker has taken a delivery of this stage up.
    fn taken(&self, stage: StageName) {
        let _ = stage;
    }

    /// A worker is done with a delivery that it took up, one way or the other.
    fn put_down(&self, stage: StageName) {
        let _ = stage;
    }

    /// A delivery was acknowledged.
    fn settled(&self) {}
}

/// Several observers as one.
impl Observer for Vec<Arc<dyn Observer>> {
    fn happened(&self, happened: &Happened<'_>) {
        self.iter().for_each(|observer| observer.happened(happened));
    }

    fn taken(&self, stage: StageName) {
        self.iter().for_each(|observer| observer.taken(stage));
    }

    fn put_down(&self, stage: StageName) {
        self.iter().for_each(|observer| observer.put_down(stage));
    }

    fn settled(&self) {
        self.iter().for_each(|observer| observer.settled());
    }
}
