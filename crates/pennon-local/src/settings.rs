//! What only the local server can be told.

use pennon_core::api_key::KeyText;
use pennon_core::config::{Secret, process_environment};
use pennon_core::environment::Environment;
use pennon_core::snapshot::KeyKind;

/// Settings of the local server.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `PENNON_LISTEN`: address and port.
    pub(crate) listen: String,
    /// `PENNON_ADMIN_TOKEN`: what an admin sends as a bearer token.
    pub(crate) admin_token: Secret,
    /// The server chose the token itself, so it has to tell.
    pub(crate) token_is_chosen: bool,
    /// `PENNON_API_KEY`: what an OpenFeature SDK sends. It is good while this server runs and is kept
    /// nowhere; keys that admins make are good as well.
    pub(crate) api_key: KeyText,
    /// The server chose the key itself, so it has to tell.
    pub(crate) key_is_chosen: bool,
    /// `PENNON_EVALUATIONS_PER_SECOND`: what goes beyond is answered 429, as API Gateway would.
    pub(crate) evaluations_per_second: Option<f64>,
    /// `PENNON_FLAGS_FILE`: where flags live without a database.
    pub(crate) flags_file: String,
}

impl Settings {
    /// The settings of this process.
    pub(crate) fn from_process() -> Result<Self, String> {
        let text = |name: &str| process_environment(name).filter(|value| !value.trim().is_empty());
        let given = text("PENNON_ADMIN_TOKEN");
        let given_key = text("PENNON_API_KEY");
        Ok(Self {
            listen: text("PENNON_LISTEN").unwrap_or_else(|| "127.0.0.1:9000".to_owned()),
            token_is_chosen: given.is_none(),
            admin_token: match given {
                Some(token) => Secret::new(token),
                None => choose_token()?,
            },
            key_is_chosen: given_key.is_none(),
            api_key: match given_key {
                Some(key) => KeyText::parse(&key).ok_or(
                    "PENNON_API_KEY is no key; one reads pennon_server_production_ and 43 letters, \
                     digits, '-' or '_'",
                )?,
                None => KeyText::generate(KeyKind::Server, &Environment::production())
                    .map_err(|error| error.to_string())?,
            },
            evaluations_per_second: match text("PENNON_EVALUATIONS_PER_SECOND") {
                Some(rate) => Some(rate_of(&rate)?),
                None => None,
            },
            flags_file: text("PENNON_FLAGS_FILE").unwrap_or_else(|| "flags.json".to_owned()),
        })
    }
}

fn rate_of(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("PENNON_EVALUATIONS_PER_SECOND is no number above 0".to_owned()),
    }
}

/// 128 random bits.
fn choose_token() -> Result<Secret, String> {
    let mut bytes = [0_u8; 16];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| "the operating system gives no random numbers".to_owned())?;
    Ok(Secret::new(format!("{:032x}", u128::from_be_bytes(bytes))))
}
