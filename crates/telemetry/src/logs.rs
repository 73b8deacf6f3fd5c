//! Log lines: which events are logged, and the allow-list that decides what they may show.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;

use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt as _;
use tracing::dispatcher::WeakDispatch;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use crate::context::TraceIds;
use crate::fields;
use crate::redact;

/// Targets of our own crates: module paths that begin with the product's name.
const OWN_TARGETS: &str = "quittance";
/// Crates that speak to collectors and providers. Their events describe traffic, the exporter's
/// own included, and are never logged.
const SILENT_TARGETS: [&str; 6] = ["h2", "hyper", "hyper_util", "reqwest", "tonic", "tower"];
/// Most detailed level at which spans are recorded.
pub(crate) const SPAN_LEVEL: LevelFilter = LevelFilter::INFO;
/// Integers up to here have fewer digits than a card number.
const LARGEST_SHORT_INTEGER: u64 = 999_999_999_999;

pub(crate) fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(OWN_TARGETS)
}

/// Whether a span is recorded: ours, at INFO or above. Spans of other crates would repeat what
/// ours say, with fields that nobody reviewed.
pub(crate) fn is_recorded_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && is_own(metadata) && *metadata.level() <= SPAN_LEVEL
}

/// Lets our own events pass as configured, and those of other crates at WARN and above.
pub(crate) struct LogFilter {
    targets: Targets,
}

impl LogFilter {
    pub(crate) fn new(targets: Targets) -> Self {
        Self { targets }
    }

    fn passes(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            // Seen, so that an event's trace can be told, whatever level is logged.
            return is_recorded_span(metadata);
        }
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        self.targets
            .would_enable(metadata.target(), metadata.level())
            && (is_own(metadata)
                || (*metadata.level() <= Level::WARN && !SILENT_TARGETS.contains(&crate_name)))
    }
}

impl<S> Filter<S> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        self.passes(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.passes(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let default = self.targets.default_level().unwrap_or(LevelFilter::OFF);
        self.targets
            .iter()
            .map(|(_, level)| level)
            .chain([default, SPAN_LEVEL])
            .max()
    }
}

thread_local! {
    /// Reused line buffers: one event needs no allocation but for its values.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Writes one line per event.
pub(crate) struct LogLayer<W> {
    writer: W,
    format: LogFormat,
    colour: bool,
    dispatch: OnceLock<WeakDispatch>,
}

impl<W> LogLayer<W> {
    pub(crate) fn new(writer: W, format: LogFormat, colour: bool) -> Self {
        Self {
            writer,
            format,
            colour,
            dispatch: OnceLock::new(),
        }
    }

    /// Identity of the span that the event belongs to; all zero outside of any.
    fn ids<S>(&self, event: &Event<'_>, context: &Context<'_, S>) -> TraceIds
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if event.is_contextual() {
            return crate::context::current_ids();
        }
        let Some(dispatch) = self.dispatch.get().and_then(WeakDispatch::upgrade) else {
            return TraceIds::default();
        };
        context
            .event_span(event)
            .and_then(|span| tracing_opentelemetry::get_otel_context(&span.id(), &dispatch))
            .map(|context: OtelContext| TraceIds::from(context.span().span_context()))
            .unwrap_or_default()
    }

    fn line(&self, line: &mut String, event: &Event<'_>, ids: TraceIds) {
        let metadata = event.metadata();
        let mut values = Values::new(self.format, is_own(metadata));
        event.record(&mut values);
        // Unnamed events are called after their place in the source.
        let name = Some(metadata.name()).filter(|name| !name.starts_with("event "));
        match self.format {
            LogFormat::Json => json_line(line, metadata, name, ids, &values),
            LogFormat::Readable => readable_line(line, metadata, name, ids, &values, self.colour),
        }
        line.push('\n');
    }
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let ids = self.ids(event, &context);
        let write = |line: &mut String| {
            line.clear();
            self.line(line, event, ids);
            // One write a line, so that lines of different threads do not mix. A log that cannot
            // be written must not fail a payment.
            let _ = self
                .writer
                .make_writer_for(event.metadata())
                .write_all(line.as_bytes());
        };
        LINE.with(|buffer| match buffer.try_borrow_mut() {
            Ok(mut line) => write(&mut line),
            // Formatting a value logged another event.
            Err(_) => write(&mut String::new()),
        });
    }
}

