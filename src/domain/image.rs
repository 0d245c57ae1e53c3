//! The image formats that are read.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::named::{self, UnknownName};

/// The accepted image formats, detected from the first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    Jpeg,
    Png,
    Webp,
    Gif,
    Bmp,
    Tiff,
    Avif,
    Heic,
}

impl ImageFormat {
    pub const ALL: [ImageFormat; 8] =
        [Self::Jpeg, Self::Png, Self::Webp, Self::Gif, Self::Bmp, Self::Tiff, Self::Avif, Self::Heic];

    /// Detects the format from the magic bytes. File names and Content-Type headers come from strangers and may lie.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'I', b'I', 0x2a, 0, ..] | [b'M', b'M', 0, 0x2a, ..] => Some(Self::Tiff),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => Self::of_brands(bytes),
            _ => None,
        }
    }

    /// Reads the brands of an ISO media file (ISO/IEC 14496-12, `ftyp`): first the major one, then those that the file
    /// is compatible with. The general brands of images count as HEIC where no other brand decides. Videos have none of
    /// these brands.
    fn of_brands(bytes: &[u8]) -> Option<Self> {
        const MOST: usize = 32;
        let end = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize).min(bytes.len());
        let compatible = bytes.get(16..end).unwrap_or_default().chunks_exact(4).take(MOST);
        let mut is_image = false;
        for brand in bytes.get(8..12).into_iter().chain(compatible) {
            match brand {
                b"avif" | b"avis" => return Some(Self::Avif),
                b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" => return Some(Self::Heic),
                b"mif1" | b"msf1" => is_image = true,
                _ => {}
            }
        }
        is_image.then_some(Self::Heic)
    }

    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
            Self::Avif => "avif",
            Self::Heic => "heic",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
            Self::Avif => "image/avif",
            Self::Heic => "image/heic",
        }
    }
}

/// By the extension of its files.
impl FromStr for ImageFormat {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        named::find(&Self::ALL, Self::extension, "an image format", text)
    }
}

/// Returns the name of an image format that is recognised but not read: JPEG XL (ISO/IEC 18181-2) or JPEG 2000
/// (ISO/IEC 15444-1), in a container or as a bare codestream.
pub fn unsupported_format(bytes: &[u8]) -> Option<&'static str> {
    const BOX: [u8; 4] = [0, 0, 0, 12];
    let (length, rest) = bytes.split_at_checked(4)?;
    match rest {
        [b'J', b'X', b'L', b' ', ..] if length == BOX => Some("JPEG XL"),
        [b'j', b'P', b' ', b' ', ..] if length == BOX => Some("JPEG 2000"),
        _ if length.starts_with(&[0xff, 0x0a]) => Some("JPEG XL"),
        _ if length == [0xff, 0x4f, 0xff, 0x51] => Some("JPEG 2000"),
        _ => None,
    }
}

/// What decoding has found out about the file of an original. The pixels that the stages see are sRGB.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Decoding {
    /// What is wrong with a file that could be decoded nevertheless. None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// Name of the colour profile that was applied. None: the file has none, or its colours are sRGB already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Why the colour profile of the file was ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_ignored: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `ftyp` box with these brands, and the box that follows.
    fn media(major: &[u8; 4], compatible: &[&[u8; 4]]) -> Vec<u8> {
        let length = (16 + 4 * compatible.len()) as u32;
        let mut bytes = [&length.to_be_bytes()[..], b"ftyp", major, &[0; 4]].concat();
        compatible.iter().for_each(|brand| bytes.extend_from_slice(*brand));
        bytes.extend_from_slice(b"\0\0\0\x08avif");
        bytes
    }

    #[test]
    fn media_files_are_told_apart_by_their_brands() {
        let sniff = |bytes: &[u8]| ImageFormat::sniff(bytes);
        assert_eq!(sniff(&media(b"avif", &[b"mif1"])), Some(ImageFormat::Avif));
        assert_eq!(sniff(&media(b"mif1", &[b"miaf", b"avif"])), Some(ImageFormat::Avif));
        assert_eq!(sniff(&media(b"heic", &[b"mif1"])), Some(ImageFormat::Heic));
        assert_eq!(sniff(&media(b"mif1", &[])), Some(ImageFormat::Heic));
        assert_eq!(sniff(&media(b"isom", &[b"mp42"])), None, "a video");
        assert_eq!(sniff(b"\0\0\0\0ftyp"), None);
    }

    #[test]
    fn formats_that_are_not_read_are_named() {
        assert_eq!(unsupported_format(b"\xff\x0a\xfa\x01"), Some("JPEG XL"));
        assert_eq!(unsupported_format(b"\0\0\0\x0cJXL \r\n\x87\n"), Some("JPEG XL"));
        assert_eq!(unsupported_format(b"\0\0\0\x0cjP  \r\n\x87\n"), Some("JPEG 2000"));
        assert_eq!(unsupported_format(b"\xff\x4f\xff\x51\0"), Some("JPEG 2000"));
        assert_eq!(unsupported_format(b"<html>"), None);
        assert_eq!(unsupported_format(b"\xff"), None);
    }
}
