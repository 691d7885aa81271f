//! What only the local server can be told.

use pennon_core::config::{Secret, process_environment};

/// Settings of the local server.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `PENNON_LISTEN`: address and port.
    pub(crate) listen: String,
    /// `PENNON_ADMIN_TOKEN`: what an admin sends as a bearer token.
    pub(crate) admin_token: Secret,
    /// The server chose the token itself, so it has to tell.
    pub(crate) token_is_chosen: bool,
    /// `PENNON_FLAGS_FILE`: where flags live without a database.
    pub(crate) flags_file: String,
}

impl Settings {
    /// The settings of this process.
    pub(crate) fn from_process() -> Result<Self, String> {
        let text = |name: &str| process_environment(name).filter(|value| !value.trim().is_empty());
        let given = text("PENNON_ADMIN_TOKEN");
        Ok(Self {
            listen: text("PENNON_LISTEN").unwrap_or_else(|| "127.0.0.1:9000".to_owned()),
            token_is_chosen: given.is_none(),
            admin_token: match given {
                Some(token) => Secret::new(token),
                None => choose_token()?,
            },
            flags_file: text("PENNON_FLAGS_FILE").unwrap_or_else(|| "flags.json".to_owned()),
        })
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
