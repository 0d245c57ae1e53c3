//! All metrics: names, units and attributes.
//!
//! Names follow OpenTelemetry's conventions where they exist
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/>); all others start with `facemill.`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};
use opentelemetry_sdk::metrics::{Instrument, Stream};

use super::tail_sampler::LostSpans;
use crate::domain::StageName;

/// Histogram bounds in seconds: from a decision without pixels up to a stage's time limit.
const DURATIONS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Histogram bounds for the crops of one batch.
const BATCHES: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];
/// Hosts with series of their own. Further hosts share one series.
const HOSTS: usize = 200;
/// Outcomes of a fetch: advanced, retried, gone, rejected, failed.
const FETCH_OUTCOMES: usize = 5;

const FETCHES: &str = "facemill.fetches";
const HOST_PAUSES: &str = "facemill.host.pauses";

/// The instruments of one process.
#[derive(Debug)]
pub struct Instruments {
    photos: Counter<u64>,
    stage_duration: Histogram<f64>,
    in_flight: UpDownCounter<i64>,
    dead_letters: Counter<u64>,
    dead_letters_kept: Gauge<u64>,
    fetches: Counter<u64>,
    host_pauses: Counter<u64>,
    host_wait: Histogram<f64>,
    object_io: Counter<u64>,
    batch_size: Histogram<u64>,
    sent: Counter<u64>,
    sending: Histogram<f64>,
    consumed: Counter<u64>,
    processing: Histogram<f64>,
    queue_messages: Gauge<u64>,
    queue_oldest: Gauge<u64>,
    stage_paused: Gauge<u64>,
    sign_ins: Counter<u64>,
    refusals: Counter<u64>,
    verdicts: Counter<u64>,
    verdict_duration: Histogram<f64>,
    http_requests: Histogram<f64>,
}

/// The direction of an object store transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    Get,
    Put,
}

static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();

/// The instruments of this process. None: metrics are off.
pub fn get() -> Option<&'static Instruments> {
    INSTRUMENTS.get()
}

/// Sets the instruments of this process.
pub(super) fn install(instruments: Instruments) {
    let _ = INSTRUMENTS.set(instruments);
}

/// Limits the number of series whose labels depend on photo URLs.
pub(super) fn view(instrument: &Instrument) -> Option<Stream> {
    let most = match instrument.name() {
        FETCHES => HOSTS * FETCH_OUTCOMES,
        HOST_PAUSES => HOSTS,
        _ => return None,
    };
    Stream::builder().with_cardinality_limit(most).build().ok()
}

