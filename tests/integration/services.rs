//! The services of an installation, called without a process, on real servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use facemill::broker::rabbitmq::{RabbitMq, RabbitMqSettings};
use facemill::broker::{BodyFilter, Broker, BrokerError, Consumer, DeadLetter, DeadLetterFilter, Depth};
use facemill::demo::host::{HostResponse, Routes, WebHost};
use facemill::domain::{Candidate, Ending, Message, RunName, StageName};
use facemill::inference::Models;
use facemill::ledger::Ledger;
use facemill::net::Rules;
use facemill::pipeline::{producer, stages, worker};
use facemill::redis::RedisClient;
use facemill::services::queue_metrics::shared_report;
use facemill::services::run_target::{RunTarget, TargetError};
use facemill::services::servers::Servers;
use facemill::services::status::RunStatus;
use facemill::services::work::Work;
use facemill::telemetry::prometheus::PrometheusReader;
use support::servers::process::send_request;
use support::servers::rabbitmq;
use support::servers::redis::RedisServer;
use support::servers::seaweedfs::SeaweedFs;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A broker of which only the depths are read. It counts how often.
#[derive(Default)]
struct Depths(AtomicUsize);

const ONLY_DEPTHS: &str = "only the depths are read";

#[async_trait]
impl Broker for Depths {
    async fn depths(&self) -> Result<Vec<Depth>, BrokerError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let depth = Depth { stage: Some(StageName::Fetch), ready: 7, in_flight: 0, delayed: 0, oldest_age: None };
        Ok(vec![depth])
    }

    async fn publish(&self, _: &Message) -> Result<(), BrokerError> {
        unreachable!("{ONLY_DEPTHS}")
    }

    async fn publish_after(&self, _: &Message, _: Duration) -> Result<(), BrokerError> {
        unreachable!("{ONLY_DEPTHS}")
    }

    async fn dead_letter(&self, _: &DeadLetter) -> Result<(), BrokerError> {
        unreachable!("{ONLY_DEPTHS}")
    }

    async fn consume(&self, _: StageName, _: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        unreachable!("{ONLY_DEPTHS}")
    }

    async fn dead_letters(&self, _: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        unreachable!("{ONLY_DEPTHS}")
    }

    async fn take_dead_letters(&self, _: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        unreachable!("{ONLY_DEPTHS}")
    }

    async fn remove_messages(&self, _: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        unreachable!("{ONLY_DEPTHS}")
    }

    async fn check(&self) -> Result<(), BrokerError> {
        unreachable!("{ONLY_DEPTHS}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queues_are_measured_once_for_all_workers() {
    let redis = RedisServer::shared();
    let settings = redis.settings();
    let broker = Depths::default();
    let ask_once = async || {
        let client = RedisClient::new(settings.clone()).unwrap();
        let ledger = RedisServer::ledger_with(settings.clone());
        shared_report(&client, &broker, &ledger).await.unwrap()
    };
    let reports = futures::future::join_all((0..20).map(|_| ask_once())).await;
    assert_eq!(broker.0.load(Ordering::SeqCst), 1, "twenty workers measure once");
    let report = reports.into_iter().flatten().next().expect("one of them has measured");
    assert_eq!((report.depths[0].stage, report.depths[0].ready), (Some(StageName::Fetch), 7));
    assert_eq!(ask_once().await, Some(report), "a later worker reads the same report");
    assert_eq!(broker.0.load(Ordering::SeqCst), 1);
}

/// Clients of the shared servers, under a prefix of their own.
fn servers(rabbit: &rabbitmq::RabbitServer, prefix: &str) -> Servers {
    let settings = RabbitMqSettings::new(&rabbit.url()).unwrap().with_prefix(prefix).unwrap();
    Servers {
        broker: RabbitMq::new(settings).unwrap(),
        ledger: Arc::new(RedisServer::shared().ledger()),
        objects: SeaweedFs::shared().objects(),
    }
}

fn photo(id: &str, url: &str) -> Candidate {
    Candidate { photo_id: id.into(), photo_url: url.into(), ..support::synthetic::candidate(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_serves_its_state_and_ends_in_order() {
    let rabbit = rabbitmq::shared().await;
    let servers = servers(rabbit, "services-work");
    let jpeg: Bytes = [0xff, 0xd8, 0xff, 0xe0].into_iter().chain([7; 2000]).collect();
    let routes: Routes = [
        ("/a".to_owned(), HostResponse::full(200, &[], jpeg).into()),
        ("/b".to_owned(), HostResponse::full(404, &[], Bytes::new()).into()),
    ]
    .into();
    let host = WebHost::start("127.0.0.1:0", routes).await.unwrap();
    let run: RunName = "services".parse().unwrap();
    let photos = [photo("a", "http://photos.test/a"), photo("b", "http://photos.test/b")];
    let enqueued = producer::enqueue(&run, &photos, &*servers.ledger, &servers.broker, None, &|_| ()).await.unwrap();
    assert_eq!(enqueued.new, 2);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let work = Work {
        concurrency: BTreeMap::from([(StageName::Fetch, 2)]),
        stages: stages::StageSettings {
            models: Models::find(None),
            cores: 1,
            decode_memory: 100_000_000,
            rules: Rules {
                hosts: [("photos.test".to_owned(), host.address())].into(),
                allowed: [host.address()].into(),
                ..Rules::default()
            },
            stored_access: Default::default(),
            host_limiter: None,
            given: Default::default(),
        },
        worker: worker::WorkerSettings::default(),
        listener: Some(listener),
        metrics: PrometheusReader::default(),
    };
    let shutdown = CancellationToken::new();
    let working = tokio::spawn(work.run(servers.clone(), shutdown.clone()));
    let target = async || RunTarget::of_servers(servers.clone(), run.clone()).await.unwrap();
    let deadline = tokio::time::Instant::now() + support::PATIENCE;
    let status = loop {
        let status = RunStatus::read(&target().await).await.unwrap();
        if status.stages[&StageName::Detect].ready == 1 && status.ended_photos() == 1 {
            break status;
        }
        assert!(tokio::time::Instant::now() < deadline, "timeout: {status:?}");
        // The worker does not announce what it has done, so the test polls up to a deadline.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.ended, BTreeMap::from([(Ending::Gone, 1)]));
    assert_eq!(status.cluster.unwrap().workers.len(), 1, "the worker reports itself");
    let get = move |path: &'static str| {
        tokio::task::spawn_blocking(move || send_request(port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")))
    };
    assert!(get("/readyz").await.unwrap().unwrap().starts_with("HTTP/1.1 200"));
    shutdown.cancel();
    working.await.unwrap().unwrap();
    assert_eq!(get("/healthz").await.unwrap(), None, "the port is closed");
    let status = RunStatus::read(&target().await).await.unwrap();
    assert!(status.cluster.unwrap().workers.is_empty(), "the worker has left the list");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_run_is_an_error_with_the_known_ones() {
    let rabbit = rabbitmq::shared().await;
    let servers = servers(rabbit, "services-unknown");
    let run: RunName = "cats".parse().unwrap();
    servers.ledger.register(&run, &[photo("a", "http://photos.test/a")], 5).await.unwrap();
    let error = RunTarget::of_servers(servers, "dogs".parse().unwrap()).await.err().unwrap();
    assert!(matches!(&error, TargetError::UnknownRun { known, .. } if known == &[run]), "{error}");
    assert_eq!(error.to_string(), "there is no run dogs: known runs are cats");
}
