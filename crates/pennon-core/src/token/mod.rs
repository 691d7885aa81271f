//! Verifies bearer tokens on public routes, and those of people who sign in to a local server.
//!
//! A JWT authorizer cannot be optional: on a public route it would reject callers without a token. So a
//! function that evaluates flags for a user verifies the token itself, with the same issuer and audience.
//! Such a user has no role: admin routes rely on the gateway alone. The local server has no gateway, so it reads
//! roles from the claims.
//!
//! The issuer's keys are fetched with the first token and cached. If a token is invalid, or its key is not cached and
//! cannot be fetched, the caller of a public route is anonymous and the log line of the request states the reason. The
//! reason has no line of its own there, because anonymous callers choose how often they send an invalid token.

mod check;
mod discovery;
mod keys;

pub use check::SKEW;
pub use discovery::SignInEndpoints;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use pennon_eval::UserId;
use serde_json::Value;

use crate::config::{TokenConfig, parse_endpoint, parse_issuer};
use crate::https::Https;
use crate::moment::Moment;
use crate::telemetry::Trace;
use check::{TokenError, Unverified};
use discovery::CachedEndpoints;
use keys::Key;

/// Time limit of a fetch, which reads two documents. The first request with a token waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Minimum time between two fetches, so that tokens with invented key ids do not cause more.
const FETCH_INTERVAL: Duration = Duration::from_secs(10);
/// Keys are fetched again when they are this old. Tokens of the stack's own user pool are valid equally long, so a
/// revoked key is accepted for at most as long as a token that it signed just before its revocation.
pub const KEYS_REFRESH_AGE: Duration = Duration::from_secs(900);
/// Keys older than this are dropped if the issuer cannot be reached; API Gateway does the same. During a shorter outage
/// of the issuer, its users are still recognised. An attacker who blocks the connection to the issuer cannot use a
/// stolen key for longer than this.
pub const KEYS_MAX_AGE: Duration = Duration::from_secs(7_200);

/// Verifies tokens of one issuer.
pub struct Tokens {
    config: TokenConfig,
    https: Https,
    cached: RwLock<CachedKeys>,
    /// Held by the request that fetches keys; other requests that need a fetch wait for its result.
    fetching: tokio::sync::Mutex<()>,
    endpoints: CachedEndpoints,
}

#[derive(Default, Clone)]
struct CachedKeys {
    keys: Arc<Vec<Key>>,
    /// The last successful fetch.
    fetched: Option<Moment>,
    /// The last fetch, successful or not.
    attempted: Option<Moment>,
}

impl Tokens {
    /// Fetches no keys yet.
    ///
    /// # Errors
    /// A message for the log if the CA file is invalid.
    pub fn new(config: TokenConfig) -> Result<Self, String> {
        Ok(Self {
            https: Https::trusting(config.ca_file.as_deref())?,
            config,
            cached: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
            endpoints: CachedEndpoints::default(),
        })
    }

    /// The issuer's name, which is its URL.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Returns the subject of a valid token. Records why a token is invalid.
    pub async fn user(&self, token: &str, trace: &Trace) -> Option<UserId> {
        match self.check(token, trace).await {
            Ok((user, _)) => Some(user),
            Err(error) => {
                trace.token_rejected(&error.to_string());
                None
            }
        }
    }

    /// Returns the claims of a valid token.
    ///
    /// # Errors
    /// Why the token is invalid.
    pub async fn claims(&self, token: &str) -> Result<Value, String> {
        let trace = Trace::default();
        let checked = self.check(token, &trace).await;
        if let Some(error) = trace.take().issuer_error {
            let issuer = &self.config.issuer;
            tracing::warn!(domain = "config", %error, %issuer, "the issuer's keys cannot be fetched");
        }
        let (_, claims) = checked.map_err(|error| error.to_string())?;
        Ok(claims)
    }

    async fn check(&self, token: &str, trace: &Trace) -> Result<(UserId, Value), TokenError> {
        let unverified = Unverified::parse(token)?;
        unverified.check_claims(&self.config, SystemTime::now())?;
        let keys = self.keys_for(unverified.key_id(), trace).await;
        // Ids are unique among keys of one kind only (RFC 7517, section 4.5).
        let mut verified = Err(TokenError::UnknownKey);
        for key in keys.iter().filter(|key| key.id == unverified.key_id()) {
            verified = unverified.verify(key);
            if verified.is_ok() {
                break;
            }
        }
        verified.map(|user| (user, unverified.into_claims()))
    }

