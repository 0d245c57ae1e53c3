//! The trace context that messages carry from process to process.
//! <https://www.w3.org/TR/trace-context/>

use std::cell::Cell;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::domain::Trace;

/// Parses a `traceparent` header. None: it is invalid or has an unknown version.
pub fn read(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if ![trace, span, flags].into_iter().all(is_hex) {
        return None;
    }
    if version != "00" || (trace.len(), span.len(), flags.len()) != (32, 16, 2) || parts.next().is_some() {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE)).filter(SpanContext::is_valid)
}

/// Formats a `traceparent` header.
pub fn write(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

/// The trace context of a span. None: traces are off.
pub fn of(span: &Span) -> Option<SpanContext> {
    let context = span.context();
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Makes a span the child of a span in another process.
pub fn continue_from(span: &Span, parent: SpanContext) {
    // This fails if traces are off; then there is nothing to continue.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Makes a span the root of a photo's trace, with the ids derived from the photo.
pub fn start_root(span: &Span, trace: Trace) {
    let _ = span.set_parent(Context::new());
    ROOT_IDS.set(Some(trace));
    let _started = span.context();
    ROOT_IDS.set(None);
}

thread_local! {
    /// The ids for the span that [`start_root`] starts on this thread.
    static ROOT_IDS: Cell<Option<Trace>> = const { Cell::new(None) };
}

/// Generates random ids, except for the roots of photos.
#[derive(Debug, Default)]
pub(super) struct TraceIds(RandomIdGenerator);

impl IdGenerator for TraceIds {
    fn new_trace_id(&self) -> TraceId {
        ROOT_IDS.get().map_or_else(|| self.0.new_trace_id(), |trace| TraceId::from_bytes(trace.trace_id))
    }

    fn new_span_id(&self) -> SpanId {
        ROOT_IDS.get().map_or_else(|| self.0.new_span_id(), |trace| SpanId::from_bytes(trace.root_span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_round_trip() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = read(header).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(write(&context), header);
        assert!(!read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap().is_sampled());
    }

    #[test]
    fn invalid_headers_are_none() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-+1",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
