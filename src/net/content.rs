//! The body of a response: unpacks content codings that nobody asked for, and hashes the picture.
//!
//! What is said about a body is often wrong. Where it begins like a picture, it is one, whatever `Content-Encoding`
//! says. Otherwise gzip, deflate, br and zstd are unpacked; other codings are ignored. Size limits apply to the bytes
//! that arrive and to those that they unpack to.

use std::io::{self, ErrorKind, Write};

use brotli_decompressor::{BrotliDecoderParameter, DecompressorWriter};
use bytes::Bytes;
use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use sha2::{Digest, Sha256};

use super::error::FetchError;
use crate::domain::{CauseCode, ContentHash, ImageFormat, unsupported_format};

/// The length in bytes of the longest magic number of an image format.
const MAGIC: usize = 12;
/// More codings than this, one around the other, are not unpacked.
const MAX_CODINGS: usize = 3;

/// A content coding that can be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// The binary logarithm of the largest window of zstd: RFC 9659 demands no more.
    const ZSTD_WINDOW_LOG: u32 = 23;
    /// The most memory in bytes that a decoder needs: the 16 MiB window of br, which may have to be copied.
    const MEMORY: u64 = 40 << 20;

    fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" | "x-deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// A decoder that writes to `inner`.
    fn decoder(self, inner: Box<dyn Layer>) -> io::Result<Box<dyn Layer>> {
        Ok(match self {
            Self::Gzip => Box::new(GzDecoder::new(inner)),
            Self::Deflate => Box::new(Inflate::Undecided { start: Vec::with_capacity(2), inner: Some(inner) }),
            Self::Brotli => {
                let mut decoder = DecompressorWriter::new(inner, 0);
                // A large window takes up to a gigabyte.
                decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
                Box::new(decoder)
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(inner)?;
                decoder.window_log_max(Self::ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

/// What `Content-Encoding` says.
#[derive(Debug, Default)]
pub(super) struct ContentEncoding {
    /// As the host wrote it; empty without the header.
    text: String,
    /// In the order in which the host applied them.
    codings: Vec<Coding>,
}

impl ContentEncoding {
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(CONTENT_ENCODING).iter();
        let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let text = values.join(", ");
        let mut codings: Vec<Coding> = text.split(',').filter_map(Coding::parse).collect();
        if codings.len() > MAX_CODINGS {
            codings.clear();
        }
        Self { text, codings }
    }

    /// Bytes of memory for a body of this length, or for any, with its decoders.
    pub fn memory(&self, length: Option<u64>, max_bytes: u64) -> u64 {
        match self.codings.len() as u64 {
            0 => length.unwrap_or(max_bytes),
            decoders => max_bytes + decoders * Coding::MEMORY,
        }
    }
}

/// The body of a response while it arrives.
pub(super) struct Content {
    encoding: ContentEncoding,
    /// The first bytes, until they are enough to see what they are.
    start: Vec<u8>,
    layers: Option<Box<dyn Layer>>,
    picture: Option<Box<Picture>>,
    max_bytes: u64,
    received: u64,
    /// What comes after the end of packed data is ignored.
    has_ended: bool,
}

/// A picture that has arrived.
#[derive(Debug)]
pub(super) struct CheckedPicture {
    pub bytes: Vec<u8>,
    pub sha256: ContentHash,
    pub format: ImageFormat,
}

impl Content {
    /// `capacity`: bytes that are allocated at once.
    pub fn new(encoding: ContentEncoding, max_bytes: u64, capacity: usize) -> Self {
        let bytes = Vec::with_capacity(capacity);
        let text = encoding.text.clone();
        let picture = Picture { bytes, hash: Sha256::new(), max_bytes, encoding: text, error: None };
        Self {
            encoding,
            start: Vec::with_capacity(MAGIC),
            layers: None,
            picture: Some(Box::new(picture)),
            max_bytes,
            received: 0,
            has_ended: false,
        }
    }

    /// The number of bytes that have arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The content is too large, is no picture, or cannot be unpacked.
    pub fn push(&mut self, chunk: &Bytes) -> Result<(), FetchError> {
        self.received += chunk.len() as u64;
        if self.received > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        if self.layers.is_some() {
            return self.write(chunk);
        }
        self.start.extend_from_slice(&chunk[..chunk.len().min(MAGIC - self.start.len())]);
        let taken = self.start.len();
        if taken < MAGIC {
            return Ok(());
        }
        let before = self.received as usize - chunk.len();
        self.begin()?;
        self.write(&chunk.slice(taken - before..))
    }

    /// The picture, once the whole body has arrived.
    ///
    /// # Errors
    /// The content is no picture, or the packed data is incomplete.
    pub fn finish(mut self) -> Result<CheckedPicture, FetchError> {
        if self.received == 0 {
            return Err(empty());
        }
        if self.layers.is_none() {
            self.begin()?;
        }
        let mut layers = self.layers.take().ok_or_else(empty)?;
        let finished = layers.finish();
        let picture = layers.picture();
        if let Some(error) = picture.error.take() {
            return Err(error);
        }
        finished.map_err(|error| {
            let detail = format!("the packed content ({}) is incomplete: {error}", self.encoding.text);
            FetchError::failed(CauseCode::Truncated, detail)
        })?;
        let format = picture.sniff()?;
        let sha256 = ContentHash::from_digest(std::mem::take(&mut picture.hash).finalize().into());
        Ok(CheckedPicture { bytes: std::mem::take(&mut picture.bytes), sha256, format })
    }

    /// Decides from the first bytes whether the body is packed.
    fn begin(&mut self) -> Result<(), FetchError> {
        let Some(picture) = self.picture.take() else { return Ok(()) };
        let mut layers: Box<dyn Layer> = picture;
        if ImageFormat::sniff(&self.start).is_none() && unsupported_format(&self.start).is_none() {
            for coding in &self.encoding.codings {
                layers = coding.decoder(layers).map_err(|error| {
                    FetchError::failed(CauseCode::Unknown, format!("cannot set up a decoder: {error}"))
                })?;
            }
        }
        self.layers = Some(layers);
        let start = std::mem::take(&mut self.start);
        self.write(&start)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let Some(layers) = self.layers.as_mut().filter(|_| !self.has_ended) else { return Ok(()) };
        match layers.write_all(bytes) {
            Ok(()) => Ok(()),
            Err(error) => match layers.picture().error.take() {
                Some(error) => Err(error),
                // The packed data has ended before the body.
                None if error.kind() == ErrorKind::WriteZero => {
                    self.has_ended = true;
                    Ok(())
                }
                None => Err(FetchError::rejected(
                    CauseCode::NotAnImage,
                    format!("the content is not what Content-Encoding says ({}): {error}", self.encoding.text),
                )),
            },
        }
    }
}

/// A decoder and those that it writes to; the last one is the picture.
trait Layer: Write + Send {
    fn picture(&mut self) -> &mut Picture;

    /// Writes what is left.
    ///
    /// # Errors
    /// The packed data is incomplete.
    fn finish(&mut self) -> io::Result<()>;
}

/// The unpacked bytes.
struct Picture {
    bytes: Vec<u8>,
    hash: Sha256,
    max_bytes: u64,
    /// The text of `Content-Encoding`.
    encoding: String,
    /// Why no more is taken.
    error: Option<FetchError>,
}

impl Picture {
    fn sniff(&self) -> Result<ImageFormat, FetchError> {
        if self.bytes.is_empty() {
            return Err(empty());
        }
        match self.encoding.as_str() {
            "" => sniff_photo(&self.bytes, ""),
            encoding => sniff_photo(&self.bytes, &format!(" (Content-Encoding: {encoding})")),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        if (self.bytes.len() + bytes.len()) as u64 > self.max_bytes {
            return Err(too_large(self.max_bytes));
        }
        let was_checked = self.bytes.len() >= MAGIC;
        self.hash.update(bytes);
        self.bytes.extend_from_slice(bytes);
        if !was_checked && self.bytes.len() >= MAGIC {
            self.sniff()?;
        }
        Ok(())
    }
}

/// The format of a photo, by its first bytes. `remark` follows the cause of an error.
pub fn sniff_photo(bytes: &[u8], remark: &str) -> Result<ImageFormat, FetchError> {
    ImageFormat::sniff(bytes).ok_or_else(|| {
        if let Some(format) = unsupported_format(bytes) {
            return FetchError::rejected(CauseCode::UnsupportedFormat, format!("{format} is not read"));
        }
        let start = bytes[..bytes.len().min(MAGIC)].escape_ascii();
        FetchError::rejected(CauseCode::NotAnImage, format!("the content begins with \"{start}\"{remark}"))
    })
}

impl Write for Picture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_none() {
            self.error = self.take(bytes).err();
        }
        match self.error {
            None => Ok(bytes.len()),
            Some(_) => Err(io::Error::other("no more is taken")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Layer for Picture {
    fn picture(&mut self) -> &mut Picture {
        self
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Layer for GzDecoder<Box<dyn Layer>> {
    fn picture(&mut self) -> &mut Picture {
        self.get_mut().picture()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.try_finish()?;
        self.get_mut().finish()
    }
}

impl Layer for DecompressorWriter<Box<dyn Layer>> {
    fn picture(&mut self) -> &mut Picture {
        self.get_mut().picture()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.close()?;
        self.get_mut().finish()
    }
}

impl Layer for zstd::stream::write::Decoder<'static, Box<dyn Layer>> {
    fn picture(&mut self) -> &mut Picture {
        self.get_mut().picture()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.get_mut().finish()
    }
}

/// `deflate`: the zlib format, as RFC 9110 says, or bare deflate, as some hosts send it.
enum Inflate {
    Undecided {
        /// At most two bytes.
        start: Vec<u8>,
        inner: Option<Box<dyn Layer>>,
    },
    Zlib(ZlibDecoder<Box<dyn Layer>>),
    Bare(DeflateDecoder<Box<dyn Layer>>),
}

impl Inflate {
    /// Whether two bytes are the header of the zlib format (RFC 1950, 2.2).
    fn is_zlib(method: u8, flags: u8) -> bool {
        method & 0x0f == 8 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
    }
}

impl Write for Inflate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zlib(decoder) => decoder.write(bytes),
            Self::Bare(decoder) => decoder.write(bytes),
            Self::Undecided { start, inner } => {
                let taken = bytes.len().min(2 - start.len());
                start.extend_from_slice(&bytes[..taken]);
                if let [method, flags] = start[..]
                    && let Some(inner) = inner.take()
                {
                    *self = match Self::is_zlib(method, flags) {
                        true => Self::Zlib(ZlibDecoder::new(inner)),
                        false => Self::Bare(DeflateDecoder::new(inner)),
                    };
                    self.write_all(&[method, flags])?;
                }
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zlib(decoder) => decoder.flush(),
            Self::Bare(decoder) => decoder.flush(),
            Self::Undecided { .. } => Ok(()),
        }
    }
}

impl Layer for Inflate {
    fn picture(&mut self) -> &mut Picture {
        match self {
            Self::Zlib(decoder) => decoder.get_mut().picture(),
            Self::Bare(decoder) => decoder.get_mut().picture(),
            Self::Undecided { inner, .. } => {
                inner.as_mut().expect("the inner layer is there until the format is decided").picture()
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Zlib(decoder) => {
                decoder.try_finish()?;
                decoder.get_mut().finish()
            }
            Self::Bare(decoder) => {
                decoder.try_finish()?;
                decoder.get_mut().finish()
            }
            Self::Undecided { .. } => Ok(()),
        }
    }
}

fn empty() -> FetchError {
    FetchError::rejected(CauseCode::EmptyBody, "the host sent an empty body")
}

fn too_large(max_bytes: u64) -> FetchError {
    FetchError::rejected(CauseCode::TooLarge, format!("more than {max_bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn picture() -> Vec<u8> {
        let rest = (0..20_000u32).map(|n| ((n * n) >> 7) as u8);
        [0xff, 0xd8, 0xff, 0xe0].into_iter().chain(rest).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// br without compression: a header with a window of 64 KiB, uncompressed meta-blocks, and the empty last one (RFC
    /// 7932, 9.2).
    fn brotli(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        for (index, chunk) in bytes.chunks(1 << 16).enumerate() {
            // From the lowest bit: the window (0, only at the start), ISLAST 0, MNIBBLES 0 for four, MLEN - 1, and
            // ISUNCOMPRESSED 1; then zeros up to the next byte.
            let header = u32::try_from(chunk.len() - 1).unwrap() << 3 | 1 << 19;
            let (header, bytes) = if index == 0 { (header << 1, 3) } else { (header, 3) };
            packed.extend_from_slice(&header.to_le_bytes()[..bytes]);
            packed.extend_from_slice(chunk);
        }
        packed.push(0b11);
        packed
    }

    fn unpack_in(encoding: &str, body: &[u8], chunk: usize, max_bytes: u64) -> Result<CheckedPicture, FetchError> {
        let headers = match encoding {
            "" => HeaderMap::new(),
            encoding => [(CONTENT_ENCODING, encoding.parse().unwrap())].into_iter().collect(),
        };
        let mut content = Content::new(ContentEncoding::of(&headers), max_bytes, 0);
        for chunk in body.chunks(chunk) {
            content.push(&Bytes::copy_from_slice(chunk))?;
        }
        content.finish()
    }

    fn unpack(encoding: &str, body: &[u8]) -> Result<CheckedPicture, FetchError> {
        unpack_in(encoding, body, 1000, 1 << 20)
    }

    fn code(result: Result<CheckedPicture, FetchError>) -> String {
        result.err().map(|error| error.cause().code.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_picture_is_taken_whatever_its_encoding_is_called() {
        for encoding in ["", "identity", "none", "binary", "image/jpeg", "aws-chunked", "gzip", "br", "deflate, zstd"] {
            let found = unpack(encoding, &picture()).unwrap();
            assert_eq!((found.bytes, found.format), (picture(), ImageFormat::Jpeg), "{encoding}");
            assert_eq!(found.sha256, ContentHash::of(&picture()));
        }
    }

    #[test]
    fn packed_pictures_are_unpacked_in_chunks_of_any_size() {
        let zstd = zstd::encode_all(&picture()[..], 3).unwrap();
        let twice = brotli(&gzip(&picture()));
        for (encoding, body) in [
            ("gzip", gzip(&picture())),
            ("X-GZip", gzip(&picture())),
            ("deflate", zlib(&picture())),
            ("deflate", deflate(&picture())),
            ("br", brotli(&picture())),
            ("zstd", zstd),
            ("gzip, br", twice),
            ("gzip, gzip", gzip(&gzip(&picture()))),
            ("utf-8, gzip", gzip(&picture())),
        ] {
            for chunk in [1, 7, 11, 12, 13, 1 << 20] {
                let found = unpack_in(encoding, &body, chunk, 1 << 20);
                let found = found.unwrap_or_else(|error| panic!("{encoding} by {chunk}: {error:?}"));
                assert!(found.bytes == picture() && found.sha256 == ContentHash::of(&picture()), "{encoding}");
            }
        }
    }

    #[test]
    fn bytes_after_the_packed_data_are_ignored() {
        for (encoding, mut body) in
            [("gzip", gzip(&picture())), ("deflate", zlib(&picture())), ("br", brotli(&picture()))]
        {
            body.extend_from_slice(b"<!-- cached -->");
            assert_eq!(unpack(encoding, &body).unwrap().bytes, picture(), "{encoding}");
        }
    }

    #[test]
    fn bombs_are_stopped_at_the_limit() {
        let limit = 100_000;
        let mut large = picture();
        large.resize(50 << 20, 0);
        let packed =
            [("gzip", gzip(&large)), ("deflate", zlib(&large)), ("zstd", zstd::encode_all(&large[..], 3).unwrap())];
        for (encoding, body) in packed {
            assert!(body.len() < limit as usize, "{encoding}: {}", body.len());
            assert_eq!(code(unpack_in(encoding, &body, 1 << 20, limit)), "too-large", "{encoding}");
        }
        let twice = gzip(&gzip(&large));
        assert_eq!(code(unpack_in("gzip, gzip", &twice, 1 << 20, limit)), "too-large");
        assert_eq!(code(unpack_in("gzip", &gzip(&vec![0; 50 << 20]), 1 << 20, limit)), "not-an-image");
        assert_eq!(code(unpack_in("", &large[..200_000], 1 << 10, limit)), "too-large");
    }

    #[test]
    fn a_large_brotli_window_is_refused() {
        // The header of a window of 2^30 bytes: an extension of RFC 7932.
        let mut body = vec![0x11, 30];
        body.extend_from_slice(&[0; 64]);
        assert_eq!(code(unpack("br", &body)), "not-an-image");
    }

    #[test]
    fn other_content_is_refused() {
        let page = b"<!DOCTYPE html><title>gone</title>".as_slice();
        let many = "gzip,".repeat(MAX_CODINGS + 1);
        for (encoding, body, expected) in [
            ("", page, "not-an-image"),
            ("gzip", page, "not-an-image"),
            ("gzip", &gzip(page), "not-an-image"),
            ("br", page, "not-an-image"),
            ("compress", b"\x1f\x9d\x90packed with compress", "not-an-image"),
            (&many, &gzip(&picture()), "not-an-image"),
            ("", b"GIF", "not-an-image"),
            ("", b"", "empty-body"),
            ("gzip", b"", "empty-body"),
            ("gzip", &gzip(&picture())[..5000], "truncated"),
            ("br", &brotli(&picture())[..5000], "truncated"),
        ] {
            let found = unpack(encoding, body);
            assert_eq!(code(found), expected, "{encoding}: {}", body[..body.len().min(20)].escape_ascii());
        }
        let error = unpack("compress", b"\x1f\x9d\x90packed with compress").unwrap_err();
        assert!(error.cause().detail.ends_with("(Content-Encoding: compress)"), "{}", error.cause().detail);
    }
}
