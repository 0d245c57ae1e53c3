//! Limits for untrusted images, and why an image is not decoded.

use facemill_domain::CauseCode;

/// Limits for untrusted images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum width times height.
    pub pixels: u64,
}

impl Limits {
    pub fn of_megapixels(megapixels: u64) -> Self {
        Self { pixels: megapixels * 1_000_000 }
    }

    pub fn megapixels(self) -> u64 {
        self.pixels / 1_000_000
    }

    /// # Errors
    /// The image is larger.
    pub fn check(self, width: u64, height: u64) -> Result<(), DecodeError> {
        if width.saturating_mul(height) > self.pixels {
            return Err(DecodeError::TooLarge { width, height, limit: self.pixels });
        }
        Ok(())
    }
}

impl Default for Limits {
    /// 50 megapixels: 150 MB of RGB.
    fn default() -> Self {
        Self { pixels: 50_000_000 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the file is not a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC")]
    NotAnImage,
    /// The format is known, and is not read here.
    #[error("{format} is not read{}", .detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Unsupported { format: &'static str, detail: Option<String> },
    #[error("the image has {width} x {height} pixels; the limit is {limit}")]
    TooLarge { width: u64, height: u64, limit: u64 },
    #[error("the {format} is truncated: {detail}")]
    Truncated { format: &'static str, detail: String },
    #[error("the {format} cannot be decoded: {detail}")]
    Undecodable { format: &'static str, detail: String },
}

impl DecodeError {
    /// The code of the rejection.
    pub fn code(&self) -> CauseCode {
        match self {
            Self::NotAnImage => CauseCode::NotAnImage,
            Self::Unsupported { .. } => CauseCode::UnsupportedFormat,
            Self::TooLarge { .. } => CauseCode::TooLarge,
            Self::Truncated { .. } => CauseCode::Truncated,
            Self::Undecodable { .. } => CauseCode::Undecodable,
        }
    }
}
