//! Who may ask. Closed by default: without a key there is no answer.

use crate::api_key::KeyText;
use crate::app::App;
use crate::auth::bearer_token;
use crate::environment::Environment;
use crate::error::Error;
use crate::http::Request;
use crate::service::Reading;
use crate::snapshot::KeyKind;

/// Somebody with a key, and the flags of the environment that the key opens.
#[derive(Debug)]
pub struct Caller {
    /// The environment.
    pub environment: Environment,
    /// Which flags the caller may see: see [`Caller::may_see`].
    pub kind: KeyKind,
    /// The flags, and how they were come by.
    pub reading: Reading,
}

/// The word of whoever stands before the handler that the key of a request is good. The local server
/// gives it for its own key; on Lambda nobody does.
#[derive(Debug, Clone, Copy)]
pub struct VouchedKey(pub KeyKind);

/// Checks the key of a request against the environment that the key itself names, in the same reading
/// that the answer will be made from: a key that is revoked is gone together with the flags' next
/// revision.
///
/// # Errors
/// [`Error::Unauthenticated`] for no key or one that opens nothing, [`Error::Forbidden`] for a good key
/// in a request that names another environment, [`Error::Unavailable`] as for every read.
pub async fn admit(app: &App, request: &Request) -> Result<Caller, Error> {
    let key = presented(request.header("x-api-key"), request.header("authorization"))
        .and_then(KeyText::parse)
        .ok_or(Error::Unauthenticated)?;
    let reading = app.service.read(&key.environment, request.scope()).await?;
    let kind = match request.vouched_key() {
        Some(VouchedKey(kind)) => kind,
        None => {
            key.find_in(&reading.snapshot)
                .ok_or(Error::Unauthenticated)?
                .kind
        }
    };
    let named = request.named_environment()?;
    if named.is_some_and(|named| named != key.environment) {
        return Err(Error::Forbidden);
    }
    Ok(Caller {
        environment: key.environment,
        kind,
        reading,
    })
}

/// What a request gives for its key: `X-API-Key` if there is anything in it, else the token of
/// `Authorization: Bearer`, whose word is one without case (RFC 9110, section 11.1).
#[must_use]
pub fn presented<'a>(api_key: Option<&'a str>, authorization: Option<&'a str>) -> Option<&'a str> {
    let api_key = api_key.filter(|key| !key.trim().is_empty());
    api_key.or_else(|| bearer_token(authorization?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_in_its_own_header_or_as_a_bearer_token() {
        assert_eq!(presented(None, Some("Bearer abc")), Some("abc"));
        assert_eq!(presented(None, Some("bearer  abc ")), Some("abc"));
        assert_eq!(presented(Some("k"), Some("Bearer abc")), Some("k"));
        assert_eq!(presented(Some(" "), Some("Bearer abc")), Some("abc"));
        for other in ["abc", "Basic abc", "Bearer", ""] {
            assert_eq!(presented(None, Some(other)), None, "{other}");
        }
    }
}
