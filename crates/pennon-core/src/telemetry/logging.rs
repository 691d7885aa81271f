//! Starts logging, and formats the events of the `tracing` macros.

use std::fmt;
use std::io::IsTerminal;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::text::{MAX_TEXT_LENGTH, shorten, visible};
use crate::config::process_environment;
use crate::timestamp::timestamp;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// One JSON object per line, for CloudWatch.
    Json,
    /// Text for people.
    Human,
}

/// Starts logging. Call once per process. The level comes from `AWS_LAMBDA_LOG_LEVEL`, otherwise from `RUST_LOG`. If
/// neither is set, or the value is invalid, it is INFO; an invalid value is also logged as a warning.
pub fn start_logging(style: LogStyle) {
    let configured = ["AWS_LAMBDA_LOG_LEVEL", "RUST_LOG"]
        .into_iter()
        .find_map(|variable| Some((variable, process_environment(variable)?)));
    let parsed = configured.as_ref().and_then(|(_, text)| filter(text));
    let invalid = configured.filter(|_| parsed.is_none());
    let filter = parsed.unwrap_or_else(|| levels(LevelFilter::INFO, Targets::new()));
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_target(false)
        .with_ansi(std::io::stdout().is_terminal())
        .with_writer(std::io::stdout);
    // If logging has been started before, the first subscriber stays.
    let _already_started = match style {
        LogStyle::Json => {
            let events = builder.event_format(JsonEvents).finish();
            events.with(filter).try_init()
        }
        LogStyle::Human => {
            let events = builder.without_time().compact();
            let events = events.fmt_fields(human_fields()).finish();
            events.with(filter).try_init()
        }
    };
    if let Some((variable, text)) = invalid {
        tracing::warn!(
            domain = "config",
            "{variable} must be a level such as INFO, or directives such as info,pennon_core=debug (got '{text}'); \
             INFO applies"
        );
    }
}

/// Libraries that are silenced: this crate reports their failures with more context, and at TRACE, the Lambda runtime
/// logs whole requests, with tokens and API keys. Directives for these libraries are ignored.
const SILENCED: [(&str, LevelFilter); 2] = [
    ("fred", LevelFilter::OFF),
    ("lambda_runtime", LevelFilter::ERROR),
];

/// Parses a level such as `INFO`, or directives such as `info,tokio_postgres=debug`. `FATAL`, the highest level of
/// Lambda, counts as ERROR. Without a level among the directives, INFO applies to all that they do not name: directives
/// for one library must not turn off Pennon's errors.
fn filter(text: &str) -> Option<Targets> {
    let text = text.to_ascii_lowercase();
    let directives = text.split(',').map(str::trim);
    let directives: Vec<&str> = directives.filter(|word| !word.is_empty()).collect();
    if directives == ["fatal"] {
        return Some(levels(LevelFilter::ERROR, Targets::new()));
    }
    // `Targets` accepts more: a word that is no level is the name of a target, an empty level is ERROR, an empty target
    // is the prefix of every other, and a span of `EnvFilter` (`pennon_core[cache]`) is a target that matches nothing.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_valid = |word: &&str| match word.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(word),
    };
    if directives.is_empty() || !directives.iter().all(is_valid) {
        return None;
    }
    let parsed: Targets = directives.join(",").parse().ok()?;
    let level = parsed.default_level().unwrap_or(LevelFilter::INFO);
    Some(levels(level, parsed))
}

