//! The state that the processes of an installation share beside the ledger: pauses, workers, and leases for requests to
//! hosts. It is in the ledger's Redis server, belongs to the installation and not to a run, and may be lost: no photo's
//! position depends on it.

pub mod hosts;
pub mod keys;
pub mod pauses;
pub mod queue_reports;
pub mod workers;

pub use hosts::Hosts;
pub use pauses::{HostName, PauseWatch, Pauses, Subject};
pub use workers::Workers;
