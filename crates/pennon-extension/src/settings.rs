//! The settings of the extension.

use std::path::PathBuf;
use std::time::Duration;

use pennon_core::config::{Secret, parse_issuer, process_environment};
use url::Url;

/// Settings of the extension.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `PENNON_URL`: the base URL of the service.
    pub(crate) url: Url,
    /// `PENNON_SYNC_KEY`: a key of kind `sync`.
    pub(crate) key: Secret,
    /// `PENNON_MAX_AGE_SECONDS`: flags whose last check is older are checked again before an evaluation.
    pub(crate) max_age: Duration,
    /// `PENNON_WAIT_MS`: how long the initialisation and an evaluation wait for the service.
    pub(crate) wait: Duration,
    /// `PENNON_COUNT_SECONDS`: how often counts of evaluations are sent.
    pub(crate) count_interval: Duration,
    /// `PENNON_PORT`: the port on 127.0.0.1.
    pub(crate) port: u16,
    /// `TMPDIR`: the folder of the file that keeps the flags read last.
    pub(crate) folder: PathBuf,
}

impl Settings {
    /// Reads the settings from the environment of this process. An empty value counts as unset.
    ///
    /// # Errors
    /// A message that names the variable and what it must be.
    pub(crate) fn from_process() -> Result<Self, String> {
        Self::from_lookup(process_environment)
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let text = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let number = |name: &str, default: u64, most: u64| match text(name) {
            None => Ok(default),
            Some(value) => value
                .trim()
                .parse()
                .ok()
                .filter(|number| *number <= most)
                .ok_or_else(|| {
                    format!("{name} must be an integer from 0 to {most} (got '{value}')")
                }),
        };
        let key = text("PENNON_SYNC_KEY").ok_or("PENNON_SYNC_KEY must be a key of kind sync")?;
        if !key.trim().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("PENNON_SYNC_KEY has characters that are invalid in a header".to_owned());
        }
        let port = number("PENNON_PORT", 8016, u64::from(u16::MAX))?;
        if port == 0 {
            return Err("PENNON_PORT must not be 0".to_owned());
        }
        Ok(Self {
            url: parse_url(&text("PENNON_URL").unwrap_or_default())?,
            key: Secret::new(key.trim()),
            max_age: Duration::from_secs(number("PENNON_MAX_AGE_SECONDS", 10, 86_400)?),
            wait: Duration::from_millis(number("PENNON_WAIT_MS", 300, 5_000)?),
            count_interval: Duration::from_secs(number("PENNON_COUNT_SECONDS", 60, 86_400)?),
            port: u16::try_from(port).unwrap_or(u16::MAX),
            folder: text("TMPDIR").unwrap_or_else(|| "/tmp".to_owned()).into(),
        })
    }
}

/// The key is sent to this URL, so the rules for the URL of a token issuer apply: `https://`, or `http://` on this
/// machine.
fn parse_url(text: &str) -> Result<Url, String> {
    let wrong = |why| format!("PENNON_URL must be the https:// URL of the service: {why}");
    if text.is_empty() {
        return Err(wrong("it is not set"));
    }
    parse_issuer(text.trim()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&str, &str) = ("PENNON_SYNC_KEY", "pennon_sync_production_x");

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::from_lookup(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn only_the_url_and_the_key_are_required() {
        let settings =
            read(&[("PENNON_URL", "https://flags.example.com/prod"), KEY]).expect("valid");
        assert_eq!(settings.max_age, Duration::from_secs(10));
        assert_eq!(settings.wait, Duration::from_millis(300));
        assert_eq!(settings.port, 8016);
        assert!(!format!("{settings:?}").contains(KEY.1));
        read(&[KEY]).expect_err("no URL");
        read(&[
            ("PENNON_URL", "https://x.example"),
            ("PENNON_SYNC_KEY", " "),
        ])
        .expect_err("no key");
        let url = ("PENNON_URL", "https://x.example");
        read(&[url, KEY, ("PENNON_PORT", "0")]).expect_err("port 0");
    }

    #[test]
    fn the_key_is_only_sent_over_tls_or_to_this_machine() {
        for url in [
            "https://x.example",
            "http://127.0.0.1:9000",
            "http://localhost:9000/a",
        ] {
            read(&[("PENNON_URL", url), KEY]).expect(url);
        }
        for url in [
            "http://x.example",
            "http://127.0.0.1@x.example",
            "https://u:p@x.example",
            "https://x.example?a",
            "ftp://x.example",
            "x.example",
        ] {
            let error = read(&[("PENNON_URL", url), KEY]).expect_err(url);
            assert!(error.starts_with("PENNON_URL"), "{error}");
        }
    }

    #[test]
    fn an_invalid_value_is_an_error_that_names_the_setting() {
        for (name, value) in [
            ("PENNON_MAX_AGE_SECONDS", "-1"),
            ("PENNON_MAX_AGE_SECONDS", "soon"),
            ("PENNON_WAIT_MS", "5001"),
            ("PENNON_PORT", "65536"),
            ("PENNON_SYNC_KEY", "a\nb"),
        ] {
            let variables = [(name, value), ("PENNON_URL", "https://x.example"), KEY];
            let error = read(&variables).expect_err(value);
            assert!(error.contains(name), "{error}");
        }
    }
}
