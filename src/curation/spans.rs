//! A verdict is a span in the trace of its photo.

use opentelemetry::Value;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::domain::{PhotoKey, RunName, Verdict};
use crate::telemetry::context;

/// A span below the root of the photo's trace, from the request until the verdict is durable. Without a trace exporter
/// it costs almost nothing. It does not name the person.
pub fn verdict(run: &RunName, verdict: &Verdict) -> Span {
    let span = tracing::trace_span!(parent: None, "verdict", otel.kind = "server");
    if span.is_disabled() {
        return span;
    }
    let key = PhotoKey { run: run.clone(), photo_id: verdict.photo_id.clone() };
    if let Some(root) = context::read(&key.trace().traceparent()) {
        context::continue_from(&span, root);
    }
    let set = |name: &'static str, value: Value| span.set_attribute(name, value);
    set("facemill.run", run.to_string().into());
    set("facemill.photo_id", verdict.photo_id.to_string().into());
    set("facemill.verdict.id", verdict.id.to_string().into());
    set("facemill.judgement", verdict.judgement.as_str().into());
    set("facemill.selection", verdict.selection.as_str().into());
    set("facemill.view", verdict.view.as_str().into());
    if let Some(reason) = verdict.reason {
        set("facemill.reason", reason.as_str().into());
    }
    if let Some(seen) = &verdict.seen {
        set("facemill.p_ok", seen.p_ok.into());
    }
    span
}

/// What became of the verdict, or why it was not stored.
pub fn finish(span: &Span, result: Result<&'static str, &dyn std::fmt::Display>) {
    match result {
        Ok(result) => span.set_attribute("facemill.result", result),
        Err(error) => span.set_status(opentelemetry::trace::Status::error(error.to_string())),
    }
}
