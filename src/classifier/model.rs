//! The finished classifier: one ONNX file that takes a crop and its mirror features and answers P(OK).

use std::path::Path;

use bytes::Bytes;
use image::RgbImage;
use image::imageops::{self, FilterType};
use ort::session::Session;
use ort::value::TensorRef;

use super::lite0::SIDE;
use crate::domain::{ContentHash, Crop};
use crate::inference::onnx::ModelProto;
use crate::inference::{self, InferenceError, Runtime};
use crate::vision::image::{Limits, decode};

/// Mirror features: the share of mirrored pixels in the crop, in the head's ellipse, and in 16 cells, row by row.
pub const MIRRORS: usize = 18;
const CELLS: usize = MIRRORS - 2;
/// Pixels of the largest crop that is taken.
const MAX_PIXELS: u64 = 50_000_000;

/// Names in the file.
pub(super) const NAME: &str = "facemill-okng";
pub(super) const VERSION: &str = "1";
pub(super) const MIRRORED: &str = "mirrored";
pub(super) const P_OK: &str = "p_ok";

/// Keys of the file's metadata.
pub mod meta {
    pub const NAME: &str = "name";
    pub const VERSION: &str = "version";
    /// Scores from here on count as OK, unless a person sets another threshold.
    pub const THRESHOLD: &str = "threshold";
    /// SHA-256 over all labels and pictures that it was trained, tuned and measured with, in the order of their lines.
    pub const TRAINING_DIGEST: &str = "training_digest";
    /// What it was made from, in a few words.
    pub const CREATED_FROM: &str = "created_from";
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error("{file} is not a classifier of facemill's: {detail}; `facemill train` makes one")]
    Other { file: String, detail: String },
    #[error("the classifier failed on {crops} crops: {detail}")]
    Run { crops: usize, detail: String },
}

/// What the classifier looks at: a crop as 224x224 pixels, and its mirror features.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pixels: RgbImage,
    mirrors: [f32; MIRRORS],
}

impl Input {
    /// Decodes a crop as it was saved.
    ///
    /// # Errors
    /// Not a picture, or one that is too large to be a crop; what exactly, in words.
    pub fn decode(bytes: &[u8], mirrors: [f32; MIRRORS]) -> Result<Self, String> {
        let crop = decode(bytes, Limits { pixels: MAX_PIXELS }).map_err(|error| error.to_string())?;
        Ok(Self::new(&crop, mirrors))
    }

    /// Brings a crop of any size to the network's.
    pub fn new(crop: &RgbImage, mirrors: [f32; MIRRORS]) -> Self {
        let side = SIDE as u32;
        let pixels = if crop.dimensions() == (side, side) {
            crop.clone()
        } else {
            imageops::resize(crop, side, side, FilterType::Triangle)
        };
        Self { pixels, mirrors }
    }

    /// Red, green and blue of 224x224 pixels, row by row.
    pub fn pixels(&self) -> &[u8] {
        self.pixels.as_raw()
    }

    pub fn mirrors(&self) -> &[f32; MIRRORS] {
        &self.mirrors
    }
}

/// The mirror features of a crop's record, in the order that the model takes.
///
/// # Errors
/// The grid has not 16 cells, or a share is not between 0 and 1.
pub fn mirrors_of(crop: &Crop) -> Result<[f32; MIRRORS], String> {
    mirrors(crop.mirrored, crop.mirrored_head, &crop.mirrored_grid)
}

pub(super) fn mirrors(all: f64, head: f64, grid: &[f32]) -> Result<[f32; MIRRORS], String> {
    if grid.len() != CELLS {
        return Err(format!("mirrored_grid has {} values instead of {CELLS}", grid.len()));
    }
    let mut mirrors = [all as f32, head as f32, 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.];
    mirrors[2..].copy_from_slice(grid);
    match mirrors.iter().find(|share| !(0.0..=1.0).contains(*share)) {
        Some(share) => Err(format!("a mirrored share of {share} is not between 0 and 1")),
        None => Ok(mirrors),
    }
}

/// A classifier's file in memory, with the facts that its metadata holds.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// Names the file in errors.
    source: String,
    pub bytes: Bytes,
    pub sha256: ContentHash,
    /// Name, version and the start of the file's hash: `facemill-okng-1@0123abcd`.
    pub name: String,
    /// A crop with this P(OK) or more counts as OK, unless a person sets another threshold.
    pub threshold: f64,
}

