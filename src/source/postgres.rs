//! What only PostgreSQL's dumps have: the rows of a COPY, and the custom format.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use memchr::{memchr, memchr_iter, memmem};

use super::error::SourceError;
use super::mapping::{Route, Row, WIDTH};
use super::script::{Script, not_utf8, utf8, wrong_width};
use super::values::unescape_one;

impl Script<'_, '_> {
    /// Reads the lines after `COPY ... FROM stdin;` up to and including `\.`.
    pub(super) fn copied_rows(&mut self, route: &Route) -> Result<(), SourceError> {
        loop {
            let stream = &mut self.lexer.stream;
            let mut seen = 0;
            let end = loop {
                match memchr(b'\n', &stream.window()[seen..]) {
                    Some(end) => break seen + end,
                    None => seen = stream.window().len(),
                }
                if !stream.grow()? {
                    // The very end of a dump may lack its newline, but a row may not.
                    if matches!(stream.window(), b"\\." | b"\\.\r") {
                        let rest = stream.window().len();
                        stream.consume(rest);
                        return Ok(());
                    }
                    return Err(stream.truncated(r"it ends before the `\.` that closes a COPY"));
                }
            };
            let line = &stream.window()[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line == b"\\." {
                stream.consume(end + 1);
                return Ok(());
            }
            let fields = split(line, route).map_err(|found| stream.broken(0, wrong_width(route, found)))?;
            let mut row = Row::default();
            for (slot, field) in fields.into_iter().enumerate() {
                let bytes = field.and_then(unescape);
                row[slot] = utf8(bytes).map_err(|_| stream.broken(0, not_utf8(route.role, slot)))?;
            }
            self.gatherer.add(route.role, row)?;
            self.lexer.stream.rows += 1;
            self.lexer.stream.consume(end + 1);
        }
    }

    /// Passes the lines of a COPY without looking at them. No row has `\.` at its start: its backslash would be
    /// doubled.
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
                        return Err(stream.truncated(r"it ends before the `\.` that closes a COPY"));
                    }
                    None => stream.consume(length - 3),
                }
            }
        }
        self.lexer.skip_line()
    }
}

/// The fields of a COPY line that the route wants; the number of fields when that is wrong.
fn split<'l>(line: &'l [u8], route: &Route) -> Result<[Option<&'l [u8]>; WIDTH], usize> {
    let mut fields = [None; WIDTH];
    let mut count = 0;
    let mut start = 0;
    for end in memchr_iter(b'\t', line).chain([line.len()]) {
        for (slot, place) in route.places.iter().enumerate() {
            if *place == Some(count) {
                fields[slot] = Some(&line[start..end]);
            }
        }
        count += 1;
        start = end + 1;
    }
    if count == route.width { Ok(fields) } else { Err(count) }
}

/// What a field of COPY's text format stands for.
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

/// A dump in the custom format on its way through pg_restore.
pub struct Restore {
    child: Child,
    complaints: JoinHandle<String>,
}

/// What pg_restore reads from.
pub enum Archive {
    File(PathBuf),
    Stream(Box<dyn Read + Send>),
}

/// So much of what pg_restore complains about is kept.
const MAX_COMPLAINT: u64 = 2000;

impl Restore {
    /// Starts `program`, which writes the dump as a script to the answered pipe.
    pub fn start(program: &str, archive: Archive) -> Result<(Self, ChildStdout), SourceError> {
        let mut command = Command::new(program);
        command.args(["--no-owner", "--no-privileges", "--file=-"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        match &archive {
            Archive::File(path) => command.arg(absolute(path)).stdin(Stdio::null()),
            Archive::Stream(_) => command.stdin(Stdio::piped()),
        };
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::NoPgRestore { program: program.to_owned() },
            _ => SourceError::Io { what: format!("`{program}` cannot be started"), error },
        })?;
        let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(SourceError::PgRestore("it has no output".into()));
        };
        let complaints = std::thread::spawn(move || {
            let mut kept = Vec::new();
            let _ = (&mut errors).take(MAX_COMPLAINT).read_to_end(&mut kept);
            let _ = io::copy(&mut errors, &mut io::sink());
            String::from_utf8_lossy(&kept).trim().to_owned()
        });
        if let (Archive::Stream(mut dump), Some(mut input)) = (archive, child.stdin.take()) {
            // If either end breaks, this ends, and pg_restore sees a short dump and says so. NullObserver waits for it: it
            // may hang in a read from a terminal.
            std::thread::spawn(move || io::copy(&mut dump, &mut input));
        }
        Ok((Self { child, complaints }, output))
    }

    /// Waits for the end, and puts pg_restore's own complaint in place of what its cut-off output led to.
    pub fn finish(mut self, outcome: Result<(), SourceError>) -> Result<(), SourceError> {
        let at_end = matches!(outcome, Ok(()) | Err(SourceError::Truncated { .. } | SourceError::Unfit(_)));
        if !at_end {
            let _ = self.child.kill();
        }
        let status = self.child.wait().map_err(|error| SourceError::Io { what: "pg_restore is lost".into(), error })?;
        let complaints = self.complaints.join().unwrap_or_default();
        if !at_end || status.success() {
            return outcome;
        }
        Err(SourceError::PgRestore(if complaints.is_empty() { status.to_string() } else { complaints }))
    }
}

/// So that no file name looks like an option.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mapping::Role;

    #[test]
    fn copy_fields() {
        let text = |field: &[u8]| unescape(field).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(text(b"\\N"), None);
        assert_eq!(text(b""), Some("".into()));
        assert_eq!(text("宇佐美".as_bytes()), Some("宇佐美".into()));
        assert_eq!(text(br"a\tb\\N\n\r\x41\102\q\'\"), Some("a\tb\\N\n\rABq'".into()));
    }

    #[test]
    fn fields_are_counted() {
        let route = Route { role: Role::Labels, places: [Some(2), Some(0), None, None], width: 3 };
        assert_eq!(split(b"a\t\tb", &route), Ok([Some(&b"b"[..]), Some(&b"a"[..]), None, None]));
        assert_eq!(split(b"a\tb", &route), Err(2));
        assert_eq!(split(b"a\tb\tc\td", &route), Err(4));
    }

    #[test]
    fn a_missing_pg_restore_is_named_with_its_package() {
        let archive = Archive::File("dump".into());
        let Err(error) = Restore::start("no-such-program-as-pg_restore", archive) else { panic!("it started") };
        assert!(error.to_string().contains("postgresql-client"), "{error}");
    }
}
