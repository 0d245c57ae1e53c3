//! Code that tests and benchmarks share: real servers, test doubles, synthetic data.

pub mod collection;
pub mod collector;
pub mod curation;
pub mod faces;
pub mod failpoints;
pub mod objects;
pub mod portraits;
pub mod reference;
pub mod servers;
pub mod synthetic;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long tests wait for what must come: long enough for a machine that is busy with twenty other things. Only what
/// never comes takes that long.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The root of the repository.
pub fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The `facemill` program. Cargo builds it before integration tests and benchmarks.
pub fn program() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_facemill").expect("cargo names the program for tests and benchmarks").into()
}
