//! The dump as it streams by: a window on its bytes that grows only as far as one row needs.

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Position, SourceError};

/// A row, or another part that has to be seen whole, may be this large.
pub const MAX_WINDOW: usize = 64 << 20;

/// UTF-8's byte order mark.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// How far the reading has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file that were read, before decompression.
    pub bytes: u64,
    /// The size of the file, where it is known.
    pub total: Option<u64>,
    /// Rows of faces, photos and labels.
    pub rows: u64,
}

/// Counts the bytes of the file, below the decompression.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    pub bytes: Arc<AtomicU64>,
    pub total: Option<u64>,
}

/// Counts what is read through it.
pub struct Metered<R> {
    pub reader: R,
    pub meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.meter.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A reader with a window, a position, and someone who wants to know how far it has come.
pub struct Stream<'a> {
    reader: Box<dyn Read + 'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    /// The last byte that left the buffer, and where `buffer[0]` is in the dump.
    before: u8,
    origin: Position,
    pub rows: u64,
    meter: Meter,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> Stream<'a> {
    pub fn new(reader: Box<dyn Read + 'a>, meter: Meter, progress: &'a mut dyn FnMut(Progress)) -> Self {
        Self {
            reader,
            buffer: vec![0; 2 * CHUNK],
            start: 0,
            end: 0,
            ended: false,
            before: b'\n',
            origin: Position { line: 1, offset: 0 },
            rows: 0,
            meter,
            progress,
        }
    }

    /// The bytes that come next, as far as they are here.
    pub fn window(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The window with at least `wanted` bytes, unless the dump ends before.
    pub fn fill(&mut self, wanted: usize) -> Result<&[u8], SourceError> {
        while self.end - self.start < wanted && !self.ended {
            self.read()?;
        }
        Ok(self.window())
    }

    /// Makes the window much larger, so that looking again from its start is cheap. False at the dump's end.
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

    /// Makes room for another chunk: moves the window to the front, and the front on.
    fn shift(&mut self) {
        if self.start > 0 {
            self.origin = self.position(0);
            self.before = self.buffer[self.start - 1];
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

    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
    }

    /// Bytes of the dump before the window.
    pub fn offset(&self) -> u64 {
        self.origin.offset + self.start as u64
    }

    /// Whether the next byte is the first of a line.
    pub fn at_line_start(&self) -> bool {
        if self.start > 0 { self.buffer[self.start - 1] == b'\n' } else { self.before == b'\n' }
    }

    /// Where the byte `ahead` of the window's start is.
    pub fn position(&self, ahead: usize) -> Position {
        let seen = &self.buffer[..(self.start + ahead).min(self.end)];
        Position {
            line: self.origin.line + memchr::memchr_iter(b'\n', seen).count() as u64,
            offset: self.origin.offset + seen.len() as u64,
        }
    }

    /// The error for something wrong at the byte `ahead`.
    pub fn broken(&self, ahead: usize, detail: impl Into<String>) -> SourceError {
        SourceError::Broken { at: self.position(ahead), detail: detail.into() }
    }

    /// The error for an end where none may be.
    pub fn truncated(&self, detail: impl Into<String>) -> SourceError {
        SourceError::Truncated { at: self.position(usize::MAX / 2), detail: detail.into() }
    }

    /// A decoder that meets the end or nonsense means a broken dump; only the system's own errors are the machine's.
    fn unreadable(&self, error: std::io::Error) -> SourceError {
        if error.kind() == ErrorKind::UnexpectedEof {
            return self.truncated(format!("the compressed data ends here ({error})"));
        }
        if is_of_the_machine(&error) {
            return SourceError::Io { what: "the dump cannot be read".into(), error };
        }
        SourceError::Broken {
            at: self.position(usize::MAX / 2),
            detail: format!("the compressed data is broken ({error})"),
        }
    }
}

/// The source was lost, which says nothing of the content.
pub fn is_of_the_machine(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some() || error.kind() == ErrorKind::ConnectionAborted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out a few bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn positions_hold_across_shifts() {
        let text: Vec<u8> = (0..400_000).flat_map(|i| format!("{i}\n").into_bytes()).collect();
        let mut quiet = |_: Progress| {};
        let mut stream = Stream::new(Box::new(Drip(&text, 70_001)), Meter::default(), &mut quiet);
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
    fn a_window_does_not_grow_for_ever() {
        let mut quiet = |_: Progress| {};
        let mut stream = Stream::new(Box::new(std::io::repeat(b'x')), Meter::default(), &mut quiet);
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
