//! The spans of a photo's trace: its root, and one for every time that it is sent to a queue and taken from it.
//!
//! Names and attributes are those of OpenTelemetry where it has some
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>); ours begin with `facemill.`. They cost next
//! to nothing where nobody traces.

use opentelemetry::trace::{SpanContext, Status};
use opentelemetry::{KeyValue, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::broker::Broker;
use crate::domain::Message;
use crate::domain::{Cause, Facts, Photo, StageName};
use crate::net::spans::without_secrets;
use crate::telemetry::{About, context};

/// The root of a photo's trace: from the moment it is taken in until its first message is confirmed. Its ids follow from
/// run and photo id.
pub fn root(photo: &Photo) -> Span {
    let span = tracing::trace_span!(parent: None, "photo");
    if !span.is_disabled() {
        context::begin(&span, photo.key().trace());
        about_photo(&span, photo);
        if let Ok(url) = url::Url::parse(&photo.candidate.photo_url) {
            set(&span, "url.full", without_secrets(url));
        }
    }
    span
}

/// A message on its way to the queue of its stage, until the broker has confirmed it.
pub fn send(message: &Message, broker: &dyn Broker) -> Span {
    let span = tracing::trace_span!("send", otel.kind = "producer");
    if !span.is_disabled() {
        // Who sends a photo back stands outside its trace.
        if let (None, Some(parent)) = (context::of(&Span::current()), place_of(message)) {
            context::continue_from(&span, parent);
        }
        messaging(&span, message, broker, "send");
    }
    span
}

/// A delivery in the hands of a worker, until the photo was handed on. `bytes`: of the message's body.
///
/// It is there whether somebody traces or not: the log's lines take from it which photo they are about.
pub fn process(message: &Message, bytes: usize, redelivered: bool, broker: &dyn Broker, worker: &str) -> Span {
    // The highest level, so that it is there for every line that is logged at all.
    let span = tracing::error_span!(parent: None, "process", otel.kind = "consumer");
    if let Some(parent) = place_of(message) {
        context::continue_from(&span, parent);
    }
    let place = context::of(&span);
    if place.is_some() {
        messaging(&span, message, broker, "process");
        set(&span, "messaging.message.body.size", bytes as i64);
        set(&span, "facemill.redelivered", redelivered);
        set(&span, "facemill.worker", worker.to_owned());
        about_photo(&span, &message.photo);
    }
    let about = About {
        photo: message.photo.key().to_string(),
        stage: message.position.stage.as_str(),
        attempt: message.attempt,
        trace_id: message.photo.key().trace().trace_id_hex(),
        span_id: place.map(|place| place.span_id().to_string()),
    };
    about.note(&span);
    span
}

/// Where in its trace the photo was when the message was written.
fn place_of(message: &Message) -> Option<SpanContext> {
    message.traceparent.as_deref().and_then(context::read)
}

/// A question to the ledger, or a move in it. <https://opentelemetry.io/docs/specs/semconv/database/database-spans/>
pub fn ledger(system: &'static str, operation: &'static str) -> Span {
    let (name, kind) = (operation, "client");
    tracing::trace_span!(
        "ledger",
        otel.name = name,
        otel.kind = kind,
        db.system.name = system,
        db.operation.name = operation
    )
}

/// Says on a span that it failed. `kind`: one of few words.
pub fn failed(span: &Span, kind: &'static str, error: &dyn std::fmt::Display) {
    if !span.is_disabled() {
        set(span, "error.type", kind);
        span.set_status(Status::error(error.to_string()));
    }
}

/// What a stage has found out.
pub(super) fn facts(span: &Span, stage: StageName, facts: &Facts) {
    match stage {
        StageName::Fetch => {
            if let Some(original) = &facts.original {
                set(span, "facemill.bytes", original.bytes as i64);
                set(span, "facemill.format", original.format.extension());
            }
        }
        StageName::Detect => {
            if let Some(face) = &facts.face {
                set(span, "facemill.angle", face.angle);
                set(span, "facemill.score", face.score);
                set(span, "facemill.faces", i64::from(face.faces));
            }
        }
        StageName::Crop => {
            if let Some(crop) = &facts.crop {
                set(span, "facemill.angle", crop.angle);
                set(span, "facemill.size", i64::from(crop.size));
                set(span, "facemill.mirrored", crop.mirrored);
            }
        }
        StageName::Classify => {
            if let Some(prediction) = &facts.prediction {
                set(span, "facemill.p_ok", prediction.p_ok);
                set(span, "facemill.model", prediction.model.clone());
            }
        }
    }
}

/// <https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/>
pub(super) fn exception(span: &Span, cause: &Cause) {
    let attributes = vec![
        KeyValue::new("exception.type", cause.code.to_string()),
        KeyValue::new("exception.message", cause.detail.clone()),
    ];
    span.add_event("exception", attributes);
}

fn messaging(span: &Span, message: &Message, broker: &dyn Broker, operation: &'static str) {
    let (stage, queue) = (message.position.stage, broker.queue(message.position.stage));
    set(span, "messaging.system", broker.system());
    set(span, "messaging.operation.name", operation);
    set(span, "messaging.operation.type", operation);
    set(span, "messaging.message.id", message.id());
    set(span, "facemill.stage", stage.as_str());
    set(span, "facemill.attempt", i64::from(message.attempt));
    set(span, "facemill.delivery", i64::from(message.position.delivery));
    let context = span.context();
    let span_ref = opentelemetry::trace::TraceContextExt::span(&context);
    span_ref.update_name(format!("{operation} {queue}"));
    set(span, "messaging.destination.name", queue);
}

fn about_photo(span: &Span, photo: &Photo) {
    let candidate = &photo.candidate;
    set(span, "facemill.run", photo.run.to_string());
    set(span, "facemill.photo_id", candidate.photo_id.to_string());
    set(span, "facemill.label_id", candidate.label_id.to_string());
    if let Some(label) = &candidate.label_name {
        set(span, "facemill.label", label.clone());
    }
}

pub(super) fn set(span: &Span, key: &'static str, value: impl Into<Value>) {
    span.set_attribute(key, value);
}
