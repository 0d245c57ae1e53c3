//! Log lines: plain text on a terminal, JSON otherwise. Each names its photo and its trace.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// Writes one line to standard error. The sink takes care of progress bars. A line that cannot be written is dropped:
/// there is nowhere to say so.
pub type Sink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The environment variable with the filter, in the syntax of [`Targets`]: `facemill=debug`.
pub const ENV: &str = "FACEMILL_LOG";

/// The photo that the lines within a span are context.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LogContext {
    /// Run and photo id.
    pub photo: String,
    pub stage: &'static str,
    pub attempt: u32,
    pub trace_id: String,
    /// None: traces are off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
}

impl LogContext {
    /// Adds this context to every line within the span.
    pub fn attach(self, span: &Span) {
        span.with_subscriber(|(id, subscriber)| {
            if let Some(span) = subscriber.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
                span.extensions_mut().insert(self);
            }
        });
    }
}

/// Builds the log layer. `default` is the filter if [`ENV`] is not set.
pub(super) fn layer<S>(default: &str, sink: Sink) -> Result<Box<dyn Layer<S> + Send + Sync>, String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let directives = std::env::var(ENV).unwrap_or_else(|_| default.to_owned());
    let filter: Targets = directives.parse().map_err(|error| format!("{ENV}=`{directives}`: {error}"))?;
    let style = if io::stderr().is_terminal() { Style::Plain } else { Style::Json };
    Ok(tracing_subscriber::fmt::layer().event_format(style).with_writer(Lines(sink)).with_filter(filter).boxed())
}

/// The format of a line.
#[derive(Debug, Clone, Copy)]
enum Style {
    /// Text for a terminal.
    Plain,
    /// One JSON object per line.
    Json,
}

impl<S, N> FormatEvent<S, N> for Style
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut spans = context.event_scope().into_iter().flatten();
        let context = spans.find_map(|span| span.extensions().get::<LogContext>().cloned());
        match self {
            Self::Plain => plain(&mut line, event, context.as_ref(), &fields.0),
            Self::Json => json(&mut line, event, context.as_ref(), &fields.0),
        }
    }
}

fn plain(
    line: &mut Writer<'_>,
    event: &Event<'_>,
    context: Option<&LogContext>,
    fields: &Map<String, Value>,
) -> fmt::Result {
    SystemTime.format_time(line)?;
    write!(line, " {:>5}", event.metadata().level())?;
    if let Some(LogContext { photo, stage, attempt, .. }) = context {
        write!(line, " {photo} {stage}")?;
        if *attempt > 1 {
            write!(line, " (attempt {attempt})")?;
        }
        line.write_char(':')?;
    }
    if let Some(message) = fields.get(MESSAGE) {
        write!(line, " {}", without_controls(message.as_str().unwrap_or_default()))?;
    }
    for (name, value) in fields.iter().filter(|(name, _)| *name != MESSAGE) {
        match value.as_str() {
            Some(text) => write!(line, " {name}={}", without_controls(text))?,
            None => write!(line, " {name}={value}")?,
        }
    }
    writeln!(line)
}

/// Replaces control characters, so that foreign text cannot move a terminal's cursor.
fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn json(
    line: &mut Writer<'_>,
    event: &Event<'_>,
    context: Option<&LogContext>,
    fields: &Map<String, Value>,
) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let level = event.metadata().level().as_str();
    write!(line, "{{\"timestamp\":{},\"level\":\"{level}\"", Value::from(time))?;
    let target = Map::from_iter([("target".to_owned(), Value::from(event.metadata().target()))]);
    let context = match context.map(serde_json::to_value) {
        Some(Ok(Value::Object(context))) => context,
        _ => Map::new(),
    };
    // A field of the event overrides one of its span.
    let of_span = context.into_iter().filter(|(name, _)| !fields.contains_key(name));
    let message = fields.get(MESSAGE).map(|message| (MESSAGE.to_owned(), message.clone()));
    let own = fields.clone().into_iter().filter(|(name, _)| name != MESSAGE);
    for (name, value) in message.into_iter().chain(of_span).chain(own).chain(target) {
        write!(line, ",{}:{value}", Value::from(name))?;
    }
    writeln!(line, "}}")
}

/// The name of the field that holds an event's message.
const MESSAGE: &str = "message";

/// The fields of an event, in order.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

struct Lines(Sink);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: &self.0, text: Vec::new() }
    }
}

/// Buffers one event and writes it as a whole.
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
        (self.sink)(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    /// Returns the lines logged in a style while `work` runs.
    fn logged(style: Style, work: impl FnOnce()) -> String {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = text.clone();
        let sink: Sink = Arc::new(move |line| kept.lock().unwrap().extend_from_slice(line));
        let layer = tracing_subscriber::fmt::layer().event_format(style).with_writer(Lines(sink));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let text = text.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    fn log_about_a_photo() {
        let span = tracing::error_span!("process");
        let context = LogContext {
            photo: "r/1".into(),
            stage: "fetch",
            attempt: 2,
            trace_id: "aa".into(),
            span_id: Some("bb".into()),
        };
        context.attach(&span);
        let _inside = span.enter();
        let _deeper = tracing::error_span!("download").entered();
        tracing::warn!(host = "photos.test", bytes = 7, "odd \"answer\"\nof two lines");
    }

    #[test]
    fn json_lines_have_photo_and_trace() {
        let text = logged(Style::Json, log_about_a_photo);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let mut line: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert!(line.remove("timestamp").unwrap().as_str().unwrap().ends_with('Z'));
        let expected = serde_json::json!({
            "level": "WARN", "target": "facemill::telemetry::lines::tests", "photo": "r/1", "stage": "fetch",
            "attempt": 2, "trace_id": "aa", "span_id": "bb", "host": "photos.test", "bytes": 7,
            "message": "odd \"answer\"\nof two lines",
        });
        assert_eq!(Value::Object(line), expected);
    }

    #[test]
    fn plain_lines_are_short() {
        let text = logged(Style::Plain, log_about_a_photo);
        assert!(text.contains("  WARN r/1 fetch (attempt 2): odd \"answer\"\u{fffd}of two lines"), "{text}");
        let text = logged(Style::Plain, || tracing::info!(n = 1, "hello"));
        assert!(text.trim_end().ends_with("  INFO hello n=1"), "{text}");
    }
}
