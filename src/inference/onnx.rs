//! The part of the ONNX file format that is read, changed and written here, as protobuf messages.
