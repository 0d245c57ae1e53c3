//! The trained classifier: one ONNX file. Input: a crop and its mirror features. Output: P(OK).

use std::path::Path;

use bytes::Bytes;
use image::RgbImage;
use ort::session::{Session, SessionInputValue};
use ort::value::{TensorElementType, TensorRef, ValueType};

use facemill_domain::{ContentHash, Crop, Printable};
use facemill_inference::onnx::ModelProto;
use facemill_inference::{InferenceError, Runtime};
use facemill_vision::image::{Limits, decode};
use facemill_vision::rescale::shrunk;

/// Width and height of the input in pixels.
pub const SIDE: usize = 224;
/// Mirror features: the share of mirrored pixels in the crop, in the ellipse of the head, and in 16 cells, row by row.
pub const MIRRORS: usize = 2 + CELLS;
/// Rows, and columns, of the grid of mirrored shares.
pub const MIRROR_GRID: usize = 4;
const CELLS: usize = MIRROR_GRID * MIRROR_GRID;
/// Crops with more pixels are rejected.
const MAX_PIXELS: u64 = 50_000_000;

/// Larger files of a classifier are refused: each thread of a worker keeps one in memory.
pub const MAX_BYTES: u64 = 256 << 20;

/// Name and version in the metadata of our own classifiers.
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
    /// The run whose verdicts it was trained on; none if it was trained on other crops.
    pub const RUN: &str = "run";
    /// The classes: `ng,ok`. The output is the probability of the second one. A file may lack it.
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
    #[error(
        "{file} is not a facemill classifier: {detail}; `facemill train` makes one, docs/training.md describes others"
    )]
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
        let pixels = if crop.dimensions() == (side, side) { crop.clone() } else { shrunk(crop, side) };
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
    /// Name and version as in the metadata, and the first 8 digits of the hash: `facemill-okng-1@0123abcd`.
    pub name: String,
    /// A crop with this P(OK) or more counts as OK, unless a person sets another threshold.
    pub threshold: f64,
}

impl ModelFile {
    /// # Errors
    /// The file cannot be read, is too large, or is not a classifier.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let source = path.display().to_string();
        if let Ok(metadata) = std::fs::metadata(path) {
            check_size(metadata.len()).map_err(|detail| ModelError::Invalid { file: source.clone(), detail })?;
        }
        Self::from_bytes(&source, facemill_inference::read(path)?.into())
    }

    /// A file in memory. Errors name it `source`.
    pub fn from_bytes(source: &str, bytes: Bytes) -> Result<Self, ModelError> {
        let invalid = |detail: String| ModelError::Invalid { file: source.into(), detail };
        check_size(bytes.len() as u64).map_err(invalid)?;
        let file = ModelProto::decode(&bytes[..]).map_err(|error| invalid(error.to_string()))?;
        let entry = |key: &str| file.metadata(key).ok_or_else(|| invalid(format!("it has no `{key}` in its metadata")));
        let word = |key: &str| {
            let text = entry(key)?;
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            match (1..=MAX_WORD).contains(&text.len()) && text.chars().all(legal) {
                true => Ok(text),
                false => Err(invalid(format!("its {key} is not 1 to {MAX_WORD} of A-Z, a-z, 0-9, `.`, `_` and `-`"))),
            }
        };
        let (name, version) = (word(meta::NAME)?, word(meta::VERSION)?);
        let threshold = entry(meta::THRESHOLD)?.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
        let threshold = threshold.ok_or_else(|| invalid("its threshold is not a number from 0 to 1".into()))?;
        if let Some(labels) = file.metadata(meta::LABELS).filter(|labels| *labels != LABELS) {
            return Err(invalid(format!("its labels are `{}` instead of `{LABELS}`", labels.printable())));
        }
        let sha256 = ContentHash::of(&bytes);
        let name = format!("{name}-{version}@{}", &sha256.to_string()[..8]);
        Ok(Self { source: source.into(), bytes, sha256, name, threshold })
    }

    /// The value of a metadata entry.
    pub fn metadata(&self, key: &str) -> Option<String> {
        ModelProto::decode(&self.bytes[..]).ok()?.metadata(key).map(str::to_owned)
    }

    /// A file that no runtime opens, for tests without a model.
    pub fn example() -> Self {
        let bytes = Bytes::from_static(b"example");
        let sha256 = ContentHash::of(&bytes);
        Self { source: "example".into(), bytes, sha256, name: "example".into(), threshold: 0.5 }
    }

    /// Opens the classifier for one thread.
    ///
    /// # Errors
    /// onnxruntime rejects the model, or its inputs or outputs are others.
    pub fn open(&self, runtime: &Runtime) -> Result<Model, ModelError> {
        let session = runtime.session(&self.source, &self.bytes, 1).map_err(|error| match error {
            InferenceError::Model { detail, .. } => self.invalid(format!("onnxruntime rejects it: {detail}")),
            error => error.into(),
        })?;
        let takes_mirrors = takes_mirrors(&session).map_err(|detail| self.invalid(detail))?;
        Ok(Model { session, takes_mirrors, name: self.name.clone(), threshold: self.threshold })
    }

    /// Opens the classifier and scores plain pictures, alone and in a batch. A file that passes can score any crop.
    ///
    /// # Errors
    /// As [`Self::open`], the output is not a probability, or it depends on the other crops of a batch.
    pub fn check(&self, runtime: &Runtime) -> Result<(), ModelError> {
        const TOLERANCE: f64 = 1e-3;
        let mut model = self.open(runtime)?;
        let side = SIDE as u32;
        let shades = [(0, 1.0), (90, 0.0), (255, 0.5)];
        let probes = shades.map(|(shade, share)| {
            Input::new(&RgbImage::from_pixel(side, side, image::Rgb([shade; 3])), [share; MIRRORS])
        });
        let mut scores = |probes: &[Input]| {
            model.predict(probes).map_err(|error| match error {
                ModelError::Run { detail, .. } => self.invalid(detail),
                error => error,
            })
        };
        let together = scores(&probes)?;
        for (probe, together) in probes.iter().zip(together) {
            let alone = scores(std::slice::from_ref(probe))?[0];
            if (alone - together).abs() > TOLERANCE {
                return Err(self.invalid("the score of a crop depends on the other crops of its batch".into()));
            }
        }
        Ok(())
    }

    fn invalid(&self, detail: String) -> ModelError {
        ModelError::Invalid { file: self.source.clone(), detail }
    }
}

