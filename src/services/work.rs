//! A worker process of an installation.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::heartbeat::{DeliveryTally, Heartbeat};
use super::local_run::{LocalRunError, open_stages};
use super::rescore_worker::{KnownModels, RescoreWorker};
use super::servers::{ServerFaults, Servers};
use super::workers::{self, Shared};
use super::{queue_metrics, worker_routes};
use crate::archive::records::Records;
use crate::cluster::{PauseWatch, RedisHostLimiter, host_limiter};
use crate::domain::StageName;
use crate::domain::clock::now;
use crate::pipeline::event::Observer;
use crate::pipeline::gate::Gate;
use crate::pipeline::host_faults::HostFaults;
use crate::pipeline::pause::Pause;
use crate::pipeline::stages;
use crate::pipeline::store_faults::StoreFaults;
use crate::pipeline::stored_photos::StoredAccess;
use crate::pipeline::worker::{WorkerError, WorkerSettings};
use crate::server_error::ServerError;
use crate::telemetry::instruments;
use crate::telemetry::prometheus::PrometheusReader;
use crate::web;

#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    #[error(transparent)]
    Faults(#[from] ServerFaults),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Open(#[from] LocalRunError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// What a worker process does.
pub struct Work {
    /// Photos that each stage processes at a time.
    pub concurrency: BTreeMap<StageName, usize>,
    pub stages: stages::StageSettings,
    pub worker: WorkerSettings,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub listener: Option<TcpListener>,
    pub metrics: PrometheusReader,
}

impl Work {
    /// Processes photos of all runs until `shutdown`, or until a stage cannot continue.
    pub async fn run(self, servers: Servers, shutdown: CancellationToken) -> Result<(), WorkError> {
        servers.check().await?;
        let Self { concurrency, mut stages, worker, listener, metrics } = self;
        let name = format!("{}-{}-{}", host_name(), std::process::id(), now().as_nanos());
        let names: Vec<StageName> = concurrency.keys().copied().collect();
        let redis = servers.ledger.client();
        let pauses = PauseWatch::start(redis.clone()).await?;
        let limits = host_limiter::LeaseLimits::new(&stages.rules);
        stages.host_limiter =
            Some(Arc::new(RedisHostLimiter::new(redis.clone(), name.clone(), limits, pauses.hosts())));
        stages.stored_access = StoredAccess { local_files: false, s3: Some(servers.objects.clone()) };
        let objects = servers.observed_objects();
        let opened = open_stages(&names, &stages, objects.clone()).await?;
        if let Some(instruments) = instruments::get() {
            names.iter().for_each(|stage| instruments.register_stage(*stage));
        }
        let tally = Arc::<DeliveryTally>::default();
        let host_faults = Arc::<HostFaults>::default();
        let shared = Shared {
            broker: Arc::new(servers.broker.clone()),
            ledger: servers.ledger.clone(),
            records: Some(Records::new(objects.clone())),
            observer: Arc::new(vec![
                tally.clone() as Arc<dyn Observer>,
                host_faults.clone(),
                Arc::<StoreFaults>::default(),
            ]),
            name: name.clone(),
            gate: Gate::default(),
            settings: worker,
        };
        let per_stage = |stage| match stage {
            StageName::Fetch => stages.rules.prefetch(),
            stage => concurrency[&stage],
        };
        let workers = workers::assemble(&opened.all, &shared, per_stage, |stage| Pause::new(pauses.stage(stage)));

        let rescorer = opened.scorer.clone().map(|scorer| RescoreWorker {
            broker: servers.broker.clone(),
            objects,
            scorer,
            gate: shared.gate.clone(),
            observer: tally.clone(),
            settings: WorkerSettings {
                concurrency: concurrency[&StageName::Classify],
                pause: Pause::new(pauses.stage(StageName::Classify)),
                ..shared.settings.clone()
            },
            models: KnownModels::default(),
        });

        let heartbeat = Arc::new(Heartbeat::new(redis.clone(), tally, &name, &names));
        let health = Arc::new(Health::new(shutdown.clone()));
        let mut background = JoinSet::new();
        background.spawn(pauses.run());
        background.spawn(heartbeat.clone().run());
        // The server outlives the workers, so that a probe learns that the process shuts down.
        let closing = CancellationToken::new();
        let web = listener.map(|listener| {
            let address = listener.local_addr().ok().map(|address| address.to_string());
            tracing::info!(address, "serves /healthz, /readyz and /metrics");
            background.spawn(health.clone().watch(servers.clone()));
            background.spawn(queue_metrics::run(servers.clone()));
            let router = worker_routes::router(health.clone(), metrics);
            tokio::spawn(web::serve(listener, router, worker_routes::LIMITS, closing.clone()))
        });
        let mut running = JoinSet::new();
        if let Some(rescorer) = rescorer {
            let shutdown = shutdown.clone();
            running.spawn(async move { rescorer.run(shutdown).await });
        }
        for worker in workers {
            let stage = worker.stage.name();
            tracing::info!(%stage, concurrency = worker.settings.concurrency, worker = name, "started");
            let shutdown = shutdown.clone();
            running.spawn(async move { worker.run(shutdown).await });
        }
        let mut fault = None;
        while let Some(ended) = running.join_next().await {
            let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            fault = fault.or(ended.err());
            if !shutdown.is_cancelled() {
                health.set_broken();
            }
            // One stage that cannot continue ends the process, so that its supervisor starts a new one.
            shutdown.cancel();
        }
        for (fault, photos) in host_faults.ended() {
            tracing::info!(photos, "not fetched: {fault}");
        }
        background.shutdown().await;
        heartbeat.leave().await;
        closing.cancel();
        if let Some(web) = web {
            let _ = web.await;
        }
        servers.broker.close().await;
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }
}

/// The name of the machine or the pod.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
