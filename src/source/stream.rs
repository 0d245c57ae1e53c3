//! A window on the bytes of the dump. It grows only as far as one row needs.

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Position, SourceError};

/// Limit for a row, or for anything else that must be in memory as a whole.
pub const MAX_WINDOW: usize = 64 << 20;

/// Rows may take this much memory, in bytes, whatever the size of the file.
const MAX_MEMORY: usize = 256 << 20;

/// Beyond [`MAX_MEMORY`], rows may take this many bytes for each byte of a compressed file. A row of a face takes about
/// 100 bytes in memory, and compresses to 10 at best unless it repeats others.
const MAX_MEMORY_PER_BYTE: u64 = 20;

/// UTF-8's byte order mark.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// Bytes per read.
const CHUNK: usize = 256 << 10;

/// How much of the dump has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from the file, before decompression.
    pub bytes: u64,
    /// The size of the file in bytes, if known.
    pub total: Option<u64>,
    /// Rows of faces, photos and labels read so far.
    pub rows: u64,
}

/// Counts the bytes of the file, before decompression.
#[derive(Debug, Clone, Default)]
pub struct ReadMeter {
    pub bytes: Arc<AtomicU64>,
    pub total: Option<u64>,
    /// Whether the bytes are compressed.
    pub compressed: bool,
}

/// Counts the bytes read through it.
pub struct MeteredReader<R> {
    pub reader: R,
    pub meter: ReadMeter,
}

impl<R: Read> Read for MeteredReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.meter.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A reader with a window and a position, which reports its progress.
pub struct Stream<'a> {
    reader: Box<dyn Read + 'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    /// The last byte dropped from the buffer.
    last_dropped: u8,
    /// The position of `buffer[0]` in the dump.
    origin: Position,
    pub rows: u64,
    meter: ReadMeter,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> Stream<'a> {
    pub fn new(reader: Box<dyn Read + 'a>, meter: ReadMeter, progress: &'a mut dyn FnMut(Progress)) -> Self {
        Self {
            reader,
            buffer: vec![0; 2 * CHUNK],
            start: 0,
            end: 0,
            ended: false,
            last_dropped: b'\n',
            origin: Position { line: 1, offset: 0 },
            rows: 0,
            meter,
            progress,
        }
    }

    /// The next bytes, as far as they have been read.
    pub fn window(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Returns the window with at least `wanted` bytes, unless the dump ends before.
    pub fn fill(&mut self, wanted: usize) -> Result<&[u8], SourceError> {
        while self.end - self.start < wanted && !self.ended {
            self.read()?;
        }
        Ok(self.window())
    }

    /// At least doubles the window, so that scanning again from its start stays cheap. False: the dump has ended.
    pub fn grow(&mut self) -> Result<bool, SourceError> {
        let length = self.end - self.start;
        if length >= MAX_WINDOW {
            return Err(self.broken(0, format!("a row is larger than {} MiB", MAX_WINDOW >> 20)));
        }
        self.fill((2 * length).clamp(1, MAX_WINDOW + 1)).map(|window| window.len() > length)
    }

    fn read(&mut self) -> Result<(), SourceError> {
        if self.buffer.len() - self.end < CHUNK {
            self.shift();
        }
        let read = loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(0) => self.ended = true,
            Ok(read) => self.end += read,
            Err(error) => return Err(self.unreadable(error)),
        }
        let bytes = self.meter.bytes.load(Ordering::Relaxed);
        (self.progress)(Progress { bytes, total: self.meter.total, rows: self.rows });
        Ok(())
    }

    /// Makes room for another chunk: moves the window to the front of the buffer, or enlarges the buffer.
    fn shift(&mut self) {
        if self.start > 0 {
            self.origin = self.position(0);
            self.last_dropped = self.buffer[self.start - 1];
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() - self.end < CHUNK {
            self.buffer.resize((2 * self.buffer.len()).min(MAX_WINDOW + 2 * CHUNK), 0);
        } else if self.buffer.len() > 8 * CHUNK && self.end < CHUNK {
            self.buffer.truncate(2 * CHUNK);
            self.buffer.shrink_to_fit();
        }
    }

    /// Checks that the memory taken by rows is in proportion to the file, so that a small file cannot fill the memory.
    pub fn check_memory(&self, size: usize) -> Result<(), SourceError> {
        let file = self.meter.bytes.load(Ordering::Relaxed);
        if self.meter.compressed && size > MAX_MEMORY && size as u64 > MAX_MEMORY_PER_BYTE * file {
            return Err(self.broken(
                0,
                format!("{file} compressed bytes expand to rows that need more than {} MiB", MAX_MEMORY >> 20),
            ));
        }
        Ok(())
    }

    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
    }

    /// Bytes of the dump before the window.
    pub fn offset(&self) -> u64 {
        self.origin.offset + self.start as u64
    }

    /// Whether the next byte starts a line.
    pub fn at_line_start(&self) -> bool {
        if self.start > 0 { self.buffer[self.start - 1] == b'\n' } else { self.last_dropped == b'\n' }
    }

    /// The position of the byte `ahead` of the window's start.
    pub fn position(&self, ahead: usize) -> Position {
        let seen = &self.buffer[..(self.start + ahead).min(self.end)];
        Position {
            line: self.origin.line + memchr::memchr_iter(b'\n', seen).count() as u64,
            offset: self.origin.offset + seen.len() as u64,
        }
    }

    /// An error at the byte `ahead` of the window's start.
    pub fn broken(&self, ahead: usize, detail: impl Into<String>) -> SourceError {
        SourceError::Broken { at: self.position(ahead), detail: detail.into() }
    }

    /// An error at the end of the dump.
    pub fn truncated(&self, detail: impl Into<String>) -> SourceError {
        SourceError::Truncated { at: self.position(usize::MAX / 2), detail: detail.into() }
    }

    /// A refusal at the byte `ahead` of the window's start.
    pub fn refused(&self, ahead: usize, detail: impl Into<String>) -> SourceError {
        SourceError::Refused { at: self.position(ahead), detail: detail.into() }
    }

    /// An error of a decoder means a broken dump; an error of the operating system does not.
    fn unreadable(&self, error: std::io::Error) -> SourceError {
        if error.kind() == ErrorKind::UnexpectedEof {
            return self.truncated(format!("the compressed data ends here ({error})"));
        }
        if is_io_failure(&error) {
            return SourceError::Io { what: "cannot read the dump".into(), error };
        }
        SourceError::Broken {
            at: self.position(usize::MAX / 2),
            detail: format!("the compressed data is broken ({error})"),
        }
    }
}

