//! Pixels and numbers: decoding, finding the one face, laying the square, cutting the crop.

pub mod align;
mod exif;
pub mod geometry;
pub mod image;
pub mod quality;
pub mod resample;
