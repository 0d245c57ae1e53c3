//! The processes that die: workers and the producer, with the library's own code on the real servers.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use facemill::archive::records::Records;
use facemill::broker::rabbitmq::{self, RabbitMq};
use facemill::domain::{Candidate, RunName, StageName};
use facemill::ledger::redis::Redis;
use facemill::objects::Objects;
use facemill::objects::s3::{self, S3, Timeouts};
use facemill::pipeline::event::Observer;
use facemill::pipeline::producer;
use facemill::pipeline::stages::runs_native_code;
use facemill::pipeline::worker::{Gate, Settings, Worker};
use facemill::redis::{RedisClient, RedisSettings};
use facemill::telemetry::{self, Telemetry};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::doubled::Doubled;
use super::failpoints::{Failing, Failpoint, MortalObjects};
use super::plan::Fate;
use super::stages::Cheap;

/// Where the servers are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Place {
    pub amqp: String,
    pub redis: String,
    pub endpoint: String,
    pub bucket: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub prefix: String,
    pub run: RunName,
}

/// What a process is to do. It comes in an environment variable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    pub name: String,
    pub place: Place,
    pub fate: Option<Fate>,
    pub task: Task,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    Work(StageName),
    Produce(Vec<Candidate>),
}

/// The environment variable with a file that has the [`Orders`].
pub const ORDERS: &str = "FACEMILL_CHAOS_ORDERS";
/// Attempts that a photo has at a stage: one more means waiting another five seconds.
const ATTEMPTS: u32 = 2;
/// A killer kills so many workers. By default it would be fewer; but here a photo that did nothing can meet the
/// deaths of several workers, too.
pub const CRASH_LIMIT: u32 = 4;

impl Place {
    pub fn broker(&self) -> RabbitMq {
        let settings = rabbitmq::Settings::new(&self.amqp).expect("a URL").with_prefix(&self.prefix).expect("a prefix");
        RabbitMq::new(settings).expect("settings that can be used")
    }

    pub fn ledger(&self) -> Redis {
        let settings = RedisSettings { prefix: self.prefix.clone(), ..RedisSettings::new(&self.redis) };
        Redis::new(Arc::new(RedisClient::new(settings).expect("a URL")))
    }

    pub fn objects(&self) -> S3 {
        let keys = s3::Keys {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: None,
        };
        let seconds = Duration::from_secs;
        S3::new(s3::Settings {
            endpoint: Some(self.endpoint.clone()),
            path_style: true,
            // A frozen server is to be noticed soon.
            timeouts: Timeouts { connect: seconds(1), attempt: seconds(1), total: seconds(3) },
            ..s3::Settings::new(&self.bucket, keys)
        })
    }
}

pub fn settings(stage: StageName) -> Settings {
    Settings {
        concurrency: if stage == StageName::Fetch { 6 } else { 3 },
        attempts: ATTEMPTS,
        crash_limit: CRASH_LIMIT,
        ..Settings::default()
    }
}

impl Orders {
    /// Obeys, and ends with SIGTERM, or when nobody holds the other end of standard input any more.
    pub fn obey(self) {
        let sink = Arc::new(|line: &[u8]| std::io::stderr().write_all(line));
        let service = "facemill-chaos".to_owned();
        let observed = telemetry::Settings { log: "facemill=info", sink, service, scraped: false };
        let _telemetry = Telemetry::begin(observed).expect("a log");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        std::thread::spawn(|| {
            let _ = std::io::read_to_string(std::io::stdin());
            std::process::exit(0);
        });
        runtime.block_on(self.carry_out());
    }

    async fn carry_out(self) {
        let failpoint =
            self.fate.map_or_else(Failpoint::endless, |fate| Failpoint::deadly(fate.step, fate.count, fate.after));
        let (broker, ledger) = (Arc::new(self.place.broker()), Arc::new(self.place.ledger()));
        let failpoints = Arc::new(Failing { ledger, broker, failpoint: failpoint.clone(), untold: None });
        match self.task {
            Task::Work(stage) => {
                let notes: Arc<dyn Objects> = Arc::new(self.place.objects());
                let objects: Arc<dyn Objects> = Arc::new(MortalObjects { objects: notes.clone(), failpoint });
                let worker = Worker {
                    stage: Arc::new(Cheap { name: stage, objects: objects.clone(), notes, deadly: true }),
                    broker: Arc::new(Doubled(failpoints.clone())),
                    ledger: failpoints,
                    records: Some(Records::new(objects)),
                    observer: Arc::new(Vec::<Arc<dyn Observer>>::new()),
                    gate: runs_native_code(stage).then(Gate::default),
                    name: self.name,
                    settings: settings(stage),
                };
                let shutdown = CancellationToken::new();
                let mut terminate = signal(SignalKind::terminate()).expect("signals");
                let ends = shutdown.clone();
                tokio::spawn(async move {
                    terminate.recv().await;
                    ends.cancel();
                });
                worker.run(shutdown).await.expect("a worker that can go on");
            }
            Task::Produce(candidates) => {
                let broker = Doubled(failpoints.clone());
                let produced = producer::enqueue(&self.place.run, &candidates, &*failpoints, &broker, &|_| ()).await;
                assert_eq!(produced.expect("servers that take photos in").refused, []);
            }
        }
    }
}
