//! JPEG with libjpeg-turbo, and with the slower decoder of [`super::library`] where that fails.
//!
//! libjpeg-turbo goes on after most faults, as browsers do: it reports them as warnings, and fills what is missing.

use std::ffi::CStr;
use std::hash::{DefaultHasher, Hasher};
use std::ptr::NonNull;

use image::RgbImage;
use turbojpeg::raw;

use super::colour;
use super::decoded::{Colours, Decoded, MAX_PROFILE, Samples, check_rows};
use super::error::{DecodeError, Limits};
use super::library;
use facemill_domain::{Decoding, ImageFormat};

const FORMAT: &str = "jpg";

/// Decodes a JPEG.
///
/// # Errors
/// The image is too large, lacks rows, or cannot be decoded.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Decoded, DecodeError> {
    // A small file with very many progressive scans of a large image takes minutes to decode. Real files have about
    // ten.
    const MAX_SCANS: usize = 100;
    let markers = Markers::of(bytes);
    if markers.scans > MAX_SCANS {
        return Err(undecodable(format!("it has more than {MAX_SCANS} scans")));
    }
    let turbo = || -> Option<(Turbo, Header)> {
        let mut turbo = Turbo::new()?;
        let header = turbo.header(bytes)?;
        Some((turbo, header))
    };
    let Some((mut turbo, header)) = turbo() else { return library::decode(bytes, ImageFormat::Jpeg, limits) };
    limits.check(header.width as u64, header.height as u64)?;
    let mut samples = vec![0; header.width * header.height * header.channels];
    let Ok(fault) = turbo.decompress(bytes, &header, &mut samples) else {
        // The other decoder decides.
        drop(samples);
        return library::decode(bytes, ImageFormat::Jpeg, limits);
    };
    let mut decoding = Decoding::default();
    if fault.is_some() || !markers.ended {
        let missing = missing_rows(&mut turbo, bytes, &markers, &header, &mut samples);
        check_rows(missing as f64, header.height as u32, FORMAT)?;
        decoding.damaged = Some(fault.unwrap_or_else(|| "the end mark is missing".into()));
    }
    let (width, height) = (header.width as u32, header.height as u32);
    let profile = profile(bytes);
    if header.channels == 4 {
        // Programs store the inverse of the inks (Adobe Technical Note 5116), and browsers expect that.
        samples.iter_mut().for_each(|sample| *sample = 255 - *sample);
        let mut pixels = RgbImage::new(width, height);
        colour::from_cmyk(&samples, &mut pixels, profile.as_deref(), &mut decoding);
        return Ok(Decoded { pixels, samples: Samples::Rgb, decoding, colours: Colours::Unspecified });
    }
    let pixels = RgbImage::from_raw(width, height, samples).ok_or_else(|| undecodable("it has no pixels".into()))?;
    let samples = if header.is_grey { Samples::Grey } else { Samples::Rgb };
    Ok(Decoded { pixels, samples, decoding, colours: profile.into() })
}

/// Width, height, and the most bytes that decoding takes. None: libjpeg-turbo does not read the file.
pub fn header(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let header = Turbo::new()?.header(bytes)?;
    let (width, height) = (header.width as u64, header.height as u64);
    let markers = Markers::of(bytes);
    let frame = markers.frame.as_ref()?;
    // Several scans are collected as coefficients of two bytes. Blocks are padded.
    let coefficients = if markers.scans > 1 || frame.is_progressive { 2.2 * frame.samples_per_pixel } else { 0.0 };
    // CMYK and RGB.
    let output = if header.channels == 4 { 4.0 + 3.0 } else { 3.0 };
    Some((width, height, ((width * height) as f64 * (output + coefficients)) as u64))
}

fn undecodable(detail: String) -> DecodeError {
    DecodeError::Undecodable { format: FORMAT, detail }
}

/// How many rows depend on data that the file lacks: those from the first one that changes when other data follows
/// where the file's data ends. Rows of missing scans count as well.
fn missing_rows(turbo: &mut Turbo, bytes: &[u8], markers: &Markers, header: &Header, samples: &mut [u8]) -> usize {
    /// Bits that most tables of codes read in different ways.
    const TAILS: [u8; 3] = [0x55, 0x00, 0xc3];
    const TAIL: usize = 1 << 14;
    if !markers.has_all_scans() {
        return header.height;
    }
    // The buffer is used again, so that a damaged image takes no more memory than others.
    let hashes = |samples: &[u8]| -> Vec<u64> {
        let hash = |row: &[u8]| {
            let mut hasher = DefaultHasher::new();
            hasher.write(row);
            hasher.finish()
        };
        samples.chunks_exact(header.width * header.channels).map(hash).collect()
    };
    let expected = hashes(samples);
    let mut first_changed = header.height;
    for tail in TAILS {
        let mut longer = bytes[..markers.end].to_vec();
        longer.resize(markers.end + TAIL, tail);
        longer.extend_from_slice(&[0xff, Markers::END]);
        if turbo.decompress(&longer, header, samples).is_ok() {
            let same = expected.iter().zip(hashes(samples)).take_while(|(a, b)| **a == *b);
            first_changed = first_changed.min(same.count());
        }
    }
    // It has succeeded before.
    let _ = turbo.decompress(bytes, header, samples);
    header.height - first_changed
}

