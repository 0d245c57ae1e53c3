//! Settings that more than one command needs, and where they come from.

use std::path::{Path, PathBuf};

/// The folder with the models and onnxruntime; `models/README.md` says where each file comes from.
#[derive(Debug, Clone)]
pub struct Models {
    folder: PathBuf,
}

impl Models {
    pub const ENV: &'static str = "FACEMILL_MODELS";

    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder that was asked for; else `models` below the working folder; else beside the program or above it,
    /// where an image or `target/release` has it.
    pub fn find(asked: Option<PathBuf>) -> Self {
        if let Some(folder) = asked {
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

    /// The YuNet face detector, as published: fixed 640x640 input.
    pub fn yunet(&self) -> PathBuf {
        self.folder.join("yunet.onnx")
    }

    /// EfficientNet-Lite0's ImageNet weights, as torch saves them. Only training reads it.
    pub fn lite0(&self) -> PathBuf {
        self.folder.join("efficientnet-lite0.pth")
    }

    /// The OK/NG classifier, one ONNX file. Ours.
    pub fn classifier(&self) -> PathBuf {
        self.folder.join("classifier.onnx")
    }

    pub fn onnxruntime(&self) -> PathBuf {
        self.folder.join("libonnxruntime.so")
    }
}
