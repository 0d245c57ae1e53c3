//! The clients of an installation's three servers.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::rabbitmq::RabbitMq;
use crate::ledger::Ledger;
use crate::ledger::redis::Redis;
use crate::objects::Objects;
use crate::objects::observed::Observed;
use crate::objects::s3::S3;

/// Clients of RabbitMQ, Redis and S3. They connect on first use.
#[derive(Clone)]
pub struct Servers {
    pub broker: RabbitMq,
    pub ledger: Arc<Redis>,
    pub objects: S3,
}

/// The faults of all servers that failed a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n          "))]
pub struct ServerFaults(pub Vec<String>);

impl Servers {
    /// Checks that all three servers answer and permit what is needed.
    pub async fn check(&self) -> Result<(), ServerFaults> {
        let (broker, ledger, objects) = self.checks().await;
        let faults: Vec<String> = [broker.err(), ledger.err(), objects.err()].into_iter().flatten().collect();
        if faults.is_empty() { Ok(()) } else { Err(ServerFaults(faults)) }
    }

    /// The results for RabbitMQ, Redis and S3, in this order.
    pub async fn checks(&self) -> (Result<(), String>, Result<(), String>, Result<(), String>) {
        tokio::join!(
            async { self.broker.check().await.map_err(|error| error.to_string()) },
            async { self.ledger.check().await.map_err(|error| error.to_string()) },
            async { self.objects.check().await.map_err(|error| error.to_string()) },
        )
    }

    /// The object store for stages, with traces and metrics.
    pub fn observed_objects(&self) -> Arc<dyn Objects> {
        Arc::new(Observed::bucket(Arc::new(self.objects.clone()), self.objects.bucket()))
    }
}
