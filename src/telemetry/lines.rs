//! Log lines: for people on a terminal, as JSON otherwise. Each says which photo it is about, and where in its trace.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Writes a whole line to standard error; whoever draws progress bars there knows how to step aside.
pub type Sink = Arc<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// The environment variable that says what is logged, as `tracing-subscriber`'s directives: `facemill=debug`.
pub const ENV: &str = "FACEMILL_LOG";

/// What the lines within a span are about.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct About {
    /// Run and photo id.
    pub photo: String,
    pub stage: &'static str,
    pub attempt: u32,
    pub trace_id: String,
    /// None: nobody traces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
}

impl About {
    /// Has every line within the span say so.
    pub fn note(self, span: &Span) {
        span.with_subscriber(|(id, subscriber)| {
            if let Some(span) = subscriber.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) {
                span.extensions_mut().insert(self);
            }
        });
    }
}

/// Logs. `default` holds when [`ENV`] is not set.
pub(super) fn layer<S>(default: &str, sink: Sink) -> Result<Box<dyn Layer<S> + Send + Sync>, String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let directives = std::env::var(ENV).unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|error| format!("{ENV}=`{directives}`: {error}"))?;
    let style = if io::stderr().is_terminal() { Style::Plain } else { Style::Json };
    Ok(tracing_subscriber::fmt::layer().event_format(style).with_writer(Lines(sink)).with_filter(filter).boxed())
}

/// For whom a line is.
#[derive(Debug, Clone, Copy)]
enum Style {
    /// For a person.
    Plain,
    /// For a program.
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
        let about = spans.find_map(|span| span.extensions().get::<About>().cloned());
        match self {
            Self::Plain => plain(&mut line, event, about.as_ref(), &fields.0),
            Self::Json => json(&mut line, event, about.as_ref(), &fields.0),
        }
    }
}

fn plain(line: &mut Writer<'_>, event: &Event<'_>, about: Option<&About>, fields: &Map<String, Value>) -> fmt::Result {
    SystemTime.format_time(line)?;
    write!(line, " {:>5}", event.metadata().level())?;
    if let Some(About { photo, stage, attempt, .. }) = about {
        write!(line, " {photo} {stage}")?;
        if *attempt > 1 {
            write!(line, " (attempt {attempt})")?;
        }
        line.write_char(':')?;
    }
    if let Some(message) = fields.get(MESSAGE) {
        write!(line, " {}", harmless(message.as_str().unwrap_or_default()))?;
    }
    for (name, value) in fields.iter().filter(|(name, _)| *name != MESSAGE) {
        match value.as_str() {
            Some(text) => write!(line, " {name}={}", harmless(text))?,
            None => write!(line, " {name}={value}")?,
        }
    }
    writeln!(line)
}

/// Strangers' words, so that none of them moves a terminal's cursor.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn json(line: &mut Writer<'_>, event: &Event<'_>, about: Option<&About>, fields: &Map<String, Value>) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let level = event.metadata().level().as_str();
    write!(line, "{{\"timestamp\":{},\"level\":\"{level}\"", Value::from(time))?;
    let target = Map::from_iter([("target".to_owned(), Value::from(event.metadata().target()))]);
    let about = match about.map(serde_json::to_value) {
        Some(Ok(Value::Object(about))) => about,
        _ => Map::new(),
    };
    // What the line itself says goes before what its span says.
    let of_span = about.into_iter().filter(|(name, _)| !fields.contains_key(name));
    let message = fields.get(MESSAGE).map(|message| (MESSAGE.to_owned(), message.clone()));
    let own = fields.clone().into_iter().filter(|(name, _)| name != MESSAGE);
    for (name, value) in message.into_iter().chain(of_span).chain(own).chain(target) {
        write!(line, ",{}:{value}", Value::from(name))?;
    }
    writeln!(line, "}}")
}

/// The name that `tracing` gives to a line's sentence.
const MESSAGE: &str = "message";

/// An event's fields, in their order.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn keep(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:?}"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    /// What is logged in a style while `work` runs.
    fn logged(style: Style, work: impl FnOnce()) -> String {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let kept = text.clone();
        let sink: Sink = Arc::new(move |line| {
            kept.lock().unwrap().extend_from_slice(line);
            Ok(())
        });
        let layer = tracing_subscriber::fmt::layer().event_format(style).with_writer(Lines(sink));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let text = text.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    fn about_a_photo() {
        let span = tracing::error_span!("process");
        let about = About {
            photo: "r/1".into(),
            stage: "fetch",
            attempt: 2,
            trace_id: "aa".into(),
            span_id: Some("bb".into()),
        };
        about.note(&span);
        let _inside = span.enter();
        let _deeper = tracing::error_span!("download").entered();
        tracing::warn!(host = "photos.test", bytes = 7, "odd \"answer\"\nof two lines");
    }

    #[test]
    fn a_line_for_a_program_says_which_photo_and_where_in_its_trace() {
        let text = logged(Style::Json, about_a_photo);
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
    fn a_line_for_a_person_is_short() {
        let text = logged(Style::Plain, about_a_photo);
        assert!(text.contains("  WARN r/1 fetch (attempt 2): odd \"answer\"\u{fffd}of two lines"), "{text}");
        let text = logged(Style::Plain, || tracing::info!(n = 1, "hello"));
        assert!(text.trim_end().ends_with("  INFO hello n=1"), "{text}");
    }
}
