//! PostgreSQL's own formats: the rows of a COPY, and pg_dump's custom format through pg_restore.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use memchr::{memchr, memchr_iter, memmem};

use super::error::SourceError;
use super::mapping::{ColumnMap, SourceRow, WIDTH};
use super::script::{Script, not_utf8, utf8, wrong_width};
use super::values::unescape_one;

impl Script<'_, '_> {
    /// Reads the lines after `COPY ... FROM stdin;` up to and including `\.`.
    pub(super) fn copied_rows(&mut self, column_map: &ColumnMap) -> Result<(), SourceError> {
        loop {
            let stream = &mut self.lexer.stream;
            let mut seen = 0;
            let end = loop {
                match memchr(b'\n', &stream.window()[seen..]) {
                    Some(end) => break seen + end,
                    None => seen = stream.window().len(),
                }
                if !stream.grow()? {
                    // The last `\.` may lack its newline; a row may not.
                    if matches!(stream.window(), b"\\." | b"\\.\r") {
                        let rest = stream.window().len();
                        stream.consume(rest);
                        return Ok(());
                    }
                    return Err(stream.truncated(r"the dump ends before the `\.` that closes a COPY"));
                }
            };
            let line = &stream.window()[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line == b"\\." {
                stream.consume(end + 1);
                return Ok(());
            }
            let fields = split(line, column_map).map_err(|found| stream.broken(0, wrong_width(column_map, found)))?;
            let mut row = SourceRow::default();
            for (slot, field) in fields.into_iter().enumerate() {
                let bytes = field.and_then(unescape);
                row[slot] = utf8(bytes).map_err(|_| stream.broken(0, not_utf8(column_map.role, slot)))?;
            }
            self.builder.add(column_map.role, row)?;
            self.lexer.stream.rows += 1;
            self.lexer.stream.consume(end + 1);
        }
    }

    /// Skips the lines of a COPY without parsing them. No row starts with `\.`: COPY doubles the backslash.
    pub(super) fn skip_copied_rows(&mut self) -> Result<(), SourceError> {
        let finder = memmem::Finder::new(b"\n\\.");
        let stream = &mut self.lexer.stream;
        if !stream.fill(2)?.starts_with(b"\\.") {
            loop {
                let window = stream.fill(4)?;
                let length = window.len();
                match finder.find(window) {
                    Some(at) => {
                        stream.consume(at + 1);
                        break;
                    }
                    None if length < 4 => {
                        return Err(stream.truncated(r"the dump ends before the `\.` that closes a COPY"));
                    }
                    None => stream.consume(length - 3),
                }
            }
        }
        self.lexer.skip_line()
    }
}

/// Returns the fields of a COPY line that the query reads. The error is the wrong number of fields.
fn split<'l>(line: &'l [u8], column_map: &ColumnMap) -> Result<[Option<&'l [u8]>; WIDTH], usize> {
    let mut fields = [None; WIDTH];
    let mut count = 0;
    let mut start = 0;
    for end in memchr_iter(b'\t', line).chain([line.len()]) {
        for (slot, index) in column_map.indices.iter().enumerate() {
            if *index == Some(count) {
                fields[slot] = Some(&line[start..end]);
            }
        }
        count += 1;
        start = end + 1;
    }
    if count == column_map.width { Ok(fields) } else { Err(count) }
}

/// Decodes a field of COPY's text format.
pub fn unescape(field: &[u8]) -> Option<Cow<'_, [u8]>> {
    if field == b"\\N" {
        return None;
    }
    let Some(first) = memchr(b'\\', field) else { return Some(Cow::Borrowed(field)) };
    let mut bytes = field[..first].to_vec();
    let mut rest = &field[first..];
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'\\' {
            rest = &rest[unescape_one(rest, &mut bytes)..];
        } else {
            bytes.push(*byte);
        }
    }
    Some(Cow::Owned(bytes))
}

/// A running pg_restore that turns a dump in the custom format into a script.
pub struct PgRestore {
    child: Child,
    stderr: JoinHandle<String>,
}

/// The input of pg_restore.
pub enum Archive {
    File(PathBuf),
    Stream(Box<dyn Read + Send>),
}

/// Bytes of pg_restore's standard error that are kept.
const MAX_STDERR: u64 = 2000;

impl PgRestore {
    /// Starts `program`, which writes the dump as a script to the returned pipe.
    pub fn start(program: &str, archive: Archive) -> Result<(Self, ChildStdout), SourceError> {
        let mut command = Command::new(program);
        command.args(["--no-owner", "--no-privileges", "--file=-"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        match &archive {
            Archive::File(path) => command.arg(absolute(path)).stdin(Stdio::null()),
            Archive::Stream(_) => command.stdin(Stdio::piped()),
        };
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::NoPgRestore { program: program.to_owned() },
            _ => SourceError::Io { what: format!("cannot start `{program}`"), error },
        })?;
        let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(SourceError::PgRestore("its output is not connected".into()));
        };
        let stderr = std::thread::spawn(move || {
            let mut kept = Vec::new();
            let _ = (&mut errors).take(MAX_STDERR).read_to_end(&mut kept);
            let _ = io::copy(&mut errors, &mut io::sink());
            String::from_utf8_lossy(&kept).trim().to_owned()
        });
        if let (Archive::Stream(mut dump), Some(mut input)) = (archive, child.stdin.take()) {
            // If either end fails, the copy ends, and pg_restore reports a short dump. The thread is not joined: it may
            // block in a read from a terminal.
            std::thread::spawn(move || io::copy(&mut dump, &mut input));
        }
        Ok((Self { child, stderr }, output))
    }

    /// Waits for pg_restore. Its error message replaces the error that its truncated output caused.
    pub fn finish(mut self, outcome: Result<(), SourceError>) -> Result<(), SourceError> {
        let at_end = matches!(outcome, Ok(()) | Err(SourceError::Truncated { .. } | SourceError::Unfit(_)));
        if !at_end {
            let _ = self.child.kill();
        }
        let status =
            self.child.wait().map_err(|error| SourceError::Io { what: "cannot wait for pg_restore".into(), error })?;
        let stderr = self.stderr.join().unwrap_or_default();
        if !at_end || status.success() {
            return outcome;
        }
        Err(SourceError::PgRestore(if stderr.is_empty() { status.to_string() } else { stderr }))
    }
}

/// An absolute path cannot be taken for an option.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mapping::Role;

    #[test]
    fn copy_fields_are_unescaped() {
        let text = |field: &[u8]| unescape(field).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(text(b"\\N"), None);
        assert_eq!(text(b""), Some("".into()));
        assert_eq!(text("宇佐美".as_bytes()), Some("宇佐美".into()));
        assert_eq!(text(br"a\tb\\N\n\r\x41\102\q\'\"), Some("a\tb\\N\n\rABq'".into()));
    }

    #[test]
    fn split_counts_the_fields() {
        let column_map = ColumnMap { role: Role::Labels, indices: [Some(2), Some(0), None, None], width: 3 };
        assert_eq!(split(b"a\t\tb", &column_map), Ok([Some(&b"b"[..]), Some(&b"a"[..]), None, None]));
        assert_eq!(split(b"a\tb", &column_map), Err(2));
        assert_eq!(split(b"a\tb\tc\td", &column_map), Err(4));
    }

    #[test]
    fn missing_pg_restore_error_names_the_package() {
        let archive = Archive::File("dump".into());
        let Err(error) = PgRestore::start("no-such-program-as-pg_restore", archive) else {
            panic!("expected an error")
        };
        assert!(error.to_string().contains("postgresql-client"), "{error}");
    }
}
