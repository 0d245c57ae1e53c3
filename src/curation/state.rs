//! What all requests share.

use std::sync::{Arc, Mutex};

use super::access::Access;
use super::leases::Leases;
use super::lists::Lists;
use super::recorder::VerdictRecorder;
use super::thumbnails::Thumbnails;
use super::tickets::TicketKey;
use super::training_job::TrainingJob;
use crate::archive::records::Records;
use crate::archive::run_classifier::RunClassifiers;
use crate::dataset::{IndexSource, SharedIndex};
use crate::domain::RunName;
use crate::ledger::Ledger;
use crate::memory::MemoryBudget;
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
    pub thumbnails: Thumbnails,
    /// Memory for pictures that are being sent.
    pub memory: Arc<MemoryBudget>,
    /// One bulk of verdicts is stored at a time.
    pub bulk: tokio::sync::Mutex<()>,
    pub training: TrainingJob,
    pub lists: Mutex<Lists>,
    pub leases: Mutex<Leases>,
}

/// The state of a handler.
pub type Shared = Arc<CurationState>;
