//! pg_dump's custom and tar formats, through pg_restore.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use super::error::SourceError;

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

    #[test]
    fn missing_pg_restore_error_names_the_package() {
        let archive = Archive::File("dump".into());
        let Err(error) = PgRestore::start("no-such-program-as-pg_restore", archive) else {
            panic!("expected an error")
        };
        assert!(error.to_string().contains("postgresql-client"), "{error}");
    }
}
