//! The processes that are killed: workers and the producer, with the code of the library on real servers.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use facemill::archive::records::Records;
use facemill::broker::rabbitmq::{self, RabbitMq};
use facemill::domain::{Candidate, RunName, StageName};
use facemill::ledger::redis::Redis;
use facemill::objects::Objects;
use facemill::objects::s3::{self, S3, Timeouts};
use facemill::pipeline::gate::Gate;
use facemill::pipeline::producer;
use facemill::pipeline::stages::runs_native_code;
use facemill::pipeline::store_faults::StoreFaults;
use facemill::pipeline::worker::{Worker, WorkerSettings};
use facemill::redis::{RedisClient, RedisSettings};
use facemill::telemetry::{self, Telemetry};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::doubled::Doubled;
use super::plan::Kill;
use super::stages::FakeStage;
use support::failpoints::{Failing, Failpoint, FailpointObjects};

/// The addresses of the servers, and what the processes share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    pub amqp: String,
    pub redis: String,
    pub endpoint: String,
    pub bucket: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub prefix: String,
    pub run: RunName,
}

/// What a child process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChildSpec {
    pub name: String,
    pub endpoints: Endpoints,
    pub kill: Option<Kill>,
    pub task: Task,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    Work(StageName),
    Produce(Vec<Candidate>),
}

/// The environment variable with the path of a file with the [`ChildSpec`].
pub const CHILD_SPEC: &str = "FACEMILL_CHAOS_SPEC";
/// Attempts of a photo at a stage: each more is a wait of five seconds.
const ATTEMPTS: u32 = 2;
/// How many workers a photo may crash. It is more than the default, because here a harmless photo can be processed by
/// several workers that are killed.
pub const CRASH_LIMIT: u32 = 4;

impl Endpoints {
    pub fn broker(&self) -> RabbitMq {
        let settings =
            rabbitmq::RabbitMqSettings::new(&self.amqp).expect("a URL").with_prefix(&self.prefix).expect("a prefix");
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
        S3::new(s3::S3Settings {
            endpoint: Some(self.endpoint.clone()),
            path_style: true,
            // Short, so that a stopped server is noticed soon.
            timeouts: Timeouts { connect: seconds(1), attempt: seconds(1), total: seconds(3) },
            ..s3::S3Settings::new(&self.bucket, s3::Credentials::Keys(keys))
        })
    }
}

pub fn settings(stage: StageName) -> WorkerSettings {
    WorkerSettings {
        concurrency: if stage == StageName::Fetch { 6 } else { 3 },
        attempts: ATTEMPTS,
        crash_limit: CRASH_LIMIT,
        ..WorkerSettings::default()
    }
}

impl ChildSpec {
    /// Runs the task until SIGTERM, or until standard input is closed.
    pub fn run(self) {
        let sink = Arc::new(|line: &[u8]| {
            let _ = std::io::stderr().write_all(line);
        });
        let service = "facemill-chaos".to_owned();
        let observed = telemetry::TelemetrySettings { log: "facemill=info", sink, service, scraped: false };
        let _telemetry = Telemetry::start(observed).expect("a log");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        std::thread::spawn(|| {
            let _ = std::io::read_to_string(std::io::stdin());
            std::process::exit(0);
        });
        runtime.block_on(self.run_task());
        // As the program does: a thread that still runs must not keep the process.
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    async fn run_task(self) {
        let failpoint =
            self.kill.map_or_else(Failpoint::endless, |kill| Failpoint::deadly(kill.step, kill.count, kill.after));
        let (broker, ledger) = (Arc::new(self.endpoints.broker()), Arc::new(self.endpoints.ledger()));
        let failpoints = Arc::new(Failing { ledger, broker, failpoint: failpoint.clone(), lost_answers: None });
        match self.task {
            Task::Work(stage) => {
                let unwatched: Arc<dyn Objects> = Arc::new(self.endpoints.objects());
                let objects: Arc<dyn Objects> = Arc::new(FailpointObjects { objects: unwatched.clone(), failpoint });
                let worker = Worker {
                    stage: Arc::new(FakeStage { name: stage, objects: objects.clone(), unwatched, crashes: true }),
                    broker: Arc::new(Doubled(failpoints.clone())),
                    ledger: failpoints,
                    records: Some(Records::new(objects)),
                    observer: Arc::new(StoreFaults::default()),
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
                worker.run(shutdown).await.expect("a worker without a fatal error");
            }
            Task::Produce(candidates) => {
                let broker = Doubled(failpoints.clone());
                let produced =
                    producer::enqueue(&self.endpoints.run, &candidates, &*failpoints, &broker, None, &|_| ()).await;
                assert_eq!(produced.expect("servers that accept photos").refused, []);
            }
        }
    }
}