/// The profile in the APP2 segments (ICC.1:2022, B.4).
fn profile(bytes: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"ICC_PROFILE\0";
    let mut parts: Vec<(u8, &[u8])> = Vec::new();
    let mut count = 0;
    for (marker, body) in Segments::of(bytes) {
        if let (0xe2, Some([number, total, part @ ..])) = (marker, body.strip_prefix(NAME)) {
            parts.push((*number, part));
            count = *total;
        }
    }
    parts.sort_by_key(|(number, _)| *number);
    // An incomplete profile is returned as far as it goes: it is then ignored, and that is noted.
    let whole = parts.iter().enumerate().all(|(at, (number, _))| usize::from(*number) == at + 1);
    let parts = if whole && parts.len() == usize::from(count) { &parts[..] } else { parts.get(..1)? };
    let length: usize = parts.iter().map(|(_, part)| part.len()).sum();
    (length > 0).then(|| parts.iter().flat_map(|(_, part)| *part).copied().take(MAX_PROFILE + 1).collect())
}

/// The segments before the first scan: marker and body.
pub(super) struct Segments<'a>(&'a [u8]);

impl<'a> Segments<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes.get(2..).unwrap_or_default())
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = memchr::memchr(0xff, self.0)?;
        let rest = &self.0[start..];
        let marker = rest.iter().position(|byte| *byte != 0xff)?;
        let (code, rest) = (rest[marker], &rest[marker + 1..]);
        if matches!(code, Markers::SCAN | Markers::END) {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        let body = rest.get(2..length.max(2))?;
        self.0 = &rest[length.max(2)..];
        Some((code, body))
    }
}

/// The frame header.
#[derive(Debug, Clone, Copy)]
struct Frame {
    is_progressive: bool,
    /// 3 without subsampling.
    samples_per_pixel: f64,
}

/// What the markers of a file say about it, up to its end mark. Data after it, such as a video that a camera appends, is
/// ignored.
struct Markers {
    frame: Option<Frame>,
    scans: usize,
    /// There is an end mark.
    ended: bool,
    /// Where the data ends: before the end mark, or with the file.
    end: usize,
    /// For each component the position of the lowest bit that the scans have, of each coefficient.
    precision: Vec<(u8, [u8; 64])>,
}

impl Markers {
    const SCAN: u8 = 0xda;
    const END: u8 = 0xd9;
    const ABSENT: u8 = u8::MAX;

    fn of(bytes: &[u8]) -> Self {
        let mut markers = Self { frame: None, scans: 0, ended: false, end: bytes.len(), precision: Vec::new() };
        let mut at = 2;
        while let Some(marker) = memchr::memchr(0xff, bytes.get(at..).unwrap_or_default()) {
            at += marker + 1;
            let segment = || {
                let length = usize::from(u16::from_be_bytes(*bytes.get(at + 1..)?.first_chunk()?));
                Some((length, bytes.get(at + 3..at + 1 + length.max(2)).unwrap_or_default()))
            };
            match bytes.get(at) {
                None => break,
                Some(&Self::END) => {
                    markers.ended = true;
                    markers.end = at - 1;
                    return markers;
                }
                // Stuffing and markers within a scan have no length.
                Some(0x00 | 0x01 | 0xd0..=0xd8 | 0xff) => {}
                Some(&marker) => {
                    let (length, body) = segment().unwrap_or_default();
                    match marker {
                        Self::SCAN => markers.note_scan(body),
                        0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => markers.note_frame(marker, body),
                        _ => {}
                    }
                    at += 1 + length;
                }
            }
        }
        markers
    }

    fn note_frame(&mut self, marker: u8, body: &[u8]) {
        if let ([_, _, _, _, _, count, list @ ..], None) = (body, self.frame) {
            let components =
                list.chunks_exact(3).take(usize::from(*count)).map(|component| (component[0], component[1]));
            let factors: Vec<[u8; 2]> = components.clone().map(|(_, factors)| [factors >> 4, factors & 15]).collect();
            let [across, down] = [0, 1].map(|axis| factors.iter().map(|factor| factor[axis]).max().unwrap_or(1).max(1));
            let samples: f64 = factors.iter().map(|[x, y]| f64::from(*x) * f64::from(*y)).sum();
            self.frame = Some(Frame {
                is_progressive: matches!(marker, 0xc2 | 0xca | 0xc6 | 0xce),
                samples_per_pixel: samples / (f64::from(across) * f64::from(down)),
            });
            self.precision = components.map(|(id, _)| (id, [Self::ABSENT; 64])).collect();
        }
    }

