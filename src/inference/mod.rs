//! onnxruntime, loaded once per process, and ONNX files as data.
pub mod onnx;
