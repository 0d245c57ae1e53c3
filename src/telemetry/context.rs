//! Where in its trace a photo is: what its messages carry from process to process.
//! <https://www.w3.org/TR/trace-context/>

use std::cell::Cell;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::domain::Trace;

/// Reads a `traceparent` header. None: it is not one of the version that we know.
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

/// Writes a `traceparent` header.
pub fn write(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

/// Where a span stands. None: nobody traces it.
pub fn of(span: &Span) -> Option<SpanContext> {
    let context = span.context();
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Makes a span the child of one in another process.
pub fn continue_from(span: &Span, parent: SpanContext) {
    // It fails where nobody traces: then there is nothing to continue.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Makes a span the root of a photo's trace: with the ids that whoever knows the photo can work out.
pub fn begin(span: &Span, trace: Trace) {
    let _ = span.set_parent(Context::new());
    LENT.set(Some(trace));
    let _started = span.context();
    LENT.set(None);
}

thread_local! {
    /// The ids for the span that [`begin`] starts on this thread.
    static LENT: Cell<Option<Trace>> = const { Cell::new(None) };
}

/// Random ids, but for the roots of photos.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        LENT.get().map_or_else(|| self.0.new_trace_id(), |trace| TraceId::from_bytes(trace.trace_id))
    }

    fn new_span_id(&self) -> SpanId {
        LENT.get().map_or_else(|| self.0.new_span_id(), |trace| SpanId::from_bytes(trace.root_span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_way_there_and_back() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = read(header).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(write(&context), header);
        assert!(!read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap().is_sampled());
    }

    #[test]
    fn what_is_no_header_is_none() {
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