impl Instruments {
    pub fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, unit: &'static str, what: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(what).build()
        };
        let duration = |name: &'static str, what: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(what);
            histogram.with_boundaries(DURATIONS.to_vec()).build()
        };
        let gauge = |name: &'static str, unit: &'static str, what: &'static str| {
            meter.u64_gauge(name).with_unit(unit).with_description(what).build()
        };
        Self {
            photos: counter(
                "facemill.photos",
                "{photo}",
                "Photos that a stage has processed, by outcome; retries included.",
            ),
            stage_duration: duration("facemill.stage.duration", "Time that a stage takes for a photo."),
            in_flight: meter
                .i64_up_down_counter("facemill.in_flight")
                .with_unit("{photo}")
                .with_description("Photos in work now.")
                .build(),
            dead_letters: counter("facemill.dead_letters", "{letter}", "Messages that workers have dead-lettered."),
            dead_letters_kept: gauge("facemill.dead_letters.kept", "{letter}", "Messages in the dead-letter queue."),
            fetches: counter(FETCHES, "{photo}", "Photos fetched from a host, by outcome."),
            host_pauses: counter(HOST_PAUSES, "{pause}", "Pauses that a host requested."),
            host_wait: duration("facemill.host.wait", "Time that a photo waits for the host limiter."),
            object_io: counter("facemill.object.io", "By", "Bytes read from and written to the object store."),
            batch_size: meter
                .u64_histogram("facemill.inference.batch.size")
                .with_unit("{crop}")
                .with_description("Crops per batch of the classifier.")
                .with_boundaries(BATCHES.to_vec())
                .build(),
            sent: counter("messaging.client.sent.messages", "{message}", "Messages published."),
            sending: duration("messaging.client.operation.duration", "Time from publishing a message to its confirm."),
            consumed: counter("messaging.client.consumed.messages", "{message}", "Messages received."),
            processing: duration("messaging.process.duration", "Time from receiving a message to its acknowledgement."),
            queue_messages: gauge("facemill.queue.messages", "{message}", "Messages in a stage's queues."),
            queue_oldest: gauge("facemill.queue.oldest", "s", "Age of the oldest waiting photo of a stage."),
            stage_paused: gauge("facemill.stage.paused", "", "1: the stage is paused. 0: it is not."),
            sign_ins: counter("facemill.curation.sign_ins", "{attempt}", "Attempts to sign in, by outcome."),
            refusals: counter(
                "facemill.curation.refusals",
                "{request}",
                "Requests that were not let in, by cause: nobody signed in, another page, too many.",
            ),
            verdicts: counter("facemill.verdicts", "{verdict}", "Verdicts of people, by what became of them."),
            verdict_duration: duration(
                "facemill.verdict.duration",
                "Time until the verdicts of a request are durable.",
            ),
            http_requests: duration("http.server.request.duration", "Time that a request to curation takes."),
        }
    }

    /// Registers the counter of lost spans.
    pub fn watch(meter: &Meter, lost: Arc<LostSpans>) {
        meter
            .u64_observable_counter("facemill.spans.lost")
            .with_unit("{span}")
            .with_description("Spans that did not reach the collector.")
            .with_callback(move |observer| {
                observer.observe(lost.overflow(), &[KeyValue::new("facemill.cause", "overflow")]);
                observer.observe(lost.refused(), &[KeyValue::new("facemill.cause", "refused")]);
            })
            .build();
    }

    /// Creates the series of a stage with value 0, so that rates are known from its first photo on.
    pub fn register_stage(&self, stage: StageName) {
        self.in_flight.add(0, &[of_stage(stage)]);
        let first = if stage.next().is_some() { "advanced" } else { "predicted" };
        self.photos.add(0, &photo(stage, first, ""));
        self.consumed.add(0, &[of_stage(stage)]);
    }

    /// A stage has processed a photo. `cause`: its code, or empty.
    pub fn photo(&self, stage: StageName, outcome: &'static str, cause: &str, took: Duration) {
        self.photos.add(1, &photo(stage, outcome, cause));
        let attributes = [of_stage(stage), KeyValue::new("facemill.outcome", outcome)];
        self.stage_duration.record(took.as_secs_f64(), &attributes);
    }

    /// A photo was requested from a host.
    pub fn fetch(&self, host: &str, outcome: &'static str) {
        let host = KeyValue::new("server.address", host.to_owned());
        self.fetches.add(1, &[host, KeyValue::new("facemill.outcome", outcome)]);
    }

    pub fn host_pause(&self, host: &str) {
        self.host_pauses.add(1, &[KeyValue::new("server.address", host.to_owned())]);
    }

    /// A photo was admitted by the host limiter, or deferred.
    pub fn host_wait(&self, took: Duration) {
        self.host_wait.record(took.as_secs_f64(), &[]);
    }

    pub fn dead_letter(&self, stage: Option<StageName>, cause: &str) {
        let stage = KeyValue::new("facemill.stage", stage.map_or("", StageName::as_str));
        self.dead_letters.add(1, &[stage, KeyValue::new("facemill.cause", cause.to_owned())]);
    }

    /// The number of dead letters, including messages that RabbitMQ dead-letters itself.
    pub fn dead_letters_kept(&self, letters: u64) {
        self.dead_letters_kept.record(letters, &[]);
    }

    pub fn object(&self, io: Io, bytes: usize) {
        let operation = match io {
            Io::Get => "get",
            Io::Put => "put",
        };
        self.object_io.add(bytes as u64, &[KeyValue::new("facemill.operation", operation)]);
    }

    pub fn batch(&self, crops: usize) {
        self.batch_size.record(crops as u64, &[]);
    }

    /// A message was published. `error`: why that failed.
    pub fn sent(&self, stage: StageName, took: Duration, error: Option<&'static str>) {
        let mut attributes = vec![of_stage(stage)];
        attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
        self.sent.add(1, &attributes);
        self.sending.record(took.as_secs_f64(), &attributes);
    }

    /// A delivery was received. It is in flight until [`Instruments::delivery_finished`].
    pub fn delivery_started(&self, stage: StageName) {
        self.in_flight.add(1, &[of_stage(stage)]);
        self.consumed.add(1, &[of_stage(stage)]);
    }

    pub fn delivery_finished(&self, stage: StageName, took: Duration) {
        self.in_flight.add(-1, &[of_stage(stage)]);
        self.processing.record(took.as_secs_f64(), &[of_stage(stage)]);
    }

    /// The messages in the queues of a stage. `state`: ready, in_flight or delayed.
    pub fn queue(&self, stage: StageName, state: &'static str, messages: u64) {
        self.queue_messages.record(messages, &[of_stage(stage), KeyValue::new("facemill.state", state)]);
    }

    /// The age of the oldest waiting photo of a stage, in seconds.
    pub fn oldest(&self, stage: StageName, seconds: u64) {
        self.queue_oldest.record(seconds, &[of_stage(stage)]);
    }

    /// Somebody tried to sign in. `outcome`: signed-in, wrong, limited or unavailable.
    pub fn sign_in(&self, outcome: &'static str) {
        self.sign_ins.add(1, &[KeyValue::new("facemill.outcome", outcome)]);
    }

    /// A request to the curation page was not let in. `cause`: the code of the error.
    pub fn refused(&self, cause: &'static str) {
        self.refusals.add(1, &[KeyValue::new("facemill.cause", cause)]);
    }

    /// A verdict was sent. `result`: stored, known, conflict or refused.
    pub fn verdict(&self, view: &'static str, judgement: &'static str, result: &'static str) {
        let attributes = [
            KeyValue::new("facemill.view", view),
            KeyValue::new("facemill.judgement", judgement),
            KeyValue::new("facemill.result", result),
        ];
        self.verdicts.add(1, &attributes);
    }

    /// The verdicts of a request were stored, or not.
    pub fn verdicts_stored(&self, took: Duration, is_stored: bool) {
        self.verdict_duration.record(took.as_secs_f64(), &[KeyValue::new("facemill.stored", is_stored)]);
    }

    /// A request was answered. <https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>
    pub fn http_request(&self, method: &'static str, route: String, status: u16, took: Duration) {
        let attributes = [
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        self.http_requests.record(took.as_secs_f64(), &attributes);
    }

    pub fn paused(&self, stage: StageName, paused: bool) {
        self.stage_paused.record(paused.into(), &[of_stage(stage)]);
    }
}

fn of_stage(stage: StageName) -> KeyValue {
    KeyValue::new("facemill.stage", stage.as_str())
}

fn photo(stage: StageName, outcome: &'static str, cause: &str) -> [KeyValue; 3] {
    [of_stage(stage), KeyValue::new("facemill.outcome", outcome), KeyValue::new("facemill.cause", cause.to_owned())]
}
