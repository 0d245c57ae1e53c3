//! Tail sampling: keeps the spans of sampled photos, and those of failed deliveries.
//!
//! The head sampler decides before the outcome of a photo is known. So the spans of unsampled photos are recorded as
//! well, and buffered here until the span of their delivery (the only one of kind "consumer"; that of a verdict is of kind
//! "server") ends; its attribute [`KEEP`] says whether they are kept. Spans of earlier stages are gone by then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SamplingDecision, SamplingResult, ShouldSample, Span, SpanData, SpanExporter, SpanProcessor,
};

/// The attribute of a delivery's span that keeps its spans, if true.
pub const KEEP: &str = "facemill.keep";

/// A sampler that records what the sampler inside drops.
#[derive(Debug, Clone)]
pub(super) struct BufferedSpan<S>(pub S);

impl<S: ShouldSample + Clone + 'static> ShouldSample for BufferedSpan<S> {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.0.should_sample(parent, trace_id, name, kind, attributes, links);
        if result.decision == SamplingDecision::Drop {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

/// Counts the spans that did not reach the collector.
#[derive(Debug, Default)]
pub struct LostSpans {
    /// The queue was full: the collector is too slow.
    overflow: AtomicU64,
    /// The collector refused them or was unavailable.
    refused: AtomicU64,
}

impl LostSpans {
    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    pub fn total(&self) -> u64 {
        self.overflow() + self.refused()
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Counts the spans that are queued for the collector, up to a capacity.
#[derive(Debug, Clone)]
pub(super) struct SpanQueue {
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    pub lost: Arc<LostSpans>,
}

impl SpanQueue {
    pub fn new(capacity: usize) -> Self {
        Self { waiting: Arc::default(), capacity, lost: Arc::default() }
    }

    /// Reserves a slot for one span. False: the queue is full, and the span is counted as lost.
    fn enter(&self) -> bool {
        let fits = self.waiting.fetch_add(1, Ordering::AcqRel) < self.capacity;
        if !fits {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.lost.overflow.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn leave(&self, spans: usize, arrived: bool) {
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        if !arrived && self.lost.refused.fetch_add(spans as u64, Ordering::Relaxed) == 0 {
            tracing::warn!(spans, "the collector does not accept spans; lost spans are counted");
        }
    }
}

/// An exporter that counts lost spans.
#[derive(Debug)]
pub(super) struct CountingExporter<E> {
    pub exporter: E,
    pub queue: SpanQueue,
}

impl<E: SpanExporter> SpanExporter for CountingExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        self.queue.leave(spans, exported.is_ok());
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A span processor that passes on the spans to keep.
#[derive(Debug)]
pub(super) struct TailSampler<P> {
    next: P,
    queue: SpanQueue,
    undecided: Mutex<HashMap<TraceId, Vec<SpanData>>>,
}

impl<P: SpanProcessor> TailSampler<P> {
    /// Limit of buffered spans per delivery; usually there are a few dozen.
    const MAX_SPANS: usize = 256;
    /// Limit of deliveries with buffered spans: more than are ever in work.
    const MAX_DELIVERIES: usize = 4096;

    pub fn new(next: P, queue: SpanQueue) -> Self {
        Self { next, queue, undecided: Mutex::default() }
    }

    fn pass(&self, span: SpanData) {
        if self.queue.enter() {
            self.next.on_end(span);
        }
    }

    /// Buffers, keeps or drops a span of an unsampled photo.
    fn decide(&self, span: SpanData) {
        let trace = span.span_context.trace_id();
        // A verdict of a person is in the trace of its photo, too, and nothing is decided after it.
        let is_delivery = matches!(span.span_kind, SpanKind::Consumer | SpanKind::Server);
        let is_root = span.parent_span_id == SpanId::INVALID;
        let mut undecided = self.undecided.lock().unwrap_or_else(PoisonError::into_inner);
        if is_delivery || is_root {
            let waiting = undecided.remove(&trace).unwrap_or_default();
            drop(undecided);
            if is_delivery && is_kept(&span) {
                waiting.into_iter().chain([span]).map(sampled).for_each(|span| self.pass(span));
            }
        } else if undecided.len() < Self::MAX_DELIVERIES || undecided.contains_key(&trace) {
            let waiting = undecided.entry(trace).or_default();
            if waiting.len() < Self::MAX_SPANS {
                waiting.push(span);
            }
        }
    }
}

fn is_kept(delivery: &SpanData) -> bool {
    delivery.attributes.iter().any(|attribute| attribute.key.as_str() == KEEP && attribute.value == Value::Bool(true))
}

fn sampled(mut span: SpanData) -> SpanData {
    let old = &span.span_context;
    let flags = old.trace_flags().with_sampled(true);
    span.span_context =
        SpanContext::new(old.trace_id(), old.span_id(), flags, old.is_remote(), old.trace_state().clone());
    span
}

impl<P: SpanProcessor> SpanProcessor for TailSampler<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.next.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() { self.pass(span) } else { self.decide(span) }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{Span as _, TraceContextExt, Tracer, TracerProvider};
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

    #[derive(Debug, Default, Clone)]
    struct Collected(Arc<Mutex<Vec<SpanData>>>);

    impl Collected {
        fn names(&self) -> Vec<String> {
            self.0.lock().unwrap().iter().map(|span| span.name.to_string()).collect()
        }
    }

    impl SpanProcessor for Collected {
        fn on_start(&self, _: &mut Span, _: &Context) {}

        fn on_end(&self, span: SpanData) {
            assert!(span.span_context.is_sampled(), "exporters skip unsampled spans");
            self.0.lock().unwrap().push(span);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    /// Records a delivery with one step. `keep`: the value of the attribute [`KEEP`].
    fn deliver(provider: &SdkTracerProvider, keep: Option<bool>) {
        let tracer = provider.tracer("test");
        let parent = SpanContext::new(
            TraceId::from(7),
            SpanId::from(7),
            opentelemetry::TraceFlags::default(),
            true,
            opentelemetry::trace::TraceState::NONE,
        );
        let context = Context::new().with_remote_span_context(parent);
        let delivery = tracer.span_builder("process").with_kind(SpanKind::Consumer);
        let delivery = delivery.start_with_context(&tracer, &context);
        let context = context.with_span(delivery);
        tracer.span_builder("step").start_with_context(&tracer, &context).end();
        if let Some(keep) = keep {
            context.span().set_attribute(KeyValue::new(KEEP, keep));
        }
        context.span().end();
    }

    fn provider(sampler: Sampler, capacity: usize) -> (SdkTracerProvider, Collected, SpanQueue) {
        let (collected, queue) = (Collected::default(), SpanQueue::new(capacity));
        let tail_sampler = TailSampler::new(collected.clone(), queue.clone());
        let provider =
            SdkTracerProvider::builder().with_sampler(BufferedSpan(sampler)).with_span_processor(tail_sampler).build();
        (provider, collected, queue)
    }

    #[test]
    fn unsampled_spans_are_kept_on_failure() {
        let (provider, collected, _) = provider(Sampler::AlwaysOff, 100);
        deliver(&provider, None);
        deliver(&provider, Some(false));
        assert!(collected.names().is_empty());
        deliver(&provider, Some(true));
        assert_eq!(collected.names(), ["step", "process"]);
        let tracer = provider.tracer("test");
        let parent = SpanContext::new(
            TraceId::from(8),
            SpanId::from(8),
            opentelemetry::TraceFlags::default(),
            true,
            opentelemetry::trace::TraceState::NONE,
        );
        let context = Context::new().with_remote_span_context(parent);
        tracer.span_builder("verdict").with_kind(SpanKind::Server).start_with_context(&tracer, &context).end();
        assert_eq!(collected.names(), ["step", "process"], "an unsampled verdict is dropped, and not buffered");
    }

    #[test]
    fn sampled_spans_pass() {
        let (provider, collected, _) = provider(Sampler::AlwaysOn, 100);
        deliver(&provider, None);
        assert_eq!(collected.names(), ["step", "process"]);
    }

    #[test]
    fn lost_spans_are_counted() {
        let (provider, collected, queue) = provider(Sampler::AlwaysOn, 3);
        deliver(&provider, None);
        deliver(&provider, None);
        assert_eq!((collected.names().len(), queue.lost.overflow()), (3, 1));
        queue.leave(3, true);
        deliver(&provider, None);
        assert_eq!((collected.names().len(), queue.lost.overflow()), (5, 1));
        queue.leave(2, false);
        assert_eq!((queue.lost.refused(), queue.lost.total()), (2, 3));
    }
}
