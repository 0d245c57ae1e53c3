//! Opens a dump and decompresses it. The compression is detected from the first bytes, not from the file name.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use tempfile::NamedTempFile;

use super::error::{Position, SourceError};
use super::gzip::GzipReader;
use super::stream::{MeteredReader, ReadMeter, is_io_failure};
use super::utf16::{self, Utf16Reader};
use super::warnings::Warnings;

/// The location of a dump.
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

/// An open dump, decompressed.
pub struct OpenedDump {
    /// Starts at the first byte.
    pub reader: Box<dyn Read + Send>,
    /// The first bytes, at most [`HEAD`].
    pub head: Vec<u8>,
    pub meter: ReadMeter,
    /// Whether the reader gives other bytes than the file has.
    transformed: bool,
    /// The path, if the dump is a regular uncompressed file.
    pub plain_file: Option<PathBuf>,
}

/// Bytes used to detect the format.
const HEAD: usize = 64 << 10;

/// Memory limit for decoders: the headers of xz and zstd files ask for an amount.
const MAX_DECODER_MEMORY: u64 = 256 << 20;

impl Input {
    pub fn open(&self, warnings: &Warnings) -> Result<OpenedDump, SourceError> {
        match self {
            Self::Stdin => open(Box::new(io::stdin()), warnings),
            Self::File(path) => {
                let failed = |error| SourceError::Io { what: path.display().to_string(), error };
                let file = File::open(path).map_err(failed)?;
                let data = file.metadata().map_err(failed)?;
                if data.is_dir() {
                    return Err(SourceError::Unknown(format!("{} is a directory: give a dump file", path.display())));
                }
                let regular = data.is_file();
                let opened = unpack(Box::new(file), regular.then_some(data.len()), warnings)?;
                let plain_file = (regular && !opened.transformed).then(|| path.clone());
                Ok(OpenedDump { plain_file, ..opened })
            }
        }
    }
}

/// Opens a dump from any reader.
pub fn open(reader: Box<dyn Read + Send>, warnings: &Warnings) -> Result<OpenedDump, SourceError> {
    unpack(reader, None, warnings)
}

fn unpack(reader: Box<dyn Read + Send>, total: Option<u64>, warnings: &Warnings) -> Result<OpenedDump, SourceError> {
    let mut meter = ReadMeter { total, ..ReadMeter::default() };
    let mut reader: Box<dyn Read + Send> = Box::new(MeteredReader { reader, meter: meter.clone() });
    let head = peek(&mut reader, 16)?;
    let compression = Compression::sniff(&head);
    let reader = Box::new(Cursor::new(head).chain(reader));
    let mut reader: Box<dyn Read + Send> = match compression {
        Some(compression) => {
            meter.compressed = true;
            let decoder = compression.decoder(reader, warnings)?;
            Box::new(ExpansionLimit { decoder, expanded: 0, meter: meter.clone() })
        }
        None => reader,
    };
    let mut head = peek(&mut reader, HEAD)?;
    let mut reader: Box<dyn Read + Send> = Box::new(Cursor::new(head.clone()).chain(reader));
    let mut transformed = compression.is_some();
    if let Some(encoding) = utf16::sniff(&head) {
        warnings.add(format!(
            "the dump is {}, as `>` of PowerShell writes it, which may have changed letters beyond ASCII: write it with \
             mysqldump --result-file or pg_dump --file",
            encoding.name()
        ));
        reader = Box::new(Utf16Reader::new(reader, encoding));
        head = peek(&mut reader, HEAD)?;
        reader = Box::new(Cursor::new(head.clone()).chain(reader));
        transformed = true;
    }
    Ok(OpenedDump { reader, head, meter, transformed, plain_file: None })
}

/// Bytes that any compressed file may expand to.
const MAX_EXPANDED: u64 = 1 << 30;

/// Beyond [`MAX_EXPANDED`], the most bytes for each byte of the file. Real dumps expand to 5 to 50 times their size.
const MAX_EXPANSION: u64 = 500;

/// Ends with an error where a small file expands without end.
struct ExpansionLimit<R> {
    decoder: R,
    expanded: u64,
    meter: ReadMeter,
}

impl<R: Read> Read for ExpansionLimit<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.expanded += read as u64;
        let file = self.meter.bytes.load(Ordering::Relaxed);
        if self.expanded > MAX_EXPANDED && self.expanded / MAX_EXPANSION > file {
            let detail = format!("it expands to more than {MAX_EXPANSION} times its size: decompress it first");
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        Ok(read)
    }
}

/// Reads up to `length` bytes. An error of the dump is kept for the main read, which reports it with its position.
fn peek(reader: &mut Box<dyn Read + Send>, length: usize) -> Result<Vec<u8>, SourceError> {
    let mut head = Vec::new();
    let mut limited = reader.take(length as u64);
    if let Err(error) = limited.read_to_end(&mut head) {
        if is_io_failure(&error) {
            return Err(SourceError::Io { what: "cannot read the dump".into(), error });
        }
        *reader = Box::new(FailingReader(Some(error)));
    }
    Ok(head)
}

/// Reads carriage returns as line feeds.
pub struct LineEnds<R>(pub R);

impl<R: Read> Read for LineEnds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        buffer[..read].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        Ok(read)
    }
}

/// A reader that returns its error once.
struct FailingReader(Option<io::Error>);

impl Read for FailingReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Copies a stream into a temporary file, for formats that are not read from front to back.
pub fn unpack_to_file(mut stream: impl Read) -> Result<NamedTempFile, SourceError> {
    let failed = |error| SourceError::Io { what: "cannot copy the file to the temporary directory".into(), error };
    let mut file = NamedTempFile::new().map_err(failed)?;
    io::copy(&mut stream, &mut file).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            SourceError::Broken {
                at: Position { line: 1, offset: file.as_file().metadata().map_or(0, |data| data.len()) },
                detail: format!("the compressed data is broken ({error})"),
            }
        }
        _ => failed(error),
    })?;
    file.flush().map_err(failed)?;
    Ok(file)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Compression {
    fn sniff(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // A block starts with the digits of pi, the end of an empty file with those of its square root.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, ..] => Some(Self::Bzip2),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    fn decoder(
        self,
        compressed: Box<dyn Read + Send>,
        warnings: &Warnings,
    ) -> Result<Box<dyn Read + Send>, SourceError> {
        let failed = |error: io::Error| SourceError::Io { what: format!("cannot decompress {self:?}"), error };
        Ok(match self {
            Self::Gzip => Box::new(GzipReader::new(compressed, warnings.clone())),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(compressed).map_err(failed)?;
                decoder.window_log_max(MAX_DECODER_MEMORY.ilog2()).map_err(failed)?;
                Box::new(decoder)
            }
            Self::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(MAX_DECODER_MEMORY, liblzma::stream::CONCATENATED)
                        .map_err(|error| failed(error.into()))?;
                Box::new(liblzma::read::XzDecoder::new_stream(compressed, stream))
            }
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(compressed)),
        })
    }
}
