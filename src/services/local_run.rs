//! A whole run in one process and one folder.

use std::sync::Arc;

use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::workers::{self, Shared};
use crate::archive::refusals::Refusals;
use crate::archive::run_folders::{RunFolder, StoredRunFolders};
use crate::archive::run_settings::{RunSettings, StoredRunSettings};
use crate::dataset::IndexSource;
use crate::domain::clock::now;
use crate::domain::{Candidate, CauseCode, RunName, StageName};
use crate::objects::folder::Folder;
use crate::objects::observed::Observed;
use crate::objects::{ObjectError, Objects};
use crate::pipeline::event::{Observer, PhotoEvent};
use crate::pipeline::gate::Gate;
use crate::pipeline::local::{Countdown, Finish, LocalError, LockedRunDir, RunDir, drive};
use crate::pipeline::pause::Pause;
use crate::pipeline::producer::{Enqueued, ProducerError};
use crate::pipeline::refused;
use crate::pipeline::run_shapes::{AgreeError, landmark_hashes};
use crate::pipeline::stages::{self, Stages, StagesError};
use crate::pipeline::worker;

#[derive(Debug, thiserror::Error)]
pub enum LocalRunError {
    #[error(transparent)]
    Folder(#[from] LocalError),
    #[error(transparent)]
    Settings(#[from] AgreeError),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Stages(#[from] StagesError),
    /// A thread that read a model panicked.
    #[error(transparent)]
    Panic(#[from] JoinError),
}

/// A run in a locked folder, with its stages opened.
pub struct LocalRun {
    pub run: RunName,
    pub dir: LockedRunDir,
    /// The settings that shape the run's crops.
    pub settings: RunSettings,
    pub stages: Stages,
    stage_settings: stages::StageSettings,
}

impl LocalRun {
    /// Opens the stages, locks the folder, and fixes the settings of a new run or takes those of an existing one.
    ///
    /// # Errors
    /// [`LocalRunError::Settings`]: other settings are given than those of the run.
    pub async fn open(dir: &RunDir, mut stage_settings: stages::StageSettings) -> Result<Self, LocalRunError> {
        if dir.is_locked() {
            return Err(LocalError::Occupied(dir.folder().to_owned()).into());
        }
        let folder = dir.objects();
        let objects: Arc<dyn Objects> = Arc::new(folder.clone());
        let run = RunName::default();
        let known = StoredRunSettings::new(objects.clone()).read(&run).await?;
        stage_settings.given.landmarks = Some(stage_settings.given.scheme(known.as_ref()));
        // The models come first: where one is missing, no folder is made.
        let observed = Arc::new(Observed::folder(objects.clone()));
        let stages = open_stages(&StageName::ALL, &stage_settings, observed).await?;
        let mut dir = dir.lock().await?;
        // The folder of the stages knows when it takes no more objects.
        dir.objects = folder;
        // Mixed alignments spoil a training set: an existing run continues only with its own settings.
        let settings =
            stage_settings.given.agree(&run, &landmark_hashes(stage_settings.models.clone()), objects).await?;
        Ok(Self { run, dir, settings, stages, stage_settings })
    }

    /// Permits the run to read the photos of a folder that a person has named.
    pub async fn add_folder(&self, folder: &RunFolder) -> Result<(), ObjectError> {
        StoredRunFolders::new(Arc::new(self.dir.objects.clone())).add(&self.run, folder).await
    }

    /// Enqueues the candidates that the run does not know yet. `progress` receives how many are done.
    pub async fn enqueue(
        &self,
        candidates: &[Candidate],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Enqueued, ProducerError> {
        let refusals = Refusals::new(Arc::new(self.dir.objects.clone()));
        let (ledger, broker) = (&self.dir.ledger, &self.dir.broker);
        refused::enqueue(&self.run, candidates, ledger, broker, None, &refusals, progress).await
    }

    /// How many photos a stage of native code processes at a time.
    pub fn cores(&self) -> usize {
        self.stage_settings.cores
    }

    /// What the index of the run is filled from.
    pub fn index_source(&self) -> IndexSource {
        let (ledger, objects) = (Arc::new(self.dir.ledger.clone()), Arc::new(self.dir.objects.clone()));
        IndexSource::new(self.run.clone(), ledger, objects, None)
    }

    /// Processes photos until every photo has ended, or until `shutdown`.
    pub async fn process(
        &self,
        settings: worker::WorkerSettings,
        mut observers: Vec<Arc<dyn Observer>>,
        shutdown: CancellationToken,
    ) -> Result<Finish, LocalError> {
        let countdown = Arc::new(Countdown::default());
        observers.insert(0, countdown.clone());
        let shutdown = shutdown.child_token();
        observers.push(Arc::new(RoomCheck { folder: self.dir.objects.clone(), shutdown: shutdown.clone() }));
        let shared = Shared {
            broker: Arc::new(self.dir.broker.clone()),
            ledger: Arc::new(self.dir.ledger.clone()),
            records: None,
            observer: Arc::new(observers),
            name: format!("local-{}-{}", std::process::id(), now().as_nanos()),
            gate: Gate::default(),
            settings,
        };
        let concurrency = |stage| match stage {
            StageName::Fetch => self.stage_settings.rules.prefetch(),
            _ => self.stage_settings.cores,
        };
        let workers = workers::assemble(&self.stages.all, &shared, concurrency, |_| Pause::default());
        let finish = drive(&self.run, &self.dir.ledger, &self.dir.broker, workers, countdown, shutdown).await?;
        match (finish, self.dir.objects.write_refusal()) {
            (Finish::Interrupted { .. }, Some(refusal)) => Err(LocalError::NoRoom(refusal.clone())),
            _ => Ok(finish),
        }
    }
}

/// Ends the run once its folder takes no more objects: all photos would wait for the same reason.
struct RoomCheck {
    folder: Folder,
    shutdown: CancellationToken,
}

impl Observer for RoomCheck {
    fn on_event(&self, event: &PhotoEvent<'_>) {
        let cause = event.event.cause.as_ref();
        if cause.is_some_and(|cause| cause.code == CauseCode::StoreRefused) && self.folder.write_refusal().is_some() {
            self.shutdown.cancel();
        }
    }
}

/// Opens stages on a thread of their own, because their models are large.
pub async fn open_stages(
    names: &[StageName],
    settings: &stages::StageSettings,
    objects: Arc<dyn Objects>,
) -> Result<Stages, LocalRunError> {
    let (names, settings) = (names.to_vec(), settings.clone());
    Ok(spawn_blocking(move || Stages::open(&names, &settings, &objects)).await??)
}