fn json_line(
    line: &mut String,
    metadata: &Metadata<'_>,
    name: Option<&str>,
    ids: TraceIds,
    values: &Values,
) {
    line.push_str("{\"timestamp\":\"");
    push_timestamp(line);
    line.push_str("\",\"level\":\"");
    line.push_str(metadata.level().as_str());
    line.push_str("\",\"target\":");
    push_json(line, metadata.target());
    if let Some(name) = name {
        line.push_str(",\"event\":");
        push_json(line, name);
    }
    if let Some(message) = &values.message {
        line.push_str(",\"message\":");
        push_json(line, message);
    }
    if ids.is_valid() {
        let (trace, span) = (ids.trace_id_hex(), ids.span_id_hex());
        let _ = write!(line, ",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"");
    }
    line.push_str(&values.fields);
    line.push('}');
}

fn readable_line(
    line: &mut String,
    metadata: &Metadata<'_>,
    name: Option<&str>,
    ids: TraceIds,
    values: &Values,
    colour: bool,
) {
    let (level_on, dim, off) = match (colour, *metadata.level()) {
        (false, _) => ("", "", ""),
        (true, Level::ERROR) => ("\u{1b}[31m", "\u{1b}[2m", "\u{1b}[0m"),
        (true, Level::WARN) => ("\u{1b}[33m", "\u{1b}[2m", "\u{1b}[0m"),
        (true, _) => ("\u{1b}[32m", "\u{1b}[2m", "\u{1b}[0m"),
    };
    line.push_str(dim);
    push_timestamp(line);
    let _ = write!(line, "{off} {level_on}{:>5}{off} ", metadata.level());
    let _ = write!(line, "{dim}{}:{off}", redact::clean(metadata.target()));
    for text in [name, values.message.as_deref()].into_iter().flatten() {
        line.push(' ');
        line.push_str(text);
    }
    line.push_str(&values.fields);
    if ids.is_valid() {
        let (trace, span) = (ids.trace_id_hex(), ids.span_id_hex());
        let _ = write!(line, " {dim}trace_id={trace} span_id={span}{off}");
    }
}

fn push_timestamp(line: &mut String) {
    // RFC 3339, UTC, microseconds.
    let _ = SystemTime.format_time(&mut Writer::new(line));
}

/// Appends `text`, which holds no control characters any more, as a JSON string.
fn push_json(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            other => line.push(other),
        }
    }
    line.push('"');
}

/// An event's message and fields, redacted and formatted.
struct Values {
    format: LogFormat,
    own: bool,
    message: Option<String>,
    fields: String,
}

impl Values {
    fn new(format: LogFormat, own: bool) -> Self {
        Self {
            format,
            own,
            message: None,
            fields: String::new(),
        }
    }

    fn name(&mut self, name: &str) {
        match self.format {
            LogFormat::Json => {
                self.fields.push(',');
                push_json(&mut self.fields, name);
                self.fields.push(':');
            }
            LogFormat::Readable => {
                self.fields.push(' ');
                self.fields.push_str(name);
                self.fields.push('=');
            }
        }
    }

    fn quoted(&mut self, name: &str, text: &str) {
        self.name(name);
        match self.format {
            LogFormat::Readable if !text.contains([' ', '"', '=']) && !text.is_empty() => {
                self.fields.push_str(text);
            }
            LogFormat::Json | LogFormat::Readable => push_json(&mut self.fields, text),
        }
    }

    /// A field of text; `text` is asked for only if it may be shown.
    fn text<'t>(&mut self, name: &str, text: impl FnOnce() -> std::borrow::Cow<'t, str>) {
        if name == "message" {
            self.message = Some(redact::clean(&text()).into_owned());
        } else if !self.own {
            // Fields of other crates are nobody's reviewed choice.
        } else if let Some(kind) = fields::allowed(name) {
            let text = text();
            self.quoted(name, &kind.clean(&text));
        } else {
            self.quoted(name, redact::REDACTED);
        }
    }

    /// A number or a truth value.
    fn bare(&mut self, name: &str, value: impl fmt::Display) {
        if self.own && fields::allowed(name).is_some() {
            self.name(name);
            let _ = write!(self.fields, "{value}");
        } else {
            self.text(name, || value.to_string().into());
        }
    }
}

impl Visit for Values {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field.name(), value);
        } else {
            self.text(field.name(), || value.to_string().into());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if value.unsigned_abs() <= LARGEST_SHORT_INTEGER {
            self.bare(field.name(), value);
        } else {
            self.text(field.name(), || value.to_string().into());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if value <= LARGEST_SHORT_INTEGER {
            self.bare(field.name(), value);
        } else {
            self.text(field.name(), || value.to_string().into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), || value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), || format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests;
