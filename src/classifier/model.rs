//! The trained classifier: one ONNX file. Input: a crop and its mirror features. Output: P(OK).

use std::path::Path;

use bytes::Bytes;
use image::RgbImage;
use image::imageops::{self, FilterType};
use ort::session::Session;
use ort::value::TensorRef;

use crate::domain::{ContentHash, Crop};
use crate::inference::onnx::ModelProto;
use crate::inference::{self, InferenceError, Runtime};
use crate::vision::image::{Limits, decode};

/// Width and height of the input in pixels.
pub const SIDE: usize = 224;
/// Mirror features: the share of mirrored pixels in the crop, in the ellipse of the head, and in 16 cells, row by row.
pub const MIRRORS: usize = 18;
const CELLS: usize = MIRRORS - 2;
/// Crops with more pixels are rejected.
const MAX_PIXELS: u64 = 50_000_000;

/// Name and version in the metadata.
pub const NAME: &str = "facemill-okng";
pub const VERSION: &str = "1";
/// Names of the inputs: `[N, 224, 224, 3]` bytes and `[N, 18]` floats.
pub const CROP: &str = "crop";
pub const MIRRORED: &str = "mirrored";
/// Name of the output: `[N, 1]` floats.
pub const P_OK: &str = "p_ok";

/// Keys of the metadata.
pub mod meta {
    pub const NAME: &str = "name";
    pub const VERSION: &str = "version";
    /// A score at or above it counts as OK, unless a person sets another threshold.
    pub const THRESHOLD: &str = "threshold";
    /// SHA-256 over all labels and crops of the training, validation and test parts, in the order of their lines.
    pub const TRAINING_DIGEST: &str = "training_digest";
    /// Short description of the training data.
    pub const CREATED_FROM: &str = "created_from";
    /// The classes: `ng,ok`. The output is the probability of the second one.
    pub const LABELS: &str = "labels";
    /// Names, shapes and types of the inputs.
    pub const INPUT: &str = "input";
    /// The rule that divides people into those for training and those for the test. The model has not seen the latter.
    pub const SIDES: &str = "sides";
    /// Numbers of crops, of OK and of people on both sides, as JSON.
    pub const COUNTS: &str = "counts";
    /// Figures of the test side, as JSON.
    pub const MEASURES: &str = "measures";
    /// Version of facemill that made the file.
    pub const CODE_VERSION: &str = "facemill_version";
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error("{file} is not a facemill classifier: {detail}; `facemill train` makes one")]
    Invalid { file: String, detail: String },
    #[error("the classifier failed on {crops} crops: {detail}")]
    Run { crops: usize, detail: String },
}

/// Input of the classifier: a crop as 224x224 pixels, and its mirror features.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pixels: RgbImage,
    mirrors: [f32; MIRRORS],
}

impl Input {
    /// Decodes the file of a crop.
    ///
    /// # Errors
    /// The file is not an image, or is too large. The text names the reason.
    pub fn decode(bytes: &[u8], mirrors: [f32; MIRRORS]) -> Result<Self, String> {
        let crop = decode(bytes, Limits { pixels: MAX_PIXELS }).map_err(|error| error.to_string())?;
        Ok(Self::new(&crop, mirrors))
    }

    /// Resizes a crop of any size to 224x224.
    pub fn new(crop: &RgbImage, mirrors: [f32; MIRRORS]) -> Self {
        let side = SIDE as u32;
        let pixels = if crop.dimensions() == (side, side) {
            crop.clone()
        } else {
            imageops::resize(crop, side, side, FilterType::Triangle)
        };
        Self { pixels, mirrors }
    }

    /// RGB bytes of 224x224 pixels, row by row.
    pub fn pixels(&self) -> &[u8] {
        self.pixels.as_raw()
    }

    pub fn mirrors(&self) -> &[f32; MIRRORS] {
        &self.mirrors
    }
}

/// The mirror features of a crop's record, in the order of the model's input.
///
/// # Errors
/// The grid does not have 16 cells, or a share is not between 0 and 1.
pub fn mirrors_of(crop: &Crop) -> Result<[f32; MIRRORS], String> {
    mirrors(crop.mirrored, crop.mirrored_head, &crop.mirrored_grid)
}

