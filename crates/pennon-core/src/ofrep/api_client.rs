//! Authentication by API key. A request without a key is rejected, except on the public config routes while
//! `PUBLIC_CONFIG_ROUTES` is `open`.

use std::time::SystemTime;

use crate::api_key::KeyText;
use crate::app::App;
use crate::auth::bearer_token;
use crate::config::PublicConfigRoutes;
use crate::environment::Environment;
use crate::error::Error;
use crate::http::{Request, TrustedKey};
use crate::key_kind::KeyKind;
use crate::service::{Reading, Source};

/// A client that was admitted, with or without a key, and the flags of its environment.
#[derive(Debug)]
pub struct ApiClient {
    /// The environment.
    pub environment: Environment,
    /// Determines which flags the caller may see: see [`Snapshot::shows`](crate::snapshot::Snapshot::shows).
    pub kind: KeyKind,
    /// The flags, and where they were read from.
    pub reading: Reading,
}

/// The error for a sync key on routes that evaluate flags.
const SYNC_KEY_ELSEWHERE: &str = "A sync key can only be used with /v1/flags and /v1/evaluation-counts; evaluate flags with a server or client key";
/// The error for other keys on the routes of sync keys.
const NO_SYNC_KEY: &str =
    "Server and client keys may not read the rules of flags; create a key of kind sync";

/// Authenticates a request that evaluates flags.
///
/// # Errors
/// Those of `authenticate`; [`Error::KeyKind`] for a sync key.
pub async fn admit(app: &App, request: &Request) -> Result<ApiClient, Error> {
    let client = authenticate(app, request, None).await?;
    match client.kind {
        KeyKind::Server | KeyKind::Client => Ok(client),
        KeyKind::Sync => Err(Error::KeyKind(SYNC_KEY_ELSEWHERE)),
    }
}

/// Authenticates a request that reads the rules of flags. The local server's own key may do so too: it is the only key
/// of a developer. `Authorization` may be the key itself, without a scheme: flagd sends its `authHeader` as it is.
///
/// # Errors
/// Those of `authenticate`; [`Error::KeyKind`] for a server or client key.
pub async fn admit_to_sync(app: &App, request: &Request) -> Result<ApiClient, Error> {
    let bare = request.header("authorization").map(str::trim);
    let client = authenticate(app, request, bare).await?;
    match client.kind {
        KeyKind::Sync => Ok(client),
        KeyKind::Server | KeyKind::Client if request.trusted_key().is_some() => Ok(client),
        KeyKind::Server | KeyKind::Client => Err(Error::KeyKind(NO_SYNC_KEY)),
    }
}

/// Checks the key of a request in the environment that the key names, against the snapshot that the response is made
/// from: a revocation takes effect with the next revision. `fallback` is the key if neither header has one in its usual
/// form.
///
/// # Errors
/// [`Error::NoKey`] for a missing or invalid key; for a valid key, [`Error::OtherEnvironment`] if the request names
/// another environment, and [`Error::Invalid`] if it names an invalid one; [`Error::Unavailable`] as for every read,
/// and for an unknown key if the reading is stale.
async fn authenticate(
    app: &App,
    request: &Request,
    fallback: Option<&str>,
) -> Result<ApiClient, Error> {
    let key = key_of(request.header("x-api-key"), request.header("authorization"))
        .or(fallback)
        .and_then(KeyText::parse)
        .ok_or(Error::NoKey)?;
    let reading = app
        .service
        .read(&key.environment, request.context())
        .await?;
    let Some(kind) = kind_of(&key, app, request, &reading) else {
        // The key may be newer than a snapshot that nothing confirms, and clients take 401 as final.
        return Err(match reading.source {
            Source::Stale => {
                Error::Unavailable("the key is not in the snapshot, which is stale".to_owned())
            }
            Source::Memory | Source::Redis | Source::Database => Error::NoKey,
        });
    };
    if request.names_other_environment(&key.environment)? {
        return Err(Error::OtherEnvironment);
    }
    Ok(ApiClient {
        environment: key.environment,
        kind,
        reading,
    })
}

/// Authenticates a request to a public config route according to `PUBLIC_CONFIG_ROUTES`. If the routes are open,
/// a caller with a valid server key sees all flags, and any other caller those that a client key shows.
///
/// # Errors
/// Those of [`admit`] if a key is required; [`Error::Invalid`] for an invalid environment name;
/// [`Error::Unavailable`] as for every read; [`Error::RouteNotFound`] if the routes are off.
pub async fn admit_to_config_routes(app: &App, request: &Request) -> Result<ApiClient, Error> {
    match app.config.auth.public_config {
        PublicConfigRoutes::Open => {
            let environment = request.environment()?;
            let reading = app.service.read(&environment, request.context()).await?;
            let key = key_of(request.header("x-api-key"), request.header("authorization"))
                .and_then(KeyText::parse)
                .filter(|key| key.environment == environment);
            let kind = key.and_then(|key| kind_of(&key, app, request, &reading));
            let kind = kind.filter(|kind| *kind != KeyKind::Sync);
            Ok(ApiClient {
                environment,
                kind: kind.unwrap_or(KeyKind::Client),
                reading,
            })
        }
        PublicConfigRoutes::Key => admit(app, request).await,
        PublicConfigRoutes::Off => Err(Error::RouteNotFound),
    }
}

/// The kind of a key, if it belongs to the environment. A stored key counts as used, also if the request is rejected
/// for another reason: the application still has it.
fn kind_of(key: &KeyText, app: &App, request: &Request, reading: &Reading) -> Option<KeyKind> {
    if let Some(TrustedKey(kind)) = request.trusted_key() {
        return Some(kind);
    }
    let found = key.find_in(&reading.snapshot)?;
    app.key_uses.add(&found.id, SystemTime::now());
    Some(found.kind)
}

/// The key of a request: `X-API-Key` unless it is empty, otherwise the token of `Authorization: Bearer`, whose scheme
/// is case-insensitive (RFC 9110, section 11.1).
#[must_use]
pub fn key_of<'a>(api_key: Option<&'a str>, authorization: Option<&'a str>) -> Option<&'a str> {
    let api_key = api_key.filter(|key| !key.trim().is_empty());
    api_key.or_else(|| bearer_token(authorization?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_its_header_or_from_a_bearer_token() {
        assert_eq!(key_of(None, Some("Bearer abc")), Some("abc"));
        assert_eq!(key_of(None, Some("bearer  abc ")), Some("abc"));
        assert_eq!(key_of(Some("k"), Some("Bearer abc")), Some("k"));
        assert_eq!(key_of(Some(" "), Some("Bearer abc")), Some("abc"));
        for other in ["abc", "Basic abc", "Bearer", ""] {
            assert_eq!(key_of(None, Some(other)), None, "{other}");
        }
    }
}
