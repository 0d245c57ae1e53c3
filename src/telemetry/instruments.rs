//! Everything that is counted and measured: names, units and attributes of all metrics.
//!
//! Where OpenTelemetry has a name for a thing, it is used
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/>); the rest begins with `facemill.`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};
use opentelemetry_sdk::metrics::{Instrument, Stream};

use super::tail_sampler::Lost;
use crate::domain::StageName;

/// Seconds: from a decision without pixels to a stage's time limit.
const DURATIONS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Crops that are judged together.
const BATCHES: [f64; 5] = [1.0, 2.0, 4.0, 8.0, 16.0];
/// Hosts that have numbers of their own; what happens at further ones is counted together.
const HOSTS: usize = 200;
/// What can come of fetching a photo: advanced, retried, gone, rejected, failed.
const OF_FETCHING: usize = 5;

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
}

/// Which way bytes go between us and the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    Get,
    Put,
}

static OF_THIS_PROCESS: OnceLock<Instruments> = OnceLock::new();

/// The instruments of this process. None: nobody wants to know.
pub fn get() -> Option<&'static Instruments> {
    OF_THIS_PROCESS.get()
}

/// Makes them the instruments of this process.
pub(super) fn install(instruments: Instruments) {
    let _ = OF_THIS_PROCESS.set(instruments);
}

/// Bounds what strangers could let grow.
pub(super) fn view(instrument: &Instrument) -> Option<Stream> {
    let most = match instrument.name() {
        FETCHES => HOSTS * OF_FETCHING,
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
            photos: counter("facemill.photos", "{photo}", "Photos that a stage was done with, or will try again."),
            stage_duration: duration("facemill.stage.duration", "How long a stage took over a photo."),
            in_flight: meter
                .i64_up_down_counter("facemill.in_flight")
                .with_unit("{photo}")
                .with_description("Photos that are worked on now.")
                .build(),
            dead_letters: counter("facemill.dead_letters", "{letter}", "Letters that were laid among the dead."),
            dead_letters_kept: gauge("facemill.dead_letters.kept", "{letter}", "Letters that lie among the dead."),
            fetches: counter(FETCHES, "{photo}", "Photos that a host was asked for, by what came of it."),
            host_pauses: counter(HOST_PAUSES, "{pause}", "Pauses that a host asked for."),
            host_wait: duration("facemill.host.wait", "How long a photo waited for its turn at a host."),
            object_io: counter("facemill.object.io", "By", "Bytes read from and written to the object store."),
            batch_size: meter
                .u64_histogram("facemill.inference.batch.size")
                .with_unit("{crop}")
                .with_description("Crops that were judged together.")
                .with_boundaries(BATCHES.to_vec())
                .build(),
            sent: counter("messaging.client.sent.messages", "{message}", "Messages that were published."),
            sending: duration("messaging.client.operation.duration", "From publishing a message to its confirm."),
            consumed: counter("messaging.client.consumed.messages", "{message}", "Messages that were taken up."),
            processing: duration("messaging.process.duration", "From taking a message up to its acknowledgement."),
            queue_messages: gauge("facemill.queue.messages", "{message}", "Messages that lie in a stage's queues."),
            queue_oldest: gauge("facemill.queue.oldest", "s", "How long the oldest of a stage's photos has waited."),
            stage_paused: gauge("facemill.stage.paused", "", "1: somebody has paused the stage. 0: nobody has."),
        }
    }

    /// Counts from now on what became of the spans that did not arrive.
    pub fn watch(meter: &Meter, lost: Arc<Lost>) {
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

    /// Has the numbers of a stage there from the start, so that a rate is known from its first photo on.
    pub fn announce(&self, stage: StageName) {
        self.in_flight.add(0, &[of_stage(stage)]);
        let first = if stage.next().is_some() { "advanced" } else { "predicted" };
        self.photos.add(0, &photo(stage, first, ""));
        self.consumed.add(0, &[of_stage(stage)]);
    }

    /// A stage was done with a photo. `cause`: the code, or nothing.
    pub fn photo(&self, stage: StageName, outcome: &'static str, cause: &str, took: Duration) {
        self.photos.add(1, &photo(stage, outcome, cause));
        let attributes = [of_stage(stage), KeyValue::new("facemill.outcome", outcome)];
        self.stage_duration.record(took.as_secs_f64(), &attributes);
    }

    /// A host was asked for a photo.
    pub fn fetch(&self, host: &str, outcome: &'static str) {
        let host = KeyValue::new("server.address", host.to_owned());
        self.fetches.add(1, &[host, KeyValue::new("facemill.outcome", outcome)]);
    }

    pub fn host_pause(&self, host: &str) {
        self.host_pauses.add(1, &[KeyValue::new("server.address", host.to_owned())]);
    }

    /// A photo got its turn at a host, or was sent away.
    pub fn host_wait(&self, took: Duration) {
        self.host_wait.record(took.as_secs_f64(), &[]);
    }

    pub fn dead_letter(&self, stage: Option<StageName>, cause: &str) {
        let stage = KeyValue::new("facemill.stage", stage.map_or("", StageName::as_str));
        self.dead_letters.add(1, &[stage, KeyValue::new("facemill.cause", cause.to_owned())]);
    }

    /// How many letters lie there, RabbitMQ's own among them.
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

    /// A message was published, or not. `error`: why not.
    pub fn sent(&self, stage: StageName, took: Duration, error: Option<&'static str>) {
        let mut attributes = vec![of_stage(stage)];
        attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
        self.sent.add(1, &attributes);
        self.sending.record(took.as_secs_f64(), &attributes);
    }

    /// A delivery was taken up; it is in flight until [`Instruments::put_down`].
    pub fn taken(&self, stage: StageName) {
        self.in_flight.add(1, &[of_stage(stage)]);
        self.consumed.add(1, &[of_stage(stage)]);
    }

    pub fn put_down(&self, stage: StageName, took: Duration) {
        self.in_flight.add(-1, &[of_stage(stage)]);
        self.processing.record(took.as_secs_f64(), &[of_stage(stage)]);
    }

    /// What lies in the queues of a stage. `state`: ready, in_flight or delayed.
    pub fn queue(&self, stage: StageName, state: &'static str, messages: u64) {
        self.queue_messages.record(messages, &[of_stage(stage), KeyValue::new("facemill.state", state)]);
    }

    pub fn oldest(&self, stage: StageName, seconds: u64) {
        self.queue_oldest.record(seconds, &[of_stage(stage)]);
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
