//! GIF files that end early (GIF89a, appendix B).

use gif::{ColorOutput, DecodeOptions};

use super::decoded::check_rows;
use super::error::{DecodeError, Limits};

const END_MARK: u8 = 0x3b;
/// The most bytes of a data block.
const LONGEST_BLOCK: usize = 255;

/// Where the blocks of a file lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// To the end mark, or to something that is no block: programs show what came before.
    Regular,
    /// The file ends first, so many bytes before the end of a data block.
    Cut { lacking: usize },
}

impl End {
    fn of(bytes: &[u8]) -> Self {
        const IMAGE: u8 = 0x2c;
        const EXTENSION: u8 = 0x21;
        let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
        let mut at = 13 + bytes.get(10).map_or(0, |flags| table(*flags));
        loop {
            match bytes.get(at) {
                Some(&IMAGE) => at += 11 + bytes.get(at + 9).map_or(0, |flags| table(*flags)),
                Some(&EXTENSION) => at += 2,
                Some(_) => return Self::Regular,
                None => return Self::Cut { lacking: 0 },
            }
            while let Some(&length @ 1..) = bytes.get(at) {
                at += 1 + usize::from(length);
            }
            if at >= bytes.len() {
                return Self::Cut { lacking: at - bytes.len() };
            }
            at += 1;
        }
    }
}

/// Whether a file is cut before its end mark.
pub fn is_cut(bytes: &[u8]) -> bool {
    End::of(bytes) != End::Regular
}

/// A cut file with the missing pixels of its first frame, which have the first colour, and with an end. None: the file
/// is not cut, or has no first frame.
///
/// # Errors
/// The frame is too large, or lacks too many rows.
pub fn completed(bytes: &[u8], limits: Limits) -> Result<Option<Vec<u8>>, DecodeError> {
    let End::Cut { lacking } = End::of(bytes) else { return Ok(None) };
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let Ok(mut decoder) = options.read_info(bytes) else { return Ok(None) };
    let Ok(Some(frame)) = decoder.next_frame_info() else { return Ok(None) };
    let (width, height) = (frame.width, frame.height);
    limits.check(width.into(), height.into())?;
    let mut row = vec![0; width.into()];
    let complete = (0..height).take_while(|_| decoder.fill_buffer(&mut row).is_ok_and(|is_full| is_full)).count();
    let missing = usize::from(height) - complete;
    check_rows(missing as f64, height.into(), "gif")?;
    // A code has at most 12 bits. Zero is the first colour at every length.
    let mut zeros = (missing + 1) * usize::from(width) * 12 / 8 + 2;
    let mut completed = bytes.to_vec();
    completed.resize(bytes.len() + lacking, 0);
    while zeros > 0 {
        let length = zeros.min(LONGEST_BLOCK);
        completed.push(length as u8);
        completed.resize(completed.len() + length, 0);
        zeros -= length;
    }
    completed.extend([0, END_MARK]);
    Ok(Some(completed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 40 x 300 pixels in 256 colours, and its rows as they are stored.
    fn file(interlaced: bool) -> Vec<u8> {
        let pixels: Vec<u8> = (0..40 * 300u32).map(|at| (at * at / 7 % 251 + at % 3) as u8).collect();
        let palette: Vec<u8> = (0..=255u8).flat_map(|value| [value, 255 - value, value / 2]).collect();
        let mut bytes = Vec::new();
        let mut encoder = gif::Encoder::new(&mut bytes, 40, 300, &palette).unwrap();
        let mut frame = gif::Frame::from_indexed_pixels(40, 300, pixels, None);
        frame.interlaced = interlaced;
        encoder.write_frame(&frame).unwrap();
        drop(encoder);
        bytes
    }

    fn pixels(bytes: &[u8]) -> Vec<u8> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        let mut decoder = options.read_info(bytes).unwrap();
        decoder.read_next_frame().unwrap().unwrap().buffer.to_vec()
    }

    #[test]
    fn missing_pixels_are_added() {
        for interlaced in [false, true] {
            let whole = file(interlaced);
            assert!(!is_cut(&whole));
            assert_eq!(completed(&whole, Limits::default()), Ok(None));
            let expected = pixels(&whole);
            for cut in 1..whole.len() / 200 {
                let bytes = &whole[..whole.len() - cut];
                assert!(is_cut(bytes));
                let completed = completed(bytes, Limits::default()).unwrap().unwrap();
                assert!(!is_cut(&completed), "{cut}");
                let found = pixels(&completed);
                let rows = found.chunks(40).zip(expected.chunks(40)).filter(|(found, expected)| found == expected);
                assert!(rows.count() >= 297, "{cut} bytes are cut");
            }
        }
    }

    #[test]
    fn a_file_that_lacks_more_is_refused() {
        let whole = file(false);
        let error = completed(&whole[..whole.len() * 9 / 10], Limits::default()).unwrap_err();
        assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
        assert!(completed(&whole[..whole.len() - 9], Limits { pixels: 11_999 }).is_err(), "the frame is too large");
        for end in 0..800 {
            let _ = completed(&whole[..end], Limits::default());
        }
    }
}