    fn note_scan(&mut self, body: &[u8]) {
        self.scans += 1;
        let Some((&count, rest)) = body.split_first() else { return };
        let Some((list, &[first, last, bits])) = rest.split_at_checked(2 * usize::from(count)) else { return };
        let is_progressive = self.frame.is_some_and(|frame| frame.is_progressive);
        // Other files have all coefficients of a component in one scan.
        let (band, low) = match is_progressive {
            true => (usize::from(first.min(63))..=usize::from(last.min(63)), bits & 15),
            false => (0..=63, 0),
        };
        for component in list.chunks_exact(2) {
            for (_, precision) in self.precision.iter_mut().filter(|(id, _)| *id == component[0]) {
                band.clone().for_each(|coefficient| precision[coefficient] = low);
            }
        }
    }

    /// Whether the scans have all bits of all coefficients.
    fn has_all_scans(&self) -> bool {
        self.precision.iter().all(|(_, precision)| precision.iter().all(|bit| *bit == 0))
    }
}

struct Header {
    width: usize,
    height: usize,
    /// Of the decoded image: 3 for RGB, 4 for CMYK.
    channels: usize,
    is_grey: bool,
}

/// A decompressor of libjpeg-turbo. The crate's own treats a warning as an error and does not say which one it is.
struct Turbo(NonNull<std::ffi::c_void>);

impl Turbo {
    fn new() -> Option<Self> {
        // SAFETY: the function has no preconditions.
        NonNull::new(unsafe { raw::tjInitDecompress() }).map(Self)
    }

    /// None: libjpeg-turbo does not read the file.
    fn header(&mut self, bytes: &[u8]) -> Option<Header> {
        let (mut width, mut height, mut sampling, mut space) = (0, 0, 0, 0);
        // SAFETY: the handle is valid, the input has the given length, and the outputs are valid.
        let status = unsafe {
            raw::tjDecompressHeader3(
                self.0.as_ptr(),
                bytes.as_ptr(),
                bytes.len() as _,
                &raw mut width,
                &raw mut height,
                &raw mut sampling,
                &raw mut space,
            )
        };
        if status != 0 && self.warning().is_none() {
            return None;
        }
        let inks = [raw::TJCS_TJCS_CMYK as i32, raw::TJCS_TJCS_YCCK as i32];
        let (width, height) = (usize::try_from(width).ok()?, usize::try_from(height).ok()?);
        let is_grey = space == raw::TJCS_TJCS_GRAY as i32;
        let channels = if inks.contains(&space) { 4 } else { 3 };
        (width > 0 && height > 0).then_some(Header { width, height, channels, is_grey })
    }

    /// Decodes to RGB or CMYK. Returns the last warning.
    ///
    /// # Errors
    /// libjpeg-turbo gives up: the image is not complete.
    fn decompress(&mut self, bytes: &[u8], header: &Header, output: &mut [u8]) -> Result<Option<String>, ()> {
        assert_eq!(output.len(), header.width * header.height * header.channels);
        let format = if header.channels == 4 { raw::TJPF_TJPF_CMYK } else { raw::TJPF_TJPF_RGB };
        // SAFETY: the handle is valid, the input has the given length, and `output` holds height rows of width pixels
        // in this format. An image of another size is scaled down to this one.
        let status = unsafe {
            raw::tjDecompress2(
                self.0.as_ptr(),
                bytes.as_ptr(),
                bytes.len() as _,
                output.as_mut_ptr(),
                header.width as _,
                (header.width * header.channels) as _,
                header.height as _,
                format,
                0,
            )
        };
        match status {
            0 => Ok(None),
            _ => self.warning().map(Some).ok_or(()),
        }
    }

    /// The message of the last call, if that has warned only.
    fn warning(&mut self) -> Option<String> {
        // SAFETY: the handle is valid, and the text lives until the next call.
        let (code, text) = unsafe {
            let text = CStr::from_ptr(raw::tjGetErrorStr2(self.0.as_ptr()));
            (raw::tjGetErrorCode(self.0.as_ptr()), text.to_string_lossy().into_owned())
        };
        // An error after a warning has the code of a warning. These are the beginnings of all warnings of libjpeg.
        const WARNINGS: [&str; 7] = [
            "Corrupt JPEG data",
            "Premature end of JPEG",
            "Inconsistent progression",
            "Invalid SOS parameters",
            "Unknown Adobe color",
            "Warning",
            "Application transferred too many",
        ];
        let is_warning = WARNINGS.iter().any(|beginning| text.starts_with(beginning));
        (code == raw::TJERR_TJERR_WARNING as i32 && is_warning).then_some(text)
    }
}

