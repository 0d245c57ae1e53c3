//! The state that the processes of an installation share beside the ledger: pauses, workers, and leases for requests to
//! hosts. It is kept in the ledger's Redis server and belongs to the installation, not to a run. It may be lost: no
//! photo's status depends on it.

pub mod host_limiter;
pub mod keys;
pub mod pauses;
pub mod queue_reports;
pub mod workers;

pub use host_limiter::RedisHostLimiter;
pub use pauses::{HostName, PauseTarget, PauseWatch, Pauses};
pub use workers::{ActiveWorker, WorkerReport, Workers};