/// Mirror features from the share of the whole crop, of the head and of each cell.
///
/// # Errors
/// As [`mirrors_of`].
pub fn mirrors(all: f64, head: f64, grid: &[f32]) -> Result<[f32; MIRRORS], String> {
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

/// The file of a classifier in memory, with its metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// Names the file in errors.
    source: String,
    pub bytes: Bytes,
    pub sha256: ContentHash,
    /// Name, version and the first 8 digits of the hash: `facemill-okng-1@0123abcd`.
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
        let invalid = |detail: String| ModelError::Invalid { file: source.into(), detail };
        let file = ModelProto::decode(&bytes[..]).map_err(|error| invalid(error.to_string()))?;
        let entry = |key: &str| file.metadata(key).ok_or_else(|| invalid(format!("it has no `{key}`")));
        if entry(meta::NAME)? != NAME {
            return Err(invalid(format!("its name is `{}`", entry(meta::NAME)?)));
        }
        let threshold = entry(meta::THRESHOLD)?.parse().map_err(|_| invalid("its threshold is not a number".into()))?;
        let sha256 = ContentHash::of(&bytes);
        let name = format!("{NAME}-{}@{}", entry(meta::VERSION)?, &sha256.to_string()[..8]);
        Ok(Self { source: source.into(), bytes, sha256, name, threshold })
    }

    /// The value of a metadata entry.
    pub fn metadata(&self, key: &str) -> Option<String> {
        ModelProto::decode(&self.bytes[..]).ok()?.metadata(key).map(str::to_owned)
    }

    /// A file that no runtime opens, for tests without a model.
    #[cfg(test)]
    pub fn example() -> Self {
        let bytes = Bytes::from_static(b"example");
        let sha256 = ContentHash::of(&bytes);
        Self { source: "example".into(), bytes, sha256, name: "example".into(), threshold: 0.5 }
    }

    /// Opens the classifier for one thread.
    ///
    /// # Errors
    /// onnxruntime rejects the model.
    pub fn open(&self, runtime: &Runtime) -> Result<Model, ModelError> {
        let session = runtime.session(&self.source, &self.bytes, 1)?;
        Ok(Model { session, name: self.name.clone(), threshold: self.threshold })
    }
}

/// A loaded classifier. Use one per thread.
pub struct Model {
    session: Session,
    name: String,
    threshold: f64,
}

impl Model {
    /// Opens the file at `path`, for one thread.
    ///
    /// # Errors
    /// The file cannot be read, is not an ONNX file, or is another model.
    pub fn open(path: &Path, runtime: &Runtime) -> Result<Self, ModelError> {
        ModelFile::read(path)?.open(runtime)
    }

    /// Opens a file in memory. Errors name it `source`.
    pub fn from_bytes(source: &str, bytes: &[u8], runtime: &Runtime) -> Result<Self, ModelError> {
        ModelFile::from_bytes(source, Bytes::copy_from_slice(bytes))?.open(runtime)
    }

    /// Name, version and the first 8 digits of the file's SHA-256: `facemill-okng-1@0123abcd`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A score at or above it counts as OK. Training chose it.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// P(OK) of each crop, in the order of `batch`. All arithmetic of the graph is convolutions, which onnxruntime
    /// computes crop by crop, so a score has the same bits in every batch.
    ///
    /// # Errors
    /// onnxruntime fails, or the output is not one finite number per crop.
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
        let inputs = ort::inputs![CROP => pixels, MIRRORED => mirrors];
        let outputs = self.session.run(inputs).map_err(failed)?;
        let (_, scores) = outputs[P_OK].try_extract_tensor::<f32>().map_err(failed)?;
        if scores.len() != crops || scores.iter().any(|score| !score.is_finite()) {
            return Err(ModelError::Run { crops, detail: "the output is not one finite number per crop".into() });
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
    fn crops_of_any_size_are_resized_to_224() {
        for side in [1, 224, 700] {
            let input = Input::new(&RgbImage::from_pixel(side, side, image::Rgb([9, 8, 7])), [0.0; MIRRORS]);
            assert_eq!(input.pixels.dimensions(), (224, 224));
            assert!(input.pixels.pixels().all(|pixel| pixel.0 == [9, 8, 7]));
        }
    }
}
