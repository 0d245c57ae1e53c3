//! Serves the trained classifier: P(OK) of a crop; and the features that its head is trained on.
//!
//! OK means that the whole head is visible. NG means that the mirrored border shows a second crown, ear or face.
//!
//! - [`model`]: the ONNX file and its input; `training` makes such a file
//! - [`backbone`]: the frozen network that extracts features
//! - [`coarse`]: the same, averaged: for comparing crops, and for few verdicts
//! - [`features`]: features of crops; [`crop_threads`]: reads crops while several threads work on them
//! - [`feature_store`]: features by crop in a file of this machine, up to a bound

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

pub mod backbone;
pub mod coarse;
pub mod crop_threads;
pub mod feature_store;
pub mod features;
pub mod model;
