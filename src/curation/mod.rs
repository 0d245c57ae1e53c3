//! Curation: people judge the faces of a run in a web page.
//!
//! The page and other programs use the same API ([`routes`]; `openapi.json` describes it). What a person judges is in the
//! log of verdicts in the object store before the request is answered ([`recorder`]); all else here can be lost: the
//! index of faces is derived, and lists and leases are for the moment.

pub mod access;
mod assets;
mod balance;
mod border;
mod bulk;
mod card;
mod counts;
mod duplicates;
mod entries;
mod error;
mod faces;
mod feature_settings;
mod follow;
mod judge;
mod leases;
mod lists;
mod metrics;
mod openapi;
mod part;
mod pictures;
mod recorder;
mod request;
mod routes;
mod session;
mod spans;
mod state;
mod statistics;
mod suggest;
mod thumbnails;
mod tickets;
mod training;
mod training_job;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use tokio_util::sync::CancellationToken;

use access::Access;
pub use feature_settings::FeatureSettings;
use leases::Leases;
use lists::Lists;
use recorder::VerdictRecorder;
use state::{CurationState, Shared};
use thumbnails::Thumbnails;
use tickets::TicketKey;
use training_job::TrainingJob;

use crate::archive::run_classifier::RunClassifiers;
use crate::dataset::{FollowError, Index, IndexError, SharedIndex};
use crate::memory::MemoryBudget;
use crate::objects::ObjectError;
use crate::services::run_target::RunTarget;
use crate::verdicts::VerdictLog;

/// Settings of a server.
pub struct CurationSettings {
    /// The file of the index of faces.
    pub index: PathBuf,
    /// OK faces that the person wants.
    pub wanted: u64,
    /// Where Jaeger is, for links to traces.
    pub jaeger: Option<String>,
    /// The folder of thumbnails, and the bytes that it may have.
    pub thumbnails: PathBuf,
    pub thumbnail_bytes: u64,
    pub access: Access,
    pub features: FeatureSettings,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CurationError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("cannot read the verdicts and the key of curation: {0}")]
    Objects(#[from] ObjectError),
    #[error("cannot use the folder of thumbnails {}: {error}; set XDG_CACHE_HOME", folder.display())]
    Thumbnails { folder: PathBuf, error: std::io::Error },
}

/// The server of one run.
pub struct Curation {
    shared: Shared,
    features: FeatureSettings,
}

impl Curation {
    /// Bytes of pictures that are being sent at the same time.
    const PICTURE_MEMORY: u64 = 256 << 20;

    /// Opens the index and brings it up to date. `progress` receives the numbers of photos that it takes in.
    pub async fn open(
        target: &RunTarget,
        settings: CurationSettings,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, CurationError> {
        let CurationSettings { index, wanted, jaeger, thumbnails, thumbnail_bytes, access, features } = settings;
        let thumbnails = Thumbnails::open(&thumbnails, thumbnail_bytes)
            .map_err(|error| CurationError::Thumbnails { folder: thumbnails, error })?;
        let index = SharedIndex::new(Index::open(&index, &target.run)?);
        let source = target.index_source();
        let log = VerdictLog::new(target.objects.clone(), target.run.clone());
        let recorder = VerdictRecorder::open(log, index.clone(), source.clone()).await?;
        source.update(&mut index.clone(), progress).await?;
        let shared = CurationState {
            run: target.run.clone(),
            wanted,
            jaeger,
            access,
            ledger: target.ledger.clone(),
            objects: target.objects.clone(),
            records: target.records.clone(),
            classifiers: RunClassifiers::new(target.objects.clone()),
            tickets: TicketKey::open(target.objects.clone(), target.run.clone()).await?,
            index,
            source,
            recorder,
            thumbnails,
            memory: Arc::new(MemoryBudget::new(Self::PICTURE_MEMORY)),
            bulk: tokio::sync::Mutex::new(()),
            training: TrainingJob::new(features.clone()),
            lists: Mutex::new(Lists::default()),
            leases: Mutex::new(Leases::default()),
        };
        Ok(Self { shared: Arc::new(shared), features })
    }

    /// All paths of the server.
    pub fn router(&self) -> Router {
        routes::router(self.shared.clone())
    }

    /// Keeps the index up to date until `shutdown`: new faces, predictions, verdicts of others, the classifier, and the
    /// suggested order.
    pub async fn follow(&self, shutdown: CancellationToken) {
        let suggest = suggest::keep_suggesting(&self.shared, &self.features, shutdown.clone());
        tokio::join!(follow::follow(&self.shared, shutdown), suggest);
    }
}
