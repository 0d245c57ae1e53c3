//! Pixels and numbers: decoding, finding the one face, laying the square, cutting the crop.

pub mod align;
pub mod detector;
pub mod dlib;
mod exif;
pub mod geometry;
pub mod image;
pub mod quality;
pub mod resample;
pub mod yunet;
