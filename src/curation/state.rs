//! What all requests share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::Access;
use super::leases::Leases;
use super::lists::Lists;
use super::recorder::VerdictRecorder;
use super::tickets::TicketKey;
use crate::archive::records::Records;
use crate::archive::run_classifier::RunClassifiers;
use crate::dataset::{IndexSource, SharedIndex};
use crate::domain::RunName;
use crate::ledger::Ledger;
use crate::objects::Objects;

/// The parts of a server.
pub struct CurationState {
    pub run: RunName,
    /// OK faces that the person wants.
    pub wanted: u64,
    /// Where Jaeger is, for links to traces.
    pub jaeger: Option<String>,
    pub access: Access,
    pub ledger: Arc<dyn Ledger>,
    pub objects: Arc<dyn Objects>,
    pub records: Option<Records>,
    pub classifiers: RunClassifiers,
    pub index: SharedIndex,
    pub source: IndexSource,
    pub recorder: VerdictRecorder,
    pub tickets: TicketKey,
    pub lists: Mutex<Lists>,
    pub leases: Mutex<Leases>,
}

/// The state of a handler.
pub type Shared = Arc<CurationState>;

/// Locks a part. A panic of another request leaves it whole: each change is one call.
pub fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