/// Whether reading failed for a reason outside the content.
pub fn is_io_failure(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some() || error.kind() == ErrorKind::ConnectionAborted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns at most a fixed number of bytes at a time.
    struct SlowReader<'a>(&'a [u8], usize);

    impl Read for SlowReader<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn positions_survive_shifts() {
        let text: Vec<u8> = (0..400_000).flat_map(|i| format!("{i}\n").into_bytes()).collect();
        let mut quiet = |_: Progress| {};
        let mut stream = Stream::new(Box::new(SlowReader(&text, 70_001)), ReadMeter::default(), &mut quiet);
        let mut lines = 0;
        loop {
            let window = stream.fill(100).unwrap();
            let Some(end) = memchr::memchr(b'\n', window) else { break };
            let number: u64 = std::str::from_utf8(&window[..end]).unwrap().parse().unwrap();
            assert_eq!(number, lines);
            if number.is_multiple_of(9_973) {
                let at = stream.position(0);
                assert_eq!(at.line, number + 1);
                assert_eq!(text[..at.offset as usize].iter().filter(|b| **b == b'\n').count() as u64, number);
                assert!(stream.at_line_start());
            }
            stream.consume(end + 1);
            lines += 1;
        }
        assert_eq!(lines, 400_000);
        assert!(stream.buffer.len() <= 4 * CHUNK);
    }

    #[test]
    fn window_growth_is_bounded() {
        let mut quiet = |_: Progress| {};
        let mut stream = Stream::new(Box::new(std::io::repeat(b'x')), ReadMeter::default(), &mut quiet);
        let error = loop {
            match stream.grow() {
                Ok(more) => assert!(more),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SourceError::Broken { .. }), "{error}");
        assert!(stream.buffer.len() <= 2 * MAX_WINDOW);
    }
}
