//! Image processing: decoding, face detection, alignment, crops, quality measures, embeddings.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

pub mod align;
pub mod detector;
pub mod dlib;
pub mod embedding;
pub mod ffhq_fill;
pub mod fingerprint;
pub mod geometry;
pub mod image;
mod lanczos;
pub mod landmarks;
pub mod mesh;
pub mod pose;
pub mod preview;
pub mod quality;
pub mod resample;
pub use facemill_rescale as rescale;
#[cfg(test)]
mod test_pictures;
pub mod yunet;
