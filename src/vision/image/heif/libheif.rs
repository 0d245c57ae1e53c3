//! libheif (1.15 or newer), loaded when the first AVIF or HEIC is decoded: programs that see none do not need it.
//!
//! It is under the LGPL, and so are its decoders: they stay libraries of the system, which are replaced and updated
//! there.

use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;

use crate::image::decoded::on_white;

/// Looked up in the library folders of the system.
const NAME: &str = "libheif.so.1";

/// A coding of pixels: its `heif_compression_format`, and the packages that have decoders.
#[derive(Clone, Copy)]
pub struct Codec {
    number: c_int,
    pub name: &'static str,
    pub packages: &'static str,
}

pub const HEVC: Codec = Codec { number: 1, name: "HEVC", packages: "libheif-plugin-libde265" };
pub const AV1: Codec = Codec { number: 4, name: "AV1", packages: "libheif-plugin-dav1d or libheif-plugin-aomdec" };

/// Why a file is not decoded.
pub enum Failure {
    /// The file may be right.
    Unsupported(String),
    Broken(String),
}

/// `heif_error`, returned by value.
#[repr(C)]
struct Status {
    code: c_int,
    subcode: c_int,
    message: *const c_char,
}

/// The start of `heif_decoding_options`, which only the library allocates.
#[repr(C)]
struct Options {
    version: u8,
    ignore_transformations: u8,
    start_progress: *const c_void,
    on_progress: *const c_void,
    end_progress: *const c_void,
    progress_user_data: *mut c_void,
    convert_hdr_to_8bit: u8,
}

/// Loads the functions of a library by their names.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            /// Keeps the functions valid.
            _library: Library,
        }

        impl Functions {
            fn load() -> Result<Self, libloading::Error> {
                // SAFETY: the library's initialisation registers its decoders and has no preconditions. The types are
                // those of libheif/heif.h, which keeps them within a major version of the library.
                unsafe {
                    let library = Library::new(NAME)?;
                    $(let $name = *library.get(concat!(stringify!($name), "\0").as_bytes())?;)*
                    Ok(Self { $($name,)* _library: library })
                }
            }
        }
    };
}

functions! {
    heif_init: fn(*const c_void) -> Status;
    heif_have_decoder_for_format: fn(c_int) -> c_int;
    heif_context_alloc: fn() -> *mut c_void;
    heif_context_free: fn(*mut c_void);
    heif_context_set_maximum_image_size_limit: fn(*mut c_void, c_int);
    heif_context_set_max_decoding_threads: fn(*mut c_void, c_int);
    heif_context_read_from_memory_without_copy: fn(*mut c_void, *const u8, usize, *const c_void) -> Status;
    heif_context_get_primary_image_handle: fn(*mut c_void, *mut *mut c_void) -> Status;
    heif_image_handle_release: fn(*mut c_void);
    heif_image_handle_has_alpha_channel: fn(*const c_void) -> c_int;
    heif_decoding_options_alloc: fn() -> *mut Options;
    heif_decoding_options_free: fn(*mut c_void);
    heif_decode_image: fn(*const c_void, *mut *mut c_void, c_int, c_int, *const Options) -> Status;
    heif_image_get_width: fn(*const c_void, c_int) -> c_int;
    heif_image_get_height: fn(*const c_void, c_int) -> c_int;
    heif_image_get_plane_readonly: fn(*const c_void, c_int, *mut c_int) -> *const u8;
    heif_image_release: fn(*mut c_void);
}

/// Values of `heif_colorspace`, `heif_chroma` and `heif_channel`.
const RGB: c_int = 1;
const INTERLEAVED_RGB: c_int = 10;
const INTERLEAVED_RGBA: c_int = 11;
const INTERLEAVED: c_int = 10;

/// The library, loaded once.
pub struct Libheif(Functions);

impl Libheif {
    /// # Errors
    /// The library is not installed, or is too old.
    pub fn load() -> Result<&'static Self, String> {
        static LOADED: OnceLock<Result<Libheif, String>> = OnceLock::new();
        let load = || {
            let functions = Functions::load().map_err(|error| {
                // The first text says only what failed.
                let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                format!("libheif cannot be loaded ({why}): install libheif1")
            })?;
            // SAFETY: null stands for the default parameters. Loads the decoders that are plugins.
            checked(&unsafe { (functions.heif_init)(ptr::null()) })
                .map_err(|failure| format!("libheif does not start ({})", failure.into_text()))?;
            Ok(Self(functions))
        };
        LOADED.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    pub fn can_decode(&self, codec: Codec) -> bool {
        // SAFETY: the function has no preconditions.
        unsafe { (self.0.heif_have_decoder_for_format)(codec.number) != 0 }
    }

