//! The settings that only the local server has.

use pennon_core::api_key::KeyText;
use pennon_core::config::{Secret, process_environment};
use pennon_core::key_kind::KeyKind;

/// Settings of the local server.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `PENNON_LISTEN`: address and port.
    pub(crate) listen: String,
    /// `PENNON_ADMIN_TOKEN`: the bearer token of the admin.
    pub(crate) admin_token: Option<Secret>,
    /// `PENNON_API_KEY`: the API key of an OpenFeature SDK.
    pub(crate) api_key: Option<KeyText>,
    /// `PENNON_EVALUATIONS_PER_SECOND`: requests beyond this rate get 429, as from API Gateway.
    pub(crate) evaluations_per_second: Option<f64>,
    /// `PENNON_FLAGS_FILE`: the file with the flags, if no database is configured.
    pub(crate) flags_file: String,
    /// `PENNON_WEBHOOKS`: whether webhooks may have private addresses and use HTTP.
    pub(crate) webhooks_anywhere: bool,
}

impl Settings {
    /// Reads the settings from the environment of this process.
    pub(crate) fn from_process() -> Result<Self, String> {
        let text = process_environment;
        Ok(Self {
            listen: text("PENNON_LISTEN").unwrap_or_else(|| "127.0.0.1:9000".to_owned()),
            admin_token: text("PENNON_ADMIN_TOKEN").map(Secret::new),
            api_key: match text("PENNON_API_KEY") {
                Some(key) => Some(parse_api_key(&key).ok_or(
                    "PENNON_API_KEY must be the key of a server or a client, such as pennon_server_production_ \
                     followed by 43 letters, digits, '-' or '_'",
                )?),
                None => None,
            },
            evaluations_per_second: match text("PENNON_EVALUATIONS_PER_SECOND") {
                Some(rate) => Some(rate_of(&rate)?),
                None => None,
            },
            flags_file: text("PENNON_FLAGS_FILE").unwrap_or_else(|| "flags.json".to_owned()),
            webhooks_anywhere: match text("PENNON_WEBHOOKS").as_deref() {
                None | Some("public") => false,
                Some("anywhere") => true,
                Some(_) => return Err("PENNON_WEBHOOKS must be public or anywhere".to_owned()),
            },
        })
    }
}

/// Parses the API key of an OpenFeature SDK. Rejects sync keys, which read the rules of flags and cannot evaluate them.
pub(crate) fn parse_api_key(text: &str) -> Option<KeyText> {
    KeyText::parse(text).filter(|key| match key.kind {
        KeyKind::Server | KeyKind::Client => true,
        KeyKind::Sync => false,
    })
}

fn rate_of(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("PENNON_EVALUATIONS_PER_SECOND must be a number above 0".to_owned()),
    }
}
