//! What the features of crops are computed with, and where they are kept.

use std::path::PathBuf;

use crate::classifier::feature_store::{FeatureStore, FeatureStoreError};
use crate::inference::Models;

#[derive(Debug, Clone)]
pub struct FeatureSettings {
    pub models: Models,
    /// The file of the feature store, and the bytes that it may have.
    pub store: PathBuf,
    pub most_bytes: u64,
}

impl FeatureSettings {
    pub fn open_store(&self) -> Result<FeatureStore, FeatureStoreError> {
        FeatureStore::open(&self.store, self.most_bytes)
    }
}
