//! dlib's frontal face detector behind a C interface: the functions of hog.cpp, and the detector that they read.
//!
//! `facemill_vision::dlib` has the safe interface.

use std::ffi::c_void;

/// The detector, written by build.rs.
pub const DETECTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/detector.bin"));

/// The struct of hog.cpp. The edges are inclusive, in pixels.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Detection {
    pub score: f64,
    pub left: i64,
    pub top: i64,
    pub right: i64,
    pub bottom: i64,
}

/// The functions of one build of hog.cpp. A detector is used and freed by the functions that created it.
pub struct Functions {
    pub new: unsafe extern "C" fn(*const u8, usize, u32) -> *mut c_void,
    pub free: unsafe extern "C" fn(*mut c_void),
    pub loaded: unsafe extern "C" fn() -> u64,
    pub find: unsafe extern "C" fn(*mut c_void, *const u8, i64, i64, i32, f64, *mut Detection, usize) -> i64,
}

macro_rules! functions {
    ($new:ident, $free:ident, $loaded:ident, $find:ident) => {{
        unsafe extern "C" {
            fn $new(serialized: *const u8, length: usize, levels: u32) -> *mut c_void;
            fn $free(hog: *mut c_void);
            fn $loaded() -> u64;
            fn $find(
                hog: *mut c_void,
                pixels: *const u8,
                width: i64,
                height: i64,
                channels: i32,
                threshold: f64,
                detections: *mut Detection,
                capacity: usize,
            ) -> i64;
        }
        &Functions { new: $new, free: $free, loaded: $loaded, find: $find }
    }};
}

/// The fastest build for this processor.
pub fn fastest() -> &'static Functions {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        return functions!(
            facemill_hog_avx2_new,
            facemill_hog_avx2_free,
            facemill_hog_avx2_loaded,
            facemill_hog_avx2_find
        );
    }
    portable()
}

/// The build for any processor.
pub fn portable() -> &'static Functions {
    functions!(facemill_hog_base_new, facemill_hog_base_free, facemill_hog_base_loaded, facemill_hog_base_find)
}