/// Whether events can have this target: usually the path of a module.
fn is_target(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:.".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// The level applies to Pennon. DEBUG and TRACE events of a library are logged only if a directive names it: the
/// clients of HTTP, TLS and PostgreSQL would write several lines for each request.
fn levels(level: LevelFilter, directives: Targets) -> Targets {
    let allowed = directives.into_iter().filter(|(target, _)| {
        let mut silenced = SILENCED.iter();
        !silenced.any(|(name, _)| target.starts_with(name))
    });
    Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target("pennon", level)
        .with_targets(allowed)
        .with_targets(SILENCED)
}

/// Writes an event as one JSON object: time, level, domain, and its fields. Events of libraries have no domain of
/// their own. They get `config`, because the saved queries, and queries that operators write, begin with
/// `filter domain = "config"`.
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
        // Fields that the crate `log` adds: module, file and line of the call.
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
        self.put(field, shorten(value, MAX_TEXT_LENGTH).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(
            field,
            shorten(&format!("{value:?}"), MAX_TEXT_LENGTH).into(),
        );
    }
}

/// Formats the fields of an event for people: the message, then `name=value`.
fn human_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    format::debug_fn(|writer, field, value| {
        let text = visible(&format!("{value:?}"), MAX_TEXT_LENGTH);
        match field.name() {
            "message" => write!(writer, "{text}"),
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{}={text}", name.replace("r#", "")),
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::filter;

    #[test]
    fn a_level_or_directives_choose_the_events_that_are_logged() {
        for (level, target, most) in [
            ("INFO", "pennon_core", Some(Level::INFO)),
            ("warn", "pennon_core", Some(Level::WARN)),
            ("DEBUG", "pennon_core::store", Some(Level::DEBUG)),
            ("DEBUG", "hyper_util::client", Some(Level::INFO)),
            ("TRACE", "tokio_postgres", Some(Level::INFO)),
            ("warn", "hyper_util::client", Some(Level::WARN)),
            ("trace,pennon_core=info", "pennon_core", Some(Level::INFO)),
            ("TRACE", "lambda_runtime", Some(Level::ERROR)),
            ("TRACE", "fred::router", None),
            ("trace,fred=trace", "fred::router", None),
            (
                "info,lambda_runtime=trace",
                "lambda_runtime::layers",
                Some(Level::ERROR),
            ),
            (
                "info,lambda_runtime::layers=trace",
                "lambda_runtime::layers",
                Some(Level::ERROR),
            ),
            (
                "warn, tokio_postgres=debug,",
                "tokio_postgres::query",
                Some(Level::DEBUG),
            ),
            (
                "warn,tokio_postgres=debug",
                "tokio_postgres::query",
                Some(Level::DEBUG),
            ),
            (
                "warn,tokio_postgres=debug",
                "pennon_core",
                Some(Level::WARN),
            ),
            ("off", "pennon_core", None),
            ("off,pennon_core=warn", "pennon_eval", None),
            // Without a level of its own, Pennon logs at INFO.
            ("hyper=debug", "pennon_core", Some(Level::INFO)),
            ("hyper=debug", "hyper::client", Some(Level::DEBUG)),
            ("hyper=debug", "tokio_postgres", Some(Level::INFO)),
            ("pennon_core=debug", "pennon_core", Some(Level::DEBUG)),
            ("pennon_core=debug", "pennon_local", Some(Level::INFO)),
            ("FATAL", "pennon_core", Some(Level::ERROR)),
        ] {
            let levels = [
                Level::ERROR,
                Level::WARN,
                Level::INFO,
                Level::DEBUG,
                Level::TRACE,
            ];
            let filter = filter(level).unwrap();
            let enabled = levels
                .into_iter()
                .filter(|level| filter.would_enable(target, level));
            assert_eq!(enabled.max(), most, "{level}: {target}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_and_an_invalid_directive_are_rejected() {
        for text in [
            "verbose",
            "WARNING",
            "loud=very",
            "info verbose",
            "info,tokio_postgres",
            ",",
            " ",
            "=debug",
            "info,=debug",
            "pennon_core=",
            "info,tokio_postgres=",
            "info,tokio_postgres =debug",
            "pennon_core[cache]=debug",
            "pennon_core[{environment}]=debug",
            "[cache]=debug",
        ] {
            assert!(filter(text).is_none(), "{text}");
        }
    }
}