    /// Decodes the primary image of a file, upright, with 8 bits a sample. `longest`: no side of an image in the file
    /// has more pixels.
    ///
    /// # Errors
    /// The file cannot be decoded.
    pub fn decode(&self, bytes: &[u8], longest: u64) -> Result<DecodedImage, Failure> {
        let f = &self.0;
        // The library takes lengths that are less than the limit.
        let limit = c_int::try_from(longest.saturating_add(1)).unwrap_or(c_int::MAX);
        // SAFETY: each handle is used before it is released, in the order in which the library made them, and `bytes`
        // outlives them all. Other null pointers stand for defaults. The outputs are valid.
        unsafe {
            let context = Owned((f.heif_context_alloc)(), f.heif_context_free);
            let options = Owned((f.heif_decoding_options_alloc)().cast(), f.heif_decoding_options_free);
            if context.0.is_null() || options.0.is_null() {
                return Err(Failure::Broken("out of memory".into()));
            }
            (*options.0.cast::<Options>()).convert_hdr_to_8bit = 1;
            (f.heif_context_set_maximum_image_size_limit)(context.0, limit);
            // One photo a thread.
            (f.heif_context_set_max_decoding_threads)(context.0, 0);
            let read = f.heif_context_read_from_memory_without_copy;
            checked(&read(context.0, bytes.as_ptr(), bytes.len(), ptr::null()))?;
            let mut raw = ptr::null_mut();
            checked(&(f.heif_context_get_primary_image_handle)(context.0, &raw mut raw))?;
            let handle = Owned(raw, f.heif_image_handle_release);
            let has_alpha = (f.heif_image_handle_has_alpha_channel)(handle.0) != 0;
            let chroma = if has_alpha { INTERLEAVED_RGBA } else { INTERLEAVED_RGB };
            let mut raw = ptr::null_mut();
            checked(&(f.heif_decode_image)(handle.0, &raw mut raw, RGB, chroma, options.0.cast()))?;
            let image = Owned(raw, f.heif_image_release);
            let size = [f.heif_image_get_width, f.heif_image_get_height].map(|side| side(image.0, INTERLEAVED));
            let [width, height] = size.map(|side| u32::try_from(side).unwrap_or(0));
            let mut stride = 0;
            let plane = (f.heif_image_get_plane_readonly)(image.0, INTERLEAVED, &raw mut stride);
            let row = width as usize * if has_alpha { 4 } else { 3 };
            let stride = usize::try_from(stride).unwrap_or(0);
            if plane.is_null() || row == 0 || stride < row {
                return Err(Failure::Broken("it has no pixels".into()));
            }
            let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
            for y in 0..height as usize {
                let row = std::slice::from_raw_parts(plane.add(y * stride), row);
                match has_alpha {
                    false => pixels.extend_from_slice(row),
                    true => pixels.extend(
                        row.chunks_exact(4).flat_map(|pixel| on_white([pixel[0], pixel[1], pixel[2]], pixel[3])),
                    ),
                }
            }
            Ok(DecodedImage { width, height, pixels })
        }
    }
}

/// Rows of RGB pixels without padding, blended with white.
pub struct DecodedImage {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>,
}

/// A handle of the library, and the function that releases it.
struct Owned(*mut c_void, unsafe extern "C" fn(*mut c_void));

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the library made the handle, and it is released once.
            unsafe { (self.1)(self.0) }
        }
    }
}

impl Failure {
    fn into_text(self) -> String {
        match self {
            Self::Unsupported(text) | Self::Broken(text) => text,
        }
    }
}

fn checked(status: &Status) -> Result<(), Failure> {
    /// `heif_error_Unsupported_filetype` and `heif_error_Unsupported_feature`.
    const UNSUPPORTED: [c_int; 2] = [3, 4];
    if status.code == 0 {
        return Ok(());
    }
    // SAFETY: the message of a failed call is a text that lives as long as the context, or is static.
    let message = (!status.message.is_null()).then(|| unsafe { CStr::from_ptr(status.message) });
    let message = message.map_or_else(|| "unknown error".into(), CStr::to_string_lossy);
    // Messages contain line ends.
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let detail = format!("{message} (error {}.{} of libheif)", status.code, status.subcode);
    Err(if UNSUPPORTED.contains(&status.code) { Failure::Unsupported(detail) } else { Failure::Broken(detail) })
}