impl Drop for Turbo {
    fn drop(&mut self) {
        // SAFETY: `new` created the handle, and it is destroyed once.
        unsafe {
            raw::tjDestroy(self.0.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// Texture, so that each row takes about as many bytes.
    fn picture() -> RgbImage {
        RgbImage::from_fn(64, 400, |x, y| {
            let value = x.wrapping_mul(2_654_435_761).wrapping_add(y.wrapping_mul(40_503)) >> 7;
            Rgb([value as u8, (value >> 3) as u8, (120 + y / 8) as u8])
        })
    }

    fn encoded(progressive: bool) -> Vec<u8> {
        let picture = picture();
        // SAFETY: the input holds height rows of width RGB pixels. libjpeg-turbo allocates the output, which is copied
        // and then freed.
        unsafe {
            let handle = raw::tjInitCompress();
            let (mut output, mut size) = (std::ptr::null_mut(), 0);
            let flags = if progressive { raw::TJFLAG_PROGRESSIVE as i32 } else { 0 };
            let status = raw::tjCompress2(
                handle,
                picture.as_ptr(),
                picture.width() as _,
                0,
                picture.height() as _,
                raw::TJPF_TJPF_RGB,
                &raw mut output,
                &raw mut size,
                raw::TJSAMP_TJSAMP_420 as _,
                90,
                flags,
            );
            assert_eq!(status, 0);
            let bytes = std::slice::from_raw_parts(output, size as usize).to_vec();
            raw::tjFree(output);
            raw::tjDestroy(handle);
            bytes
        }
    }

    fn decoded(bytes: &[u8]) -> Result<Decoded, DecodeError> {
        decode(bytes, Limits::default())
    }

    #[test]
    fn an_image_that_lacks_only_its_end_is_damaged() {
        for progressive in [false, true] {
            let whole = encoded(progressive);
            let sound = decoded(&whole).unwrap();
            assert_eq!(sound.decoding, Decoding::default());
            for rest in [&b""[..], b"\xff"] {
                let cut = [&whole[..whole.len() - 2], rest].concat();
                let damaged = decoded(&cut).unwrap();
                assert!(damaged.decoding.damaged.as_ref().is_some_and(|what| what.contains("Premature end")));
                assert!(damaged.pixels == sound.pixels, "the pixels are those of the whole image");
            }
        }
    }

    #[test]
    fn an_image_that_lacks_rows_is_truncated() {
        for progressive in [false, true] {
            let whole = encoded(progressive);
            for share in [0.2, 0.5, 0.9] {
                let cut = &whole[..(whole.len() as f64 * share) as usize];
                for bytes in [cut.to_vec(), [cut, b"\xff\xd9"].concat()] {
                    let error = decoded(&bytes).err().expect("rows are missing");
                    assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
                }
            }
        }
        // 400 rows are 25 rows of blocks: the last one is 4 %.
        let whole = encoded(false);
        let error = decoded(&whole[..whole.len() - 30]).err().unwrap().to_string();
        // Interpolated colours reach one row further.
        let expected = |rows: u32| format!("the jpg is truncated: {rows} of 400 rows are missing");
        assert!(error == expected(16) || error == expected(17), "{error}");
    }

    #[test]
    fn a_warning_is_noted_and_the_image_is_taken() {
        let mut bytes = encoded(false);
        let end = bytes.len() - 2;
        bytes.splice(end..end, [1; 100]);
        let damaged = decoded(&bytes).unwrap();
        assert!(damaged.decoding.damaged.unwrap().contains("extraneous bytes"));
        assert!(damaged.pixels == decoded(&encoded(false)).unwrap().pixels);
        // Invalid parameters of the scan, which have no meaning in a sequential image.
        let mut bytes = encoded(false);
        let scan = bytes.windows(2).position(|pair| pair == [0xff, Markers::SCAN]).unwrap();
        bytes[scan + 2 + 2 + 1 + 6 + 2] = 0x10;
        assert!(decoded(&bytes).unwrap().decoding.damaged.unwrap().contains("Invalid SOS parameters"));
    }

    #[test]
    fn several_scans_take_more_memory() {
        let pixels = 64 * 400;
        assert_eq!(header(&encoded(false)).unwrap(), (64, 400, 3 * pixels));
        // Luma, and two planes of a quarter, of two bytes and a margin.
        assert_eq!(header(&encoded(true)).unwrap(), (64, 400, (6.3 * pixels as f64) as u64));
        assert!(header(b"\xff\xd8\xff\xe0no data").is_none());
    }
}
