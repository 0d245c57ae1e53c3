//! The metrics of the queues: their depths, and the age of their oldest photos.
//!
//! Every worker exports the same numbers. One of them measures; the others read its report from Redis. So the load on
//! RabbitMQ does not grow with the number of workers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::servers::Servers;
use crate::broker::Broker;
use crate::cluster::queue_reports::{QueueReport, QueueReports};
use crate::domain::StageName;
use crate::domain::clock::now;
use crate::ledger::Ledger;
use crate::redis::RedisClient;
use crate::server_error::ServerError;
use crate::telemetry::instruments::{self, Instruments};

/// Time between two updates of the metrics.
const PERIOD: Duration = Duration::from_secs(15);
/// Time until the next look for the report that another worker measures.
const SOON: Duration = Duration::from_secs(1);

/// Updates the metrics until it is dropped. Does nothing while metrics are off.
pub async fn run(servers: Servers) {
    let Some(instruments) = instruments::get() else { return };
    loop {
        // An unavailable server is a fault of `Health`; here the metrics keep their last values.
        let report = shared_report(servers.ledger.client(), &servers.broker, &*servers.ledger).await;
        if let Ok(Some(report)) = &report {
            record(instruments, report);
        }
        tokio::time::sleep(if matches!(report, Ok(None)) { SOON } else { PERIOD }).await;
    }
}

/// The report of the installation: the valid one, or one that is measured now. None: another worker measures now.
pub async fn shared_report(
    redis: &RedisClient,
    broker: &dyn Broker,
    ledger: &dyn Ledger,
) -> Result<Option<QueueReport>, ServerError> {
    let reports = QueueReports::new(redis);
    if let Some(report) = reports.read().await? {
        return Ok(Some(report));
    }
    if !reports.claim().await? {
        return Ok(None);
    }
    let report = QueueReport { depths: broker.depths().await?, due_since: due_since(ledger).await? };
    reports.write(&report).await?;
    Ok(Some(report))
}

/// The second since which the oldest photo of each stage has been due, over all runs.
async fn due_since(ledger: &dyn Ledger) -> Result<BTreeMap<StageName, u64>, ServerError> {
    let mut oldest = BTreeMap::new();
    for run in ledger.runs().await? {
        for (stage, since) in ledger.due_since(&run).await? {
            let known = oldest.entry(stage).or_insert(since);
            *known = since.min(*known);
        }
    }
    Ok(oldest)
}

fn record(instruments: &Instruments, report: &QueueReport) {
    for depth in &report.depths {
        let Some(stage) = depth.stage else {
            instruments.dead_letters_kept(depth.ready);
            continue;
        };
        for (state, messages) in [("ready", depth.ready), ("in_flight", depth.in_flight), ("delayed", depth.delayed)] {
            instruments.queue(stage, state, messages);
        }
    }
    let now = now().as_secs();
    for stage in StageName::ALL {
        instruments.oldest(stage, report.due_since.get(&stage).map_or(0, |since| now.saturating_sub(*since)));
    }
}