    /// The cached keys. Fetches them first if they are old or do not contain this id, but not again within
    /// [`FETCH_INTERVAL`].
    async fn keys_for(&self, id: &str, trace: &Trace) -> Arc<Vec<Key>> {
        let before = self.cached();
        if before.has_fresh(id, Moment::now()) {
            return before.keys;
        }
        let _one_at_a_time = self.fetching.lock().await;
        let cached = self.cached();
        let recently = |attempted: Moment| attempted.age() < FETCH_INTERVAL;
        if cached.has_fresh(id, Moment::now()) || cached.attempted.is_some_and(recently) {
            return cached.keys;
        }
        let fetched = self.fetch().await;
        let mut updated = CachedKeys {
            attempted: Some(Moment::now()),
            ..cached
        };
        match fetched {
            Ok(keys) => {
                updated.keys = Arc::new(keys);
                updated.fetched = updated.attempted;
            }
            Err(why) => {
                let issuer = self.config.issuer.trim_end_matches('/');
                trace.issuer_failed(why.strip_prefix(issuer).unwrap_or(&why));
                updated.drop_old_keys(Moment::now());
            }
        }
        let keys = updated.keys.clone();
        *self.cached.write().unwrap_or_else(PoisonError::into_inner) = updated;
        keys
    }

    fn cached(&self) -> CachedKeys {
        self.cached
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the issuer's metadata, and then the key set that it names.
    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let deadline = Instant::now() + FETCH_TIMEOUT;
        let metadata = self.metadata(deadline).await?;
        let address = metadata["jwks_uri"].as_str().unwrap_or_default();
        parse_issuer(&self.config.issuer)
            .and_then(|issuer| parse_endpoint(&issuer, address))
            .map_err(|why| format!("the jwks_uri of the issuer is invalid: {why}"))?;
        let document = self.get(address, deadline).await?;
        let keys = keys::parse(&document)?;
        if keys.is_empty() {
            return Err(format!("{address} has no RSA or P-256 key for signatures"));
        }
        Ok(keys)
    }

    /// Reads the issuer's metadata (OpenID Connect Discovery), which must be about the configured issuer.
    async fn metadata(&self, deadline: Instant) -> Result<Value, String> {
        let issuer = &self.config.issuer;
        let base = issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let metadata = self.get(&url, deadline).await?;
        if metadata["issuer"].as_str() != Some(issuer) {
            return Err(format!(
                "{url} names the issuer {}; JWT_ISSUER must have exactly this value",
                metadata["issuer"]
            ));
        }
        Ok(metadata)
    }

    async fn get(&self, url: &str, deadline: Instant) -> Result<Value, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.https.get_json(url, left).await
    }
}

impl CachedKeys {
    fn has_fresh(&self, id: &str, now: Moment) -> bool {
        self.are_younger_than(KEYS_REFRESH_AGE, now) && self.keys.iter().any(|key| key.id == id)
    }

    fn drop_old_keys(&mut self, now: Moment) {
        if !self.are_younger_than(KEYS_MAX_AGE, now) {
            self.keys = Arc::default();
        }
    }

    fn are_younger_than(&self, age: Duration, now: Moment) -> bool {
        self.fetched
            .is_some_and(|fetched| fetched.age_at(now) < age)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_fetched_again_after_15_minutes_and_dropped_after_2_hours_without_an_issuer() {
        let set = json!({ "keys": [{ "kty": "RSA", "kid": "k1", "n": "AQAB", "e": "AQAB" }] });
        let fetched = Moment::now();
        let after = |age: Duration| {
            let ms = u64::try_from(age.as_millis()).expect("a short time");
            fetched.after(ms, ms)
        };
        let mut cached = CachedKeys {
            keys: Arc::new(keys::parse(&set).expect("a set")),
            fetched: Some(fetched),
            attempted: None,
        };
        let almost = |age: Duration| after(age.saturating_sub(Duration::from_secs(1)));
        assert!(cached.has_fresh("k1", almost(KEYS_REFRESH_AGE)));
        assert!(!cached.has_fresh("k2", fetched));
        assert!(!cached.has_fresh("k1", after(KEYS_REFRESH_AGE)));
        // Frozen for an hour, in which the monotonic clock stood still.
        assert!(!cached.has_fresh("k1", fetched.after(1, 3_600_000)));
        cached.drop_old_keys(almost(KEYS_MAX_AGE));
        assert_eq!(cached.keys.len(), 1);
        cached.drop_old_keys(after(KEYS_MAX_AGE));
        assert!(cached.keys.is_empty());
    }

    #[test]
    fn a_set_of_more_than_100_keys_is_rejected() {
        let key = json!({ "kty": "RSA", "kid": "k1", "n": "AQAB", "e": "AQAB" });
        let set = |number| json!({ "keys": vec![key.clone(); number] });
        assert_eq!(
            keys::parse(&set(keys::MAX_KEYS)).map(|keys| keys.len()),
            Ok(100)
        );
        assert!(keys::parse(&set(keys::MAX_KEYS + 1)).is_err());
    }
}
