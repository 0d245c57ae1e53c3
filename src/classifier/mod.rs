//! Serves the trained classifier: P(OK) of a crop.
//!
//! OK means that the whole head is visible. NG means that the mirrored border shows a second crown, ear or face.
//! [`model`] reads the ONNX file and its input; `training` makes such a file.

pub mod model;
