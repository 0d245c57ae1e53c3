//! Where the dump comes from, and how it is packed: told by its first bytes, never by its name.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;

use super::error::SourceError;
use super::stream::{Meter, Metered, is_of_the_machine};

/// A dump's whereabouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    File(PathBuf),
    Stdin,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("-"),
        }
    }
}

impl From<OsString> for Input {
    /// `-` is standard input.
    fn from(text: OsString) -> Self {
        if text == "-" { Self::Stdin } else { Self::File(text.into()) }
    }
}

/// A dump that is open and, if it was, no longer compressed.
pub struct Opened {
    /// From the first byte on.
    pub reader: Box<dyn Read + Send>,
    /// What it begins with: up to [`HEAD`] bytes.
    pub head: Vec<u8>,
    pub meter: Meter,
    packed: bool,
    /// The file, if it lies there as it is.
    pub plain_file: Option<PathBuf>,
}

/// How much of the dump is looked at to tell what it is.
const HEAD: usize = 64 << 10;

/// The most memory that the header of an xz or zstd file may ask for.
const MAX_DECODER_MEMORY: u64 = 256 << 20;

impl Input {
    pub fn open(&self) -> Result<Opened, SourceError> {
        match self {
            Self::Stdin => open(Box::new(io::stdin())),
            Self::File(path) => {
                let failed = |error| SourceError::Io { what: path.display().to_string(), error };
                let file = File::open(path).map_err(failed)?;
                let data = file.metadata().map_err(failed)?;
                if data.is_dir() {
                    return Err(SourceError::Unknown(format!(
                        "{} is a folder: give the file of a dump",
                        path.display()
                    )));
                }
                let regular = data.is_file();
                let opened = unpack(Box::new(file), regular.then_some(data.len()))?;
                let plain_file = (regular && !opened.packed).then(|| path.clone());
                Ok(Opened { plain_file, ..opened })
            }
        }
    }
}

/// Opens what a reader gives.
pub fn open(reader: Box<dyn Read + Send>) -> Result<Opened, SourceError> {
    unpack(reader, None)
}

fn unpack(reader: Box<dyn Read + Send>, total: Option<u64>) -> Result<Opened, SourceError> {
    let meter = Meter { total, ..Meter::default() };
    let mut reader: Box<dyn Read + Send> = Box::new(Metered { reader, meter: meter.clone() });
    let head = peek(&mut reader, 16)?;
    let packing = Packing::sniff(&head);
    let reader = Box::new(Cursor::new(head).chain(reader));
    let mut reader = match packing {
        Some(packing) => packing.decoder(reader)?,
        None => reader,
    };
    let head = peek(&mut reader, HEAD)?;
    let reader = Box::new(Cursor::new(head.clone()).chain(reader));
    Ok(Opened { reader, head, meter, packed: packing.is_some(), plain_file: None })
}

/// Takes up to `length` bytes. If the dump breaks before, the error comes again when it is read in earnest, with
/// its place.
fn peek(reader: &mut Box<dyn Read + Send>, length: usize) -> Result<Vec<u8>, SourceError> {
    let mut head = Vec::new();
    let mut limited = reader.take(length as u64);
    if let Err(error) = limited.read_to_end(&mut head) {
        if is_of_the_machine(&error) {
            return Err(SourceError::Io { what: "the dump cannot be read".into(), error });
        }
        *reader = Box::new(Breaks(Some(error)));
    }
    Ok(head)
}

/// A reader that has only its error left.
struct Breaks(Option<io::Error>);

impl Read for Breaks {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Packing {
    fn sniff(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // The magic number of a block is pi, that of an empty file's end is its square root.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, ..] => Some(Self::Bzip2),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    fn decoder(self, packed: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, SourceError> {
        let failed = |error: io::Error| SourceError::Io { what: format!("{self:?} cannot be unpacked"), error };
        Ok(match self {
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(packed).map_err(failed)?;
                decoder.window_log_max(MAX_DECODER_MEMORY.ilog2()).map_err(failed)?;
                Box::new(decoder)
            }
            Self::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(MAX_DECODER_MEMORY, liblzma::stream::CONCATENATED)
                        .map_err(|error| failed(error.into()))?;
                Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
            }
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(packed)),
        })
    }
}
