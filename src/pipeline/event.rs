//! The events of photos in a pipeline: each is logged, counted, traced and observed in one place.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::Status;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::spans;
use crate::domain::{Photo, PhotoKey, StageName};
use crate::ledger::{Event, EventKind};
use crate::telemetry::{KEEP, context, instruments};

/// A move of a photo that the ledger has just stored.
pub struct PhotoEvent<'a> {
    pub photo: &'a Photo,
    pub event: &'a Event,
    /// Whether the photo waits without using up an attempt.
    pub waits: bool,
}

impl PhotoEvent<'_> {
    /// Writes the event to the log, the metrics and the span of the delivery.
    pub fn emit(&self, delivery: &Span) {
        self.log();
        self.count();
        self.annotate(delivery);
    }

    fn log(&self) {
        let Event { what, took_ms, .. } = *self.event;
        let (outcome, cause) = (what.as_str(), self.event.cause.as_ref().map(tracing::field::display));
        // `HostFaults` logs those of a host, once for all its photos.
        let is_of_host = self.event.cause.as_ref().is_some_and(|cause| cause.code.is_of_host());
        match what {
            EventKind::Failed | EventKind::Retried if is_of_host => {
                tracing::debug!(outcome, cause, took_ms, "the photo's host cannot be reached");
            }
            EventKind::Failed => tracing::warn!(outcome, cause, took_ms, "photo failed"),
            EventKind::Retried if !self.waits => tracing::info!(outcome, cause, took_ms, "photo will be retried"),
            EventKind::Retried => tracing::debug!(outcome, cause, took_ms, "photo waits"),
            _ => tracing::debug!(outcome, cause, took_ms, "photo advanced or ended"),
        }
    }

    fn count(&self) {
        let Some(instruments) = instruments::get() else { return };
        let (event, outcome) = (self.event, self.event.what.as_str());
        let cause = event.cause.as_ref().map_or_else(Cow::default, |cause| cause.code.as_str());
        instruments.photo(event.stage, outcome, &cause, Duration::from_millis(event.took_ms.into()));
        if event.stage == StageName::Fetch {
            instruments.fetch(&self.photo.candidate.host(), outcome);
        }
    }

    /// Writes the outcome to the span of the delivery.
    fn annotate(&self, delivery: &Span) {
        if context::of(delivery).is_none() {
            return;
        }
        let (event, cause) = (self.event, self.event.cause.as_ref());
        spans::set(delivery, "facemill.outcome", event.what.as_str());
        if let Some(cause) = cause {
            spans::set(delivery, "facemill.cause", cause.code.to_string());
            spans::exception(delivery, cause);
        }
        // A rejected photo is an answer, not an error. A wait that costs no attempt is none either.
        if event.what == EventKind::Failed || (event.what == EventKind::Retried && !self.waits) {
            let code = cause.map_or_else(|| "_OTHER".to_owned(), |cause| cause.code.to_string());
            spans::set(delivery, "error.type", code);
            delivery.set_status(Status::error(cause.map(ToString::to_string).unwrap_or_default()));
            spans::set(delivery, KEEP, true);
        } else {
            spans::facts(delivery, event.stage, &self.photo.facts);
        }
    }

    /// The event as one JSON object.
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

/// Receives the events of a worker. Called for every photo: it must be fast and must not block.
pub trait Observer: Send + Sync {
    fn on_event(&self, event: &PhotoEvent<'_>);

    /// A worker has started on a delivery.
    fn on_delivery(&self) {}

    /// A worker has finished with a delivery, also after a failure.
    fn on_done(&self) {}

    /// A delivery was acknowledged.
    fn on_ack(&self) {}
}

/// Ignores all events.
pub struct NullObserver;

impl Observer for NullObserver {
    fn on_event(&self, _: &PhotoEvent<'_>) {}
}

/// Passes events on to several observers.
impl Observer for Vec<Arc<dyn Observer>> {
    fn on_event(&self, event: &PhotoEvent<'_>) {
        self.iter().for_each(|observer| observer.on_event(event));
    }

    fn on_delivery(&self) {
        self.iter().for_each(|observer| observer.on_delivery());
    }

    fn on_done(&self) {
        self.iter().for_each(|observer| observer.on_done());
    }

    fn on_ack(&self) {
        self.iter().for_each(|observer| observer.on_ack());
    }
}
