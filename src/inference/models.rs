//! Where the models are.

use std::path::{Path, PathBuf};

use facemill_domain::LandmarkScheme;

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
        let found = std::iter::once(here.clone()).chain(above).find(|folder| folder.join(Self::YUNET).is_file());
        Self::at(found.unwrap_or(here))
    }

    /// Every run needs it.
    const YUNET: &'static str = "yunet.onnx";

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model of a landmark scheme.
    pub fn landmarks(&self, scheme: LandmarkScheme) -> PathBuf {
        match scheme {
            LandmarkScheme::Ibug => self.ibug(),
            LandmarkScheme::Permissive => self.mesh(),
        }
    }

    /// dlib's 68-landmark shape predictor.
    pub fn ibug(&self) -> PathBuf {
        self.folder.join("landmarks-68.dat")
    }

    /// MediaPipe's face mesh, converted to ONNX.
    pub fn mesh(&self) -> PathBuf {
        self.folder.join("face-mesh.onnx")
    }

    /// The YuNet face detector as published, with a fixed 640x640 input.
    pub fn yunet(&self) -> PathBuf {
        self.folder.join(Self::YUNET)
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

    /// A file that is missing, of those that a run with this landmark scheme needs.
    pub fn missing(&self, scheme: LandmarkScheme) -> Option<PathBuf> {
        let needed = [self.landmarks(scheme), self.yunet(), self.classifier(), self.onnxruntime()];
        needed.into_iter().find(|path| !path.is_file())
    }

    /// The shared library of onnxruntime.
    pub fn onnxruntime(&self) -> PathBuf {
        self.folder.join("libonnxruntime.so")
    }
}
