//! The spans of a photo's trace: its root, and one for each message that is sent and each delivery that is processed.
//!
//! Names and attributes follow OpenTelemetry where it defines them
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>); ours begin with `facemill.`. Without a
//! trace exporter they cost almost nothing.

use opentelemetry::trace::{SpanContext, Status};
use opentelemetry::{KeyValue, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::broker::Broker;
use crate::domain::Message;
use crate::domain::{Cause, Facts, Photo, StageName};
use crate::net::spans::without_secrets;
use crate::telemetry::{LogContext, context};

/// The root of a photo's trace: from its registration until its first message is confirmed. Its ids are derived from
/// run and photo id.
pub fn root(photo: &Photo) -> Span {
    let span = tracing::trace_span!(parent: None, "photo");
    if !span.is_disabled() {
        context::start_root(&span, photo.key().trace());
        about_photo(&span, photo);
        if let Ok(url) = url::Url::parse(&photo.candidate.photo_url) {
            set(&span, "url.full", without_secrets(url));
        }
    }
    span
}

/// The span of publishing a message, until the broker has confirmed it.
pub fn send(message: &Message, broker: &dyn Broker) -> Span {
    let span = tracing::trace_span!("send", otel.kind = "producer");
    if !span.is_disabled() {
        // A requeue runs outside the trace of the photo.
        if let (None, Some(parent)) = (context::of(&Span::current()), trace_context(message)) {
            context::continue_from(&span, parent);
        }
        messaging(&span, message, broker, "send");
    }
    span
}

/// The span of processing a delivery, until the next message is published. `bytes`: the size of the message's body.
///
/// It exists without a trace exporter too: log lines take the photo from it.
pub fn process(message: &Message, bytes: usize, redelivered: bool, broker: &dyn Broker, worker: &str) -> Span {
    // At the highest level, so that no log filter removes it.
    let span = tracing::error_span!(parent: None, "process", otel.kind = "consumer");
    if let Some(parent) = trace_context(message) {
        context::continue_from(&span, parent);
    }
    let context = context::of(&span);
    if context.is_some() {
        messaging(&span, message, broker, "process");
        set(&span, "messaging.message.body.size", bytes as i64);
        set(&span, "facemill.redelivered", redelivered);
        set(&span, "facemill.worker", worker.to_owned());
        about_photo(&span, &message.photo);
    }
    let about = LogContext {
        photo: message.photo.key().to_string(),
        stage: message.position.stage.as_str(),
        attempt: message.attempt,
        trace_id: message.photo.key().trace().trace_id_hex(),
        span_id: context.map(|context| context.span_id().to_string()),
    };
    about.attach(&span);
    span
}

/// The span that published the message.
fn trace_context(message: &Message) -> Option<SpanContext> {
    message.traceparent.as_deref().and_then(context::read)
}

/// The span of a call to the ledger. <https://opentelemetry.io/docs/specs/semconv/database/database-spans/>
pub fn ledger(system: &'static str, operation: &'static str) -> Span {
    tracing::trace_span!(
        "ledger",
        otel.name = format!("ledger.{operation}"),
        otel.kind = "client",
        db.system.name = system,
        db.operation.name = operation
    )
}

/// Marks a span as failed. `kind`: the class of the error.
pub fn failed(span: &Span, kind: &'static str, error: &dyn std::fmt::Display) {
    if !span.is_disabled() {
        set(span, "error.type", kind);
        span.set_status(Status::error(error.to_string()));
    }
}

/// Adds the results of a stage to a span.
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

/// Adds a cause to a span as an exception. <https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/>
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
