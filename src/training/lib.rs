//! Trains the classifier from judged crops.
//!
//! A frozen EfficientNet-Lite0 with ImageNet weights extracts features ([`facemill_classifier::features`]). The mirror
//! features are added: the share of mirrored pixels in the crop, in the head and in 16 cells. Only the head on top is
//! trained, on a person's verdicts.
//!
//! - [`example`]: judged crops, and the sides that people are divided into; [`importance`]: how much each counts
//! - [`labels`]: reads labelled crops from a folder
//! - [`learner`]: head and calibration, chosen by cross-validation; [`head`], [`cells`], [`calibration`],
//!   [`matrix`] and [`random`] support it
//! - [`train`]: from judged crops to one ONNX file; [`model_file`] writes it
//! - [`measure`]: accuracy, precision, recall, AUC; [`evaluation`]: figures with intervals, parts, mistakes;
//!   [`learning_curve`]: the same with fewer verdicts
//! - [`suggestion`]: what to judge next; [`suspicion`]: verdicts that the classifier disagrees with
//! - [`synthetic`]: labelled crops made from photographs of whole heads, for training without verdicts

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

pub mod calibration;
pub mod cells;
pub mod evaluation;
pub mod example;
pub mod head;
pub mod importance;
mod joined;
pub mod labels;
pub mod learner;
pub mod learning_curve;
pub mod matrix;
pub mod measure;
pub mod model_file;
pub mod random;
pub mod suggestion;
pub mod suspicion;
pub mod synthetic;
pub mod train;
