//! Reads the EXIF orientation from JPEG, PNG, WebP and TIFF. Invalid data counts as upright.
//!
//! `image` reads the block, but only some of its decoders find it: that of PNG not after the pixels, that of WebP not
//! with the prefix of JPEG, and that of JPEG not in files that only libjpeg-turbo decodes.

use image::metadata::Orientation;

use facemill_domain::ImageFormat;

/// The orientation of an image file.
pub fn orientation(bytes: &[u8], format: ImageFormat) -> Orientation {
    let block = match format {
        ImageFormat::Jpeg => jpeg(bytes),
        ImageFormat::Png => png(bytes),
        ImageFormat::Webp => webp(bytes),
        ImageFormat::Tiff => Some(bytes),
        // The decoder of AVIF and HEIC applies the transformations of the file, which count there.
        ImageFormat::Gif | ImageFormat::Bmp | ImageFormat::Avif | ImageFormat::Heic => None,
    };
    block.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
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
        let expected = Orientation::Rotate90;
        let block = &segment(6)[10..];
        assert_eq!(orientation(&jpeg_with(6), ImageFormat::Jpeg), expected);
        assert_eq!(orientation(block, ImageFormat::Tiff), expected);

        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x01IHDRxcccc".to_vec();
        png.extend_from_slice(&(block.len() as u32).to_be_bytes());
        png.extend_from_slice(b"eXIf");
        png.extend_from_slice(block);
        assert_eq!(orientation(&png, ImageFormat::Png), expected);
        png.splice(21..21, *b"\0\0\0\x01IDATxcccc");
        assert_eq!(orientation(&png, ImageFormat::Png), expected, "after the pixels");

        let mut webp = b"RIFF\0\0\0\0WEBPVP8X\x03\0\0\0abc\0".to_vec();
        webp.extend_from_slice(b"EXIF");
        webp.extend_from_slice(&(block.len() as u32).to_le_bytes());
        webp.extend_from_slice(block);
        assert_eq!(orientation(&webp, ImageFormat::Webp), expected);
        let prefixed = [&webp[..24], b"EXIF", &(6 + block.len() as u32).to_le_bytes(), HEADER, block].concat();
        assert_eq!(orientation(&prefixed, ImageFormat::Webp), expected, "with the prefix of JPEG");
    }

    #[test]
    fn invalid_data_counts_as_upright() {
        assert_eq!(orientation(&jpeg_with(77), ImageFormat::Jpeg), Orientation::NoTransforms);
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
