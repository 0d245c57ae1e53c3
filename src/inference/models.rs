//! Where the models are.

use std::path::{Path, PathBuf};

/// The folder with the models and onnxruntime. `models/README.md` lists the source of each file.
#[derive(Debug, Clone)]
pub struct Models {
    folder: PathBuf,
}

impl Models {
    pub const ENV: &'static str = "FACEMILL_MODELS";

    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Uses `requested`, else `models` in the working folder, else `models` beside the program or in a folder above it
    /// (the container image and `target/release` have it there).
    pub fn find(requested: Option<PathBuf>) -> Self {
        if let Some(folder) = requested {
            return Self::at(folder);
        }
        let here = PathBuf::from("models");
        let program = std::env::current_exe().unwrap_or_default();
        let above = program.ancestors().skip(1).map(|folder| folder.join("models"));
        let found = std::iter::once(here.clone()).chain(above).find(|folder| folder.join(Self::LANDMARKS).is_file());
        Self::at(found.unwrap_or(here))
    }

    const LANDMARKS: &'static str = "landmarks-68.dat";

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// dlib's 68-landmark shape predictor.
    pub fn landmarks(&self) -> PathBuf {
        self.folder.join(Self::LANDMARKS)
    }

    /// The YuNet face detector as published, with a fixed 640x640 input.
    pub fn yunet(&self) -> PathBuf {
        self.folder.join("yunet.onnx")
    }

    /// EfficientNet-Lite0 with ImageNet weights, converted to ONNX. Only training reads it.
    pub fn lite0(&self) -> PathBuf {
        self.folder.join("efficientnet-lite0.onnx")
    }

    /// dlib's network for embeddings of faces. Only the search for identities reads it.
    pub fn face_recognition(&self) -> PathBuf {
        self.folder.join("face-recognition.dat")
    }

    /// The OK/NG classifier that `facemill train` made.
    pub fn classifier(&self) -> PathBuf {
        self.folder.join("classifier.onnx")
    }

    /// A file that is missing, of those that a run needs.
    pub fn missing(&self) -> Option<PathBuf> {
        let needed = [self.landmarks(), self.yunet(), self.classifier(), self.onnxruntime()];
        needed.into_iter().find(|path| !path.is_file())
    }

    /// The shared library of onnxruntime.
    pub fn onnxruntime(&self) -> PathBuf {
        self.folder.join("libonnxruntime.so")
    }
}
