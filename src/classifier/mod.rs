//! Is the crop good enough to train on? Features, the trained head, and how it is trained.
//!
//! A crop is OK when the whole head is its own picture, and NG when the mirror beyond the photo's edge made a second
//! crown, ear or face. The features are those of an EfficientNet-Lite0 that saw ImageNet and stays as it is, beside the
//! share of mirrored pixels in the crop, its head and its 16 cells; the head is trained here, from a person's verdicts.
//!
//! - [`model`]: the finished classifier, one ONNX file
//! - [`training`]: from labelled crops to such a file; [`labels`] reads them, [`head`] learns, [`measure`] judges
//! - [`lite0`]: the network as an ONNX graph; [`torch`] reads its weights
//! - [`synthetic`]: labelled crops out of whole-head photographs, until there are verdicts

pub mod head;
pub mod labels;
pub mod lite0;
pub mod matrix;
pub mod measure;
pub mod model;
pub mod random;
pub mod synthetic;
pub mod torch;
pub mod training;
