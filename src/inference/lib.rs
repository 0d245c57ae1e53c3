//! onnxruntime, loaded once per process, and reading and writing of ONNX files.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;

pub mod file_hash;
mod models;
pub mod onnx;

pub use models::Models;

/// Disables the telemetry of onnxruntime.
///
/// Since version 1.32 the library creates a database in `~/.cache/Microsoft` when it is loaded, and uploads events from
/// it. [`Environment`] can switch this off only afterwards. The library reads this variable while it is loaded.
///
/// # Safety
/// No other thread may read or write the environment meanwhile, so call it before any thread is started.
pub unsafe fn disable_telemetry() {
    // SAFETY: the caller guarantees it.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
}

#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    #[error("cannot read {}: {cause}; `make setup` fetches it", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{} is not a usable onnxruntime: {detail}; `make setup` fetches the right one", path.display())]
    Library { path: PathBuf, detail: String },
    #[error("onnxruntime rejects the model {model}: {detail}; `make setup` fetches a fresh copy")]
    Model { model: String, detail: String },
    #[error("the model {model} cannot be run: {detail}")]
    Run { model: String, detail: String },
}

/// The onnxruntime environment of this process. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    environment: Environment,
}

impl Runtime {
    /// Loads the shared library at `library`. Later calls return the first library, whatever their path: a process has
    /// one onnxruntime.
    ///
    /// # Errors
    /// The file cannot be read, or is not onnxruntime 1.24 or later.
    pub fn load(library: &Path) -> Result<Self, InferenceError> {
        // A second environment is impossible even after the first is dropped: the library is process-wide.
        static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

        let mut loaded = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(environment) = &*loaded {
            return Ok(Self { environment: environment.clone() });
        }
        // The loader would search a relative name in the system's library folders.
        let path = library
            .canonicalize()
            .map_err(|cause| InferenceError::Unreadable { path: library.to_path_buf(), cause })?;
        let unusable = |detail: String| InferenceError::Library { path: path.clone(), detail };
        let environment = ort::init_from(&path)
            .map_err(|error| unusable(error.to_string()))?
            .with_name("facemill")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        environment.set_log_level(LogLevel::Error);
        *loaded = Some(environment.clone());
        Ok(Self { environment })
    }

    /// Creates a session for a model in memory. Errors name it `model`. `threads` work on one operator; use 1 where
    /// photos are processed in parallel.
    ///
    /// # Errors
    /// onnxruntime rejects the model.
    pub fn session(&self, model: &str, bytes: &[u8], threads: usize) -> Result<Session, InferenceError> {
        self.build(bytes, threads)
            .map_err(|error| InferenceError::Model { model: model.to_owned(), detail: error.to_string() })
    }

    fn build(&self, bytes: &[u8], threads: usize) -> ort::Result<Session> {
        Session::builder(&self.environment)?
            .with_intra_threads(threads.max(1))?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .commit_from_memory(bytes)
    }
}

/// Reads the file of a model.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, InferenceError> {
    std::fs::read(path).map_err(|cause| InferenceError::Unreadable { path: path.to_path_buf(), cause })
}

#[cfg(test)]
mod tests {
    use ort::value::TensorRef;

    use super::onnx::{self, AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
    use super::*;
    use crate::Models;

    fn runtime() -> Runtime {
        let models = Models::find(std::env::var_os(Models::ENV).map(PathBuf::from));
        Runtime::load(&models.onnxruntime()).expect("onnxruntime (`make setup` fetches it)")
    }

    #[test]
    fn onnxruntime_runs_a_graph_built_here() {
        // y = x W + b
        let graph = GraphProto {
            name: Some("affine".into()),
            node: vec![NodeProto::new("Gemm", &["x", "w", "b"], &["y"]).with(AttributeProto::int("transB", 1))],
            initializer: vec![
                TensorProto::floats("w", &[2, 3], &[1., 2., 3., 4., 5., 6.]),
                TensorProto::floats("b", &[2], &[0.5, -0.5]),
            ],
            input: vec![ValueInfoProto::floats("x", &[onnx::Dim::Named("batch"), onnx::Dim::Fixed(3)])],
            output: vec![ValueInfoProto::floats("y", &[onnx::Dim::Named("batch"), onnx::Dim::Fixed(2)])],
            ..GraphProto::default()
        };
        let bytes = ModelProto::new(graph, 13).encode();
        let mut session = runtime().session("affine", &bytes, 1).unwrap();
        let x = TensorRef::from_array_view(([2usize, 3], &[1f32, 1., 1., 0., 0., 1.][..])).unwrap();
        let outputs = session.run(ort::inputs!["x" => x]).unwrap();
        let (shape, y) = outputs["y"].try_extract_tensor::<f32>().unwrap();
        assert_eq!((&shape[..], y), (&[2i64, 2][..], &[6.5f32, 14.5, 3.5, 5.5][..]));
    }

    #[test]
    fn errors_name_the_file_and_the_fix() {
        let nowhere = read(Path::new("/nowhere/yunet.onnx")).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere/yunet.onnx") && nowhere.contains("make setup"), "{nowhere}");
        let garbage = runtime().session("some.onnx", b"not a model", 1).unwrap_err().to_string();
        assert!(garbage.contains("some.onnx"), "{garbage}");
    }
}