const LABELS: &str = "ng,ok";
/// Characters of a name or a version.
const MAX_WORD: usize = 64;

fn check_size(bytes: u64) -> Result<(), String> {
    match bytes <= MAX_BYTES {
        true => Ok(()),
        false => Err(format!("it has {bytes} bytes, and {MAX_BYTES} are the most")),
    }
}

/// Checks inputs and outputs. Returns whether the model has the input for the mirror features.
fn takes_mirrors(session: &Session) -> Result<bool, String> {
    let (mut takes_crop, mut takes_mirrors) = (false, false);
    for input in session.inputs() {
        match input.name() {
            CROP => {
                expect(CROP, input.dtype(), TensorElementType::Uint8, &[SIDE as i64, SIDE as i64, 3])?;
                takes_crop = true;
            }
            MIRRORED => {
                expect(MIRRORED, input.dtype(), TensorElementType::Float32, &[MIRRORS as i64])?;
                takes_mirrors = true;
            }
            other => return Err(format!("it has an input `{}` that no crop fills", other.printable())),
        }
    }
    if !takes_crop {
        return Err(format!("it has no input `{CROP}`"));
    }
    let p_ok = session.outputs().iter().find(|output| output.name() == P_OK);
    let p_ok = p_ok.ok_or_else(|| format!("it has no output `{P_OK}`"))?;
    match expect(P_OK, p_ok.dtype(), TensorElementType::Float32, &[1]) {
        Err(_) if expect(P_OK, p_ok.dtype(), TensorElementType::Float32, &[]).is_ok() => Ok(takes_mirrors),
        checked => checked.map(|()| takes_mirrors),
    }
}

/// Checks that a tensor has this element type, and the shape `[N, rest...]`. A dimension may be free, N must be.
fn expect(name: &str, found: &ValueType, element: TensorElementType, rest: &[i64]) -> Result<(), String> {
    let sizes: String = rest.iter().map(|size| format!(", {size}")).collect();
    let expected = format!("`{name}` is {found} instead of a tensor of {element} with the shape [N{sizes}], N free");
    let ValueType::Tensor { ty, shape, .. } = found else { return Err(expected) };
    let fits = |(found, size): (&i64, &i64)| *found == -1 || found == size;
    // A shape that the file does not declare has no dimensions: the first prediction tells.
    let has_shape =
        shape.is_empty() || shape.len() == rest.len() + 1 && shape[0] == -1 && shape[1..].iter().zip(rest).all(fits);
    if *ty == element && has_shape { Ok(()) } else { Err(expected) }
}

/// A loaded classifier. Use one per thread.
pub struct Model {
    session: Session,
    takes_mirrors: bool,
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
    /// onnxruntime fails, or the output is not one probability per crop.
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
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![(CROP, pixels.into())];
        if self.takes_mirrors {
            inputs.push((MIRRORED, mirrors.into()));
        }
        let outputs = self.session.run(inputs).map_err(failed)?;
        let (_, scores) = outputs[P_OK].try_extract_tensor::<f32>().map_err(failed)?;
        if scores.len() != crops || scores.iter().any(|score| !(0.0..=1.0).contains(score)) {
            return Err(ModelError::Run { crops, detail: "the output is not one number from 0 to 1 per crop".into() });
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
