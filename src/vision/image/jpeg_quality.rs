//! The quality of a JPEG, estimated from its quantisation tables.

use super::jpeg::Segments;

/// The table for luma of ITU-T T.81, annex K.1, in zigzag order. Encoders scale it by their quality.
const LUMA: [u16; 64] = [
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61,
    60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113,
    121, 112, 100, 120, 92, 101, 103, 99,
];

/// The luma table that the software of the Independent JPEG Group makes for a quality from 1 to 100, `jpeg_set_quality`.
fn scaled(quality: u8) -> impl Iterator<Item = u16> {
    let quality = u32::from(quality.max(1));
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    LUMA.iter().map(move |value| ((u32::from(*value) * percent + 50) / 100).clamp(1, 255) as u16)
}

/// The quality, 1 to 100, whose table is nearest to that of the file's first component. None: the file is no JPEG, or has
/// no such table before its first scan.
pub fn jpeg_quality(bytes: &[u8]) -> Option<u8> {
    if !bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        return None;
    }
    let mut tables = [None; 4];
    let mut wanted = 0;
    for (marker, body) in Segments::of(bytes) {
        match marker {
            0xdb => read_tables(body, &mut tables),
            // A frame header: precision, height, width, components; of each its id, sampling factors and table.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => wanted = usize::from(*body.get(8)?),
            _ => {}
        }
    }
    let table = (*tables.get(wanted)?)?;
    let distance = |quality: &u8| -> u64 {
        scaled(*quality).zip(table).map(|(ours, theirs)| u64::from(ours.abs_diff(theirs))).sum()
    };
    // Of equal distances the highest quality counts.
    (1..=100).rev().min_by_key(distance)
}

/// Reads the tables of a DQT segment (T.81, B.2.4.1).
fn read_tables(mut body: &[u8], tables: &mut [Option<[u16; 64]>; 4]) {
    while let Some((&head, rest)) = body.split_first() {
        let is_wide = head >> 4 != 0;
        let Some((values, rest)) = rest.split_at_checked(if is_wide { 128 } else { 64 }) else { return };
        let table = std::array::from_fn(|at| match is_wide {
            true => u16::from_be_bytes([values[2 * at], values[2 * at + 1]]),
            false => u16::from(values[at]),
        });
        if let Some(place) = tables.get_mut(usize::from(head & 15)) {
            *place = Some(table);
        }
        body = rest;
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, GrayImage, ImageEncoder, Rgb, RgbImage};

    use super::super::{encode, encode_preview};
    use super::*;
    use facemill_domain::ImageFormat;

    #[test]
    fn the_quality_of_an_encoder_is_found() {
        let picture = RgbImage::from_fn(40, 30, |x, y| Rgb([(6 * x) as u8, (8 * y) as u8, 90]));
        assert_eq!(jpeg_quality(&encode(&picture, ImageFormat::Jpeg).unwrap()), Some(100));
        assert_eq!(jpeg_quality(&encode_preview(&picture).unwrap()), Some(88));
        for quality in [1, 10, 30, 49, 50, 75, 92, 99] {
            let mut bytes = Vec::new();
            JpegEncoder::new_with_quality(&mut bytes, quality)
                .write_image(&picture, 40, 30, ExtendedColorType::Rgb8)
                .unwrap();
            assert_eq!(jpeg_quality(&bytes), Some(quality));
            let grey = GrayImage::new(8, 8);
            let mut bytes = Vec::new();
            JpegEncoder::new_with_quality(&mut bytes, quality).write_image(&grey, 8, 8, ExtendedColorType::L8).unwrap();
            assert_eq!(jpeg_quality(&bytes), Some(quality));
        }
    }

    #[test]
    fn wide_tables_and_those_of_other_encoders_have_an_estimate() {
        let table: Vec<u8> = scaled(60).flat_map(|value| (value + 1).to_be_bytes()).collect();
        let segment = [&[0xff, 0xdb, 0, 131, 0x10][..], &table].concat();
        let file = [&[0xff, 0xd8][..], &segment, &[0xff, 0xda, 0, 2]].concat();
        let quality = jpeg_quality(&file).unwrap();
        assert!((58..=60).contains(&quality), "{quality}");
    }

    #[test]
    fn other_files_and_damaged_ones_have_none() {
        let picture = RgbImage::new(9, 9);
        let jpeg = encode(&picture, ImageFormat::Jpeg).unwrap();
        assert_eq!(jpeg_quality(&encode(&picture, ImageFormat::Png).unwrap()), None);
        for end in 0..jpeg.len() {
            let _ = jpeg_quality(&jpeg[..end]);
        }
        assert_eq!(jpeg_quality(&jpeg[..20]), None);
        assert_eq!(jpeg_quality(b"\xff\xd8\xff\xdb\0\x05\0\x01\x02"), None, "a table that ends early");
        assert_eq!(jpeg_quality(b"\xff\xd8\xff\xc0\0\x04\x08\0"), None, "a frame header that ends early");
    }
}