impl ModelFile {
    /// # Errors
    /// The file cannot be read, or is not a classifier.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Self::from_bytes(&path.display().to_string(), inference::read(path)?.into())
    }

    /// A file in memory. Errors name it `source`.
    pub fn from_bytes(source: &str, bytes: Bytes) -> Result<Self, ModelError> {
        let other = |detail: String| ModelError::Other { file: source.into(), detail };
        let file = ModelProto::decode(&bytes[..]).map_err(|error| other(error.to_string()))?;
        let entry = |key: &str| file.metadata(key).ok_or_else(|| other(format!("it has no `{key}`")));
        if entry(meta::NAME)? != NAME {
            return Err(other(format!("it calls itself `{}`", entry(meta::NAME)?)));
        }
        let threshold = entry(meta::THRESHOLD)?.parse().map_err(|_| other("its threshold is no number".into()))?;
        let sha256 = ContentHash::of(&bytes);
        let name = format!("{NAME}-{}@{}", entry(meta::VERSION)?, &sha256.to_string()[..8]);
        Ok(Self { source: source.into(), bytes, sha256, name, threshold })
    }

    /// The value of a metadata entry.
    pub fn metadata(&self, key: &str) -> Option<String> {
        ModelProto::decode(&self.bytes[..]).ok()?.metadata(key).map(str::to_owned)
    }

    /// A file that no runtime opens, for tests of what surrounds the model.
    #[cfg(test)]
    pub fn example() -> Self {
        let bytes = Bytes::from_static(b"example");
        let sha256 = ContentHash::of(&bytes);
        Self { source: "example".into(), bytes, sha256, name: "example".into(), threshold: 0.5 }
    }

    /// The classifier, for one thread.
    pub fn open(&self, runtime: &Runtime) -> Result<Model, ModelError> {
        let session = runtime.session(&self.source, &self.bytes, 1)?;
        Ok(Model { session, name: self.name.clone(), threshold: self.threshold })
    }
}

/// The classifier, ready to judge. One per thread.
pub struct Model {
    session: Session,
    name: String,
    threshold: f64,
}

impl Model {
    /// Opens the file at `path`, for one thread.
    ///
    /// # Errors
    /// It is not there, is no ONNX file, or is another model.
    pub fn open(path: &Path, runtime: &Runtime) -> Result<Self, ModelError> {
        ModelFile::read(path)?.open(runtime)
    }

    /// The same from a file in memory, which errors call `source`.
    pub fn from_bytes(source: &str, bytes: &[u8], runtime: &Runtime) -> Result<Self, ModelError> {
        ModelFile::from_bytes(source, Bytes::copy_from_slice(bytes))?.open(runtime)
    }

    /// Name, version and the first half of the file's fingerprint: `facemill-okng-1@0123abcd`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Scores from here on count as OK, as its training chose it.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// P(OK) of each crop, in their order. All of the graph's arithmetic is convolutions, which onnxruntime computes
    /// crop by crop: a score has the same bits whatever else is in the batch.
    pub fn predict(&mut self, batch: &[Input]) -> Result<Vec<f64>, ModelError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let crops = batch.len();
        let pixels: Vec<u8> = batch.iter().flat_map(|input| input.pixels.as_raw()).copied().collect();
        let mirrors: Vec<f32> = batch.iter().flat_map(|input| input.mirrors).collect();
        let failed = |error: ort::Error| ModelError::Run { crops, detail: error.to_string() };
        let pixels = TensorRef::from_array_view(([crops, SIDE, SIDE, 3], &pixels[..])).map_err(failed)?;
        let mirrors = TensorRef::from_array_view(([crops, MIRRORS], &mirrors[..])).map_err(failed)?;
        let inputs = ort::inputs![super::lite0::Trunk::INPUT => pixels, MIRRORED => mirrors];
        let outputs = self.session.run(inputs).map_err(failed)?;
        let (_, scores) = outputs[P_OK].try_extract_tensor::<f32>().map_err(failed)?;
        if scores.len() != crops || scores.iter().any(|score| !score.is_finite()) {
            return Err(ModelError::Run { crops, detail: "it answered something else than probabilities".into() });
        }
        Ok(scores.iter().map(|&score| f64::from(score)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_features_are_checked() {
        assert_eq!(mirrors(0.25, 1.0, &[0.5; 16]).unwrap()[..3], [0.25, 1.0, 0.5]);
        assert!(mirrors(0.25, 1.0, &[0.5; 15]).unwrap_err().contains("15"));
        assert!(mirrors(f64::NAN, 1.0, &[0.5; 16]).unwrap_err().contains("NaN"));
        assert!(mirrors(0.25, -0.1, &[0.5; 16]).unwrap_err().contains("-0.1"));
    }

    #[test]
    fn a_crop_of_any_size_becomes_one_of_224() {
        for side in [1, 224, 700] {
            let input = Input::new(&RgbImage::from_pixel(side, side, image::Rgb([9, 8, 7])), [0.0; MIRRORS]);
            assert_eq!(input.pixels.dimensions(), (224, 224));
            assert!(input.pixels.pixels().all(|pixel| pixel.0 == [9, 8, 7]));
        }
    }
}
