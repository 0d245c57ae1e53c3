//! Trains the classifier from labelled crops.
//!
//! A frozen EfficientNet-Lite0 with ImageNet weights extracts features. The mirror features are added: the share of
//! mirrored pixels in the crop, in the head and in 16 cells. Only the head on top is trained, on a person's verdicts.
//!
//! - [`train`]: from labelled crops to one ONNX file
//! - [`labels`]: reads labelled crops
//! - [`backbone`]: the network that extracts features
//! - [`head`]: projection, scale, logistic regression and perceptron; [`matrix`] and [`random`] support it
//! - [`measure`]: accuracy, precision, recall, AUC
//! - [`synthetic`]: labelled crops made from photographs of whole heads, for training without verdicts

pub mod backbone;
pub mod head;
pub mod labels;
pub mod matrix;
pub mod measure;
pub mod random;
pub mod synthetic;
pub mod train;
