//! Log lines: for people on a terminal, as JSON otherwise.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Writes a whole line to standard error; whoever draws progress bars there knows how to step aside.
pub type Sink = Arc<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// The environment variable that says what is logged, as `tracing-subscriber`'s directives: `facemill=debug`.
pub const ENV: &str = "FACEMILL_LOG";

/// Begins to log. `default` holds when [`ENV`] is not set. Must be called once, by the command line.
pub fn init(default: &str, sink: Sink) -> Result<(), String> {
    let directives = std::env::var(ENV).unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|error| format!("{ENV}=`{directives}`: {error}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines(sink));
    if io::stderr().is_terminal() {
        lines.with_target(false).compact().init();
    } else {
        lines.json().flatten_event(true).init();
    }
    Ok(())
}

struct Lines(Sink);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: &self.0, text: Vec::new() }
    }
}

/// Collects one event and hands it over whole.
struct Line<'a> {
    sink: &'a Sink,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // There is nowhere left to complain to.
        let _ = (self.sink)(&self.text);
    }
}
