//! Reads the EXIF orientation from JPEG, PNG, WebP and TIFF. Invalid data counts as upright.

use crate::domain::ImageFormat;

/// The change that makes the stored image upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation {
    /// Swap rows and columns. Applied first.
    pub transpose: bool,
    pub mirror_x: bool,
    pub mirror_y: bool,
}

impl Orientation {
    pub const UPRIGHT: Self = Self { transpose: false, mirror_x: false, mirror_y: false };

    /// The values 1 to 8 of EXIF and TIFF.
    fn from_tag(value: u16) -> Self {
        let of = |transpose, mirror_x, mirror_y| Self { transpose, mirror_x, mirror_y };
        match value {
            2 => of(false, true, false),
            3 => of(false, true, true),
            4 => of(false, false, true),
            5 => of(true, false, false),
            6 => of(true, true, false),
            7 => of(true, true, true),
            8 => of(true, false, true),
            _ => Self::UPRIGHT,
        }
    }
}

/// The orientation of an image file.
pub fn orientation(bytes: &[u8], format: ImageFormat) -> Orientation {
    let tag = match format {
        ImageFormat::Jpeg => jpeg(bytes).and_then(tiff),
        ImageFormat::Png => png(bytes).and_then(tiff),
        ImageFormat::Webp => webp(bytes).and_then(tiff),
        ImageFormat::Tiff => tiff(bytes),
        ImageFormat::Gif | ImageFormat::Bmp => None,
    };
    tag.map_or(Orientation::UPRIGHT, Orientation::from_tag)
}

const HEADER: &[u8] = b"Exif\0\0";

/// The TIFF block in the first APP1 segment of a JPEG with EXIF data.
fn jpeg(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(2..)?;
    loop {
        let marker = match *rest {
            [0xff, 0xff, ..] => {
                rest = &rest[1..];
                continue;
            }
            [0xff, marker, ..] => marker,
            _ => return None,
        };
        if marker == 0xda || marker == 0xd9 {
            return None; // start of scan, or end of image
        }
        let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        let segment = rest.get(4..2 + length)?;
        if let (0xe1, Some(block)) = (marker, segment.strip_prefix(HEADER)) {
            return Some(block);
        }
        rest = &rest[2 + length..];
    }
}

fn png(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(8..)?;
    loop {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        match rest.get(4..8)? {
            b"eXIf" => return rest.get(8..8usize.checked_add(length)?),
            b"IEND" => return None,
            _ => rest = rest.get(length.checked_add(12)?..)?,
        }
    }
}

fn webp(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(12..)?;
    loop {
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
        if rest.get(..4)? == b"EXIF" {
            let block = rest.get(8..8usize.checked_add(length)?)?;
            return Some(block.strip_prefix(HEADER).unwrap_or(block));
        }
        rest = rest.get(length.checked_add(8 + length % 2)?..)?;
    }
}

/// The orientation in the first directory of a TIFF block.
fn tiff(block: &[u8]) -> Option<u16> {
    const ORIENTATION: u16 = 0x0112;
    const SHORT: u16 = 3;
    let little = match block.get(..4)? {
        [b'I', b'I', 42, 0] => true,
        [b'M', b'M', 0, 42] => false,
        _ => return None,
    };
    let short = |at: usize| {
        let pair = *block.get(at..)?.first_chunk::<2>()?;
        Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    let four = *block.get(4..)?.first_chunk::<4>()?;
    let directory = if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) } as usize;
    let entries = usize::from(short(directory)?);
    // An entry: tag, type, count (4 bytes), value (4 bytes, left-aligned).
    let first = directory.checked_add(2)?;
    (0..entries)
        .map(|i| first + 12 * i)
        .take_while(|&at| at + 12 <= block.len())
        .find(|&at| short(at) == Some(ORIENTATION) && short(at + 2) == Some(SHORT))
        .and_then(|at| short(at + 8))
}

/// A JPEG APP1 segment that contains only an orientation, for tests.
#[cfg(test)]
pub(super) fn segment(value: u16) -> Vec<u8> {
    let mut block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
    block.extend_from_slice(&value.to_be_bytes());
    block.extend_from_slice(&[0; 6]);
    let mut segment = vec![0xff, 0xe1];
    segment.extend_from_slice(&(2 + HEADER.len() as u16 + block.len() as u16).to_be_bytes());
    segment.extend_from_slice(HEADER);
    segment.extend_from_slice(&block);
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg_with(value: u16) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8];
        bytes.extend_from_slice(&[0xff, 0xe0, 0, 4, 1, 2]); // another segment first
        bytes.extend_from_slice(&segment(value));
        bytes.extend_from_slice(&[0xff, 0xda, 0, 2]);
        bytes
    }

    #[test]
    fn the_tag_is_read_in_every_format() {
        let expected = Orientation::from_tag(6);
        let block = &segment(6)[10..];
        assert_eq!(orientation(&jpeg_with(6), ImageFormat::Jpeg), expected);
        assert_eq!(orientation(block, ImageFormat::Tiff), expected);

        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x01IHDRxcccc".to_vec();
        png.extend_from_slice(&(block.len() as u32).to_be_bytes());
        png.extend_from_slice(b"eXIf");
        png.extend_from_slice(block);
        assert_eq!(orientation(&png, ImageFormat::Png), expected);

        let mut webp = b"RIFF\0\0\0\0WEBPVP8X\x03\0\0\0abc\0".to_vec();
        webp.extend_from_slice(b"EXIF");
        webp.extend_from_slice(&(block.len() as u32).to_le_bytes());
        webp.extend_from_slice(block);
        assert_eq!(orientation(&webp, ImageFormat::Webp), expected);
    }

    #[test]
    fn invalid_data_counts_as_upright() {
        assert_eq!(orientation(&jpeg_with(77), ImageFormat::Jpeg), Orientation::UPRIGHT);
        let whole = jpeg_with(8);
        for end in 0..whole.len() {
            orientation(&whole[..end], ImageFormat::Jpeg);
        }
        // Each byte set to extreme values.
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Webp, ImageFormat::Tiff] {
                    orientation(&bytes, format);
                    orientation(&bytes[bytes.len().min(10)..], format);
                }
            }
        }
    }
}
