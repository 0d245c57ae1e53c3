//! Which spans are kept: those of the photos that were sampled, and those of the stages that failed.
//!
//! The sampler decides at the head of a trace, when nobody knows yet what will come. So the spans of a photo that was
//! not sampled are recorded all the same, and wait here until the span of the delivery (the only one of the kind
//! "consumer") ends and says in [`KEEP`] whether they are worth it. They are kept without those of earlier stages, which
//! are gone by then.

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

/// The attribute of a delivery's span that has its spans kept, when it is true.
pub const KEEP: &str = "facemill.tail_sampler";

/// Samples as another sampler does, and records what that one drops.
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

/// What became of spans that did not arrive.
#[derive(Debug, Default)]
pub struct Lost {
    /// There was no room for them: the collector is slower than we are.
    overflow: AtomicU64,
    /// The collector did not take them.
    refused: AtomicU64,
}

impl Lost {
    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    pub fn all(&self) -> u64 {
        self.overflow() + self.refused()
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Counts the spans between the moment they are handed over and the moment they have left.
#[derive(Debug, Clone)]
pub(super) struct Gauge {
    waiting: Arc<AtomicUsize>,
    room: usize,
    pub lost: Arc<Lost>,
}

impl Gauge {
    pub fn new(room: usize) -> Self {
        Self { waiting: Arc::default(), room, lost: Arc::default() }
    }

    /// Whether there is room for one more.
    fn enter(&self) -> bool {
        let fits = self.waiting.fetch_add(1, Ordering::AcqRel) < self.room;
        if !fits {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.lost.overflow.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn leave(&self, spans: usize, arrived: bool) {
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        if !arrived && self.lost.refused.fetch_add(spans as u64, Ordering::Relaxed) == 0 {
            tracing::warn!(spans, "the collector of traces does not take them; what is lost is counted");
        }
    }
}

/// An exporter whose losses are counted.
#[derive(Debug)]
pub(super) struct Counted<E> {
    pub exporter: E,
    pub gauge: Gauge,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        self.gauge.leave(spans, exported.is_ok());
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Lets pass what is to be kept.
#[derive(Debug)]
pub(super) struct TailSampler<P> {
    next: P,
    gauge: Gauge,
    undecided: Mutex<HashMap<TraceId, Vec<SpanData>>>,
}

impl<P: SpanProcessor> TailSampler<P> {
    /// Spans of one delivery that wait, at most: there are a few dozen.
    const LONGEST: usize = 256;
    /// Deliveries whose spans wait, at most: more than are ever in work.
    const MOST: usize = 4096;

    pub fn new(next: P, gauge: Gauge) -> Self {
        Self { next, gauge, undecided: Mutex::default() }
    }

    fn pass(&self, span: SpanData) {
        if self.gauge.enter() {
            self.next.on_end(span);
        }
    }

    /// A span of a photo that was not sampled.
    fn decide(&self, span: SpanData) {
        let trace = span.span_context.trace_id();
        let is_delivery = span.span_kind == SpanKind::Consumer;
        let is_root = span.parent_span_id == SpanId::INVALID;
        let mut undecided = self.undecided.lock().unwrap_or_else(PoisonError::into_inner);
        if is_delivery || is_root {
            let waiting = undecided.remove(&trace).unwrap_or_default();
            drop(undecided);
            if is_delivery && says_keep(&span) {
                waiting.into_iter().chain([span]).map(sampled).for_each(|span| self.pass(span));
            }
        } else if undecided.len() < Self::MOST || undecided.contains_key(&trace) {
            let waiting = undecided.entry(trace).or_default();
            if waiting.len() < Self::LONGEST {
                waiting.push(span);
            }
        }
    }
}

fn says_keep(delivery: &SpanData) -> bool {
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
            assert!(span.span_context.is_sampled(), "exporters leave others out");
            self.0.lock().unwrap().push(span);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    /// A delivery with one step; `tail_sampler` is what it says at its end.
    fn deliver(provider: &SdkTracerProvider, tail_sampler: Option<bool>) {
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
        if let Some(tail_sampler) = tail_sampler {
            context.span().set_attribute(KeyValue::new(KEEP, tail_sampler));
        }
        context.span().end();
    }

    fn provider(sampler: Sampler, room: usize) -> (SdkTracerProvider, Collected, Gauge) {
        let (collected, gauge) = (Collected::default(), Gauge::new(room));
        let tail_sampler = TailSampler::new(collected.clone(), gauge.clone());
        let provider =
            SdkTracerProvider::builder().with_sampler(BufferedSpan(sampler)).with_span_processor(tail_sampler).build();
        (provider, collected, gauge)
    }

    #[test]
    fn what_nobody_sampled_is_kept_when_it_failed() {
        let (provider, collected, _) = provider(Sampler::AlwaysOff, 100);
        deliver(&provider, None);
        deliver(&provider, Some(false));
        assert!(collected.names().is_empty());
        deliver(&provider, Some(true));
        assert_eq!(collected.names(), ["step", "process"]);
    }

    #[test]
    fn what_was_sampled_passes() {
        let (provider, collected, _) = provider(Sampler::AlwaysOn, 100);
        deliver(&provider, None);
        assert_eq!(collected.names(), ["step", "process"]);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (provider, collected, gauge) = provider(Sampler::AlwaysOn, 3);
        deliver(&provider, None);
        deliver(&provider, None);
        assert_eq!((collected.names().len(), gauge.lost.overflow()), (3, 1));
        gauge.leave(3, true);
        deliver(&provider, None);
        assert_eq!((collected.names().len(), gauge.lost.overflow()), (5, 1));
        gauge.leave(2, false);
        assert_eq!((gauge.lost.refused(), gauge.lost.all()), (2, 3));
    }
}
