//! Pixels and numbers: decoding, finding the one face, laying the square, cutting the crop.
