//! The stores of features and of embeddings: where their files are, and opening them.

use std::path::{Path, PathBuf};

use crate::classifier::feature_store::{FeatureKind, FeatureStore};
use crate::cli::dataset::index::cache_of_user;
use crate::cli::failure::Failure;
use crate::services::training::features_file;

#[derive(Debug, Clone, clap::Args)]
pub struct FeatureArgs {
    /// The store of features, a SQLite file that is made again if it is deleted [default: features.sqlite in the run's
    /// folder; otherwise a file in $XDG_CACHE_HOME/facemill]
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// The most megabytes of that file; a crop takes 22 KB
    #[arg(long, value_name = "N", default_value_t = (FeatureStore::MOST_BYTES >> 20) as u32,
        value_parser = clap::value_parser!(u32).range(10..))]
    features_megabytes: u32,
}

impl FeatureArgs {
    /// The file. `folder`: of the run, if it is in one.
    pub fn path(&self, folder: Option<&Path>) -> Result<PathBuf, Failure> {
        match (&self.features, folder) {
            (Some(file), _) => Ok(file.clone()),
            (None, Some(folder)) => Ok(features_file(folder)),
            (None, None) => {
                let cache = cache_of_user("the features of crops");
                let cache = cache.map_err(|fault| Failure::broken(format!("{fault}, or give --features FILE")))?;
                Ok(features_file(&cache))
            }
        }
    }

    pub fn most_bytes(&self) -> u64 {
        u64::from(self.features_megabytes) << 20
    }

    pub fn open(&self, folder: Option<&Path>) -> Result<FeatureStore, Failure> {
        FeatureStore::open(&self.path(folder)?, self.most_bytes()).map_err(Failure::broken)
    }
}

#[derive(Debug, Clone, clap::Args)]
pub struct EmbeddingArgs {
    /// The store of embeddings, a SQLite file that is made again if it is deleted [default: embeddings.sqlite in the run's
    /// folder; otherwise a file in $XDG_CACHE_HOME/facemill]
    #[arg(long, value_name = "FILE")]
    embeddings: Option<PathBuf>,
    /// The most megabytes of that file; a crop takes 0.8 KB
    #[arg(long, value_name = "N", default_value_t = (FeatureKind::EMBEDDINGS.most_bytes >> 20) as u32,
        value_parser = clap::value_parser!(u32).range(10..))]
    embeddings_megabytes: u32,
}

impl EmbeddingArgs {
    const FILE: &'static str = "embeddings.sqlite";

    /// The file. `folder`: of the run, if it is in one.
    pub fn path(&self, folder: Option<&Path>) -> Result<PathBuf, Failure> {
        match (&self.embeddings, folder) {
            (Some(file), _) => Ok(file.clone()),
            (None, Some(folder)) => Ok(folder.join(Self::FILE)),
            (None, None) => {
                let cache = cache_of_user("the embeddings of faces");
                let cache = cache.map_err(|fault| Failure::broken(format!("{fault}, or give --embeddings FILE")))?;
                Ok(cache.join(Self::FILE))
            }
        }
    }

    pub fn open(&self, folder: Option<&Path>) -> Result<FeatureStore, Failure> {
        let most_bytes = u64::from(self.embeddings_megabytes) << 20;
        let opened = FeatureStore::open_kind(FeatureKind::EMBEDDINGS, &self.path(folder)?, most_bytes);
        opened.map_err(Failure::broken)
    }
}
