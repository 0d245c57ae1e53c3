//! Assembles the workers of a process.

use std::sync::Arc;

use crate::archive::records::Records;
use crate::broker::Broker;
use crate::domain::StageName;
use crate::ledger::Ledger;
use crate::pipeline::event::Observer;
use crate::pipeline::gate::Gate;
use crate::pipeline::pause::Pause;
use crate::pipeline::stage::Stage;
use crate::pipeline::stages::runs_native_code;
use crate::pipeline::worker::{Worker, WorkerSettings};

/// What the workers of a process share.
pub struct Shared {
    pub broker: Arc<dyn Broker>,
    pub ledger: Arc<dyn Ledger>,
    /// None: the ledger itself keeps everything about ended photos.
    pub records: Option<Records>,
    pub observer: Arc<dyn Observer>,
    /// Unique among all processes, including restarts.
    pub name: String,
    /// Keeps photos that may crash the process apart.
    pub gate: Gate,
    /// Each worker gets its own concurrency and pause.
    pub settings: WorkerSettings,
}

/// One worker for each stage. Those whose stages run native code share a gate.
pub fn assemble(
    stages: &[Arc<dyn Stage>],
    shared: &Shared,
    concurrency: impl Fn(StageName) -> usize,
    pause: impl Fn(StageName) -> Pause,
) -> Vec<Worker> {
    let worker = |stage: &Arc<dyn Stage>| Worker {
        stage: stage.clone(),
        broker: shared.broker.clone(),
        ledger: shared.ledger.clone(),
        records: shared.records.clone(),
        observer: shared.observer.clone(),
        gate: runs_native_code(stage.name()).then(|| shared.gate.clone()),
        name: shared.name.clone(),
        settings: WorkerSettings {
            concurrency: concurrency(stage.name()),
            pause: pause(stage.name()),
            ..shared.settings.clone()
        },
    };
    stages.iter().map(worker).collect()
}
