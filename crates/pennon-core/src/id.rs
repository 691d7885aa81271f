//! Random bytes and unique ids.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::Error;

/// Fills a buffer with cryptographically secure random bytes.
///
/// # Errors
/// [`Error::Internal`] if the operating system provides none.
pub(crate) fn random_bytes(bytes: &mut [u8]) -> Result<(), Error> {
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(bytes)
        .map_err(|_| Error::Internal("the operating system provides no random numbers".to_owned()))
}

/// 256 random bits as 43 characters of base64url.
///
/// # Errors
/// [`Error::Internal`] if the operating system provides no random numbers.
pub fn unguessable_text() -> Result<String, Error> {
    let mut bytes = [0_u8; 32];
    random_bytes(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// 128 random bits as 32 hexadecimal digits.
///
/// # Errors
/// [`Error::Internal`] if the operating system provides no random numbers.
pub fn unguessable_id() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    random_bytes(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Like [`unguessable_id`], for ids that need not be secret.
#[must_use]
pub fn unique_id() -> String {
    unguessable_id().unwrap_or_else(|error| {
        // A constant id is acceptable here: without random numbers, TLS does not work either.
        tracing::error!("{error}");
        format!("{:032x}", 0)
    })
}
