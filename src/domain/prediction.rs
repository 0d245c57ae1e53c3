//! What the classifier says about a crop.

use serde::{Deserialize, Serialize};

use super::ContentHash;

/// The result of classify for one crop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Probability that a person would say OK, rounded to four decimals.
    pub p_ok: f64,
    /// Name and version of the model. Scores of different models cannot be compared.
    pub model: String,
    /// SHA-256 of the model's file.
    pub model_sha256: ContentHash,
}

impl Prediction {
    /// Rounds P(OK) to four decimals: more than the model's accuracy, and equal on all machines but for rare roundings.
    pub fn new(p_ok: f64, model: &str, model_sha256: ContentHash) -> Self {
        Self { p_ok: (p_ok * 1e4).round() / 1e4, model: model.to_owned(), model_sha256 }
    }
}
