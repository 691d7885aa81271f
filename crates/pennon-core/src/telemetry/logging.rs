//! Starts logging, and formats the events of the `tracing` macros.

use std::fmt;
use std::io::IsTerminal;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::text::{LONGEST_TEXT, shorten, visible};
use crate::config::process_environment;
use crate::timestamp::timestamp;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// One JSON object a line, for CloudWatch.
    Json,
    /// For a person at a terminal.
    Human,
}

/// Starts logging. Call once per process. The level comes from `AWS_LAMBDA_LOG_LEVEL` or
/// `RUST_LOG`; without either it is INFO.
pub fn start_logging(style: LogStyle) {
    let level = process_environment("AWS_LAMBDA_LOG_LEVEL")
        .or_else(|| process_environment("RUST_LOG"))
        .unwrap_or_else(|| "info".to_owned());
    // fred and the Lambda runtime tell of things that we tell ourselves, with better words.
    let directives = format!(
        "{},fred=off,lambda_runtime=error",
        level.to_ascii_lowercase()
    );
    let filter = EnvFilter::builder().parse_lossy(directives);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        // Colours are for terminals; in a file they are letters in the way.
        .with_ansi(std::io::stdout().is_terminal())
        .with_writer(std::io::stdout);
    // A second call finds a subscriber in place; the first one stays.
    let _already_started = match style {
        LogStyle::Json => builder.event_format(JsonEvents).try_init(),
        LogStyle::Human => builder
            .without_time()
            .compact()
            .fmt_fields(human_fields())
            .try_init(),
    };
}

/// Writes an event as one JSON object: time, level, domain, and its fields. Libraries' events, such as the
/// Lambda runtime's about a failed one, have no domain of their own: saved queries and the operators' own
/// begin with `filter domain = "config"`.
struct JsonEvents;

impl<S, N> FormatEvent<S, N> for JsonEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), timestamp(SystemTime::now()).into());
        line.insert(
            "level".to_owned(),
            event.metadata().level().to_string().into(),
        );
        line.insert("domain".to_owned(), "config".into());
        event.record(&mut Fields(&mut line));
        let line = serde_json::to_string(&line).map_err(|_error| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Collects the fields of an event.
struct Fields<'l>(&'l mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // What the crate `log` says about where a line was written.
        if !name.starts_with("log.") {
            self.0.insert(name.replace("r#", ""), value);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, shorten(value, LONGEST_TEXT).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, shorten(&format!("{value:?}"), LONGEST_TEXT).into());
    }
}

/// How the fields of an event look to a person: the message, and names with values.
fn human_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    format::debug_fn(|writer, field, value| {
        let text = visible(&format!("{value:?}"), LONGEST_TEXT);
        match field.name() {
            "message" => write!(writer, "{text}"),
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{}={text}", name.replace("r#", "")),
        }
    })
    .delimited(" ")
}
