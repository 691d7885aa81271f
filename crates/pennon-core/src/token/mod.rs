//! Who a bearer token is about, on the routes where API Gateway does not say.
//!
//! A JWT authorizer cannot be optional: on a public route it would turn everybody without a token
//! away. So a function that evaluates flags for a caller checks the token itself, against the same
//! issuer and audience. What it finds never makes an admin: admin routes rely on the gateway alone.
//!
//! The issuer's keys are fetched when the first token comes, and kept. A token that is missing, bad
//! or expired, or an issuer that cannot be reached, make an anonymous caller and a log line.

mod check;
mod keys;

pub use check::SKEW;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use pennon_eval::UserId;
use serde_json::Value;

use crate::config::{TokenConfig, parse_endpoint, parse_issuer};
use crate::https::Https;
use check::{Refusal, Unverified};
use keys::Key;

/// Both documents together: what the first request with a token waits at most.
const WITHIN: Duration = Duration::from_millis(1_500);
/// The least time between two fetches. Whoever invents key ids cannot make us ask more often.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// After so long the keys are fetched again: as long as a token of the stack's own user pool is valid, so
/// that a key that was taken back signs nobody in for longer than a token that it has signed.
pub const KEYS_AGE: Duration = Duration::from_secs(900);
/// For so long the keys are believed while the issuer cannot be reached, as API Gateway does: an issuer that
/// is down must not change what its users see, and whoever cuts it off must not keep a stolen key alive.
pub const KEYS_LAST: Duration = Duration::from_secs(7_200);

/// Checks tokens of one issuer.
pub struct Tokens {
    config: TokenConfig,
    https: Https,
    known: RwLock<Known>,
    /// Held by the one request that fetches; others that need the outcome wait for it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Known {
    keys: Arc<Vec<Key>>,
    fetched: Option<Instant>,
    asked: Option<Instant>,
}

impl Tokens {
    /// Checks tokens as configured. Asks nobody yet.
    ///
    /// # Errors
    /// A sentence for the log when the file of authorities cannot be used.
    pub fn new(config: TokenConfig) -> Result<Self, String> {
        Ok(Self {
            https: Https::trusting(config.ca_file.as_deref())?,
            config,
            known: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// The subject of a token, if all is well with it.
    pub async fn user(&self, token: &str) -> Option<UserId> {
        match self.check(token).await {
            Ok((user, _)) => Some(user),
            Err(refusal) => {
                tracing::info!(domain = "config", error = %refusal, "token refused, the caller is anonymous");
                None
            }
        }
    }

    /// The claims of a token, if all is well with it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn claims(&self, token: &str) -> Result<Value, String> {
        let checked = self.check(token).await;
        let (_, claims) = checked.map_err(|refusal| refusal.to_string())?;
        Ok(claims)
    }

    async fn check(&self, token: &str) -> Result<(UserId, Value), Refusal> {
        let unverified = Unverified::parse(token)?;
        // Before anybody is asked for keys: these need none.
        unverified.check_claims(&self.config, SystemTime::now())?;
        let keys = self.keys_for(unverified.key_id()).await;
        // Ids are unique among keys of one kind only (RFC 7517, section 4.5).
        let mut verified = Err(Refusal::UnknownKey);
        for key in keys.iter().filter(|key| key.id == unverified.key_id()) {
            verified = unverified.verify(key);
            if verified.is_ok() {
                break;
            }
        }
        verified.map(|user| (user, unverified.into_claims()))
    }

    /// The keys that are known, fetched before if that may bring the one that is wanted.
    async fn keys_for(&self, id: &str) -> Arc<Vec<Key>> {
        let before = self.known();
        if before.has_fresh(id, Instant::now()) {
            return before.keys;
        }
        let _one_at_a_time = self.fetching.lock().await;
        let known = self.known();
        let recently = |asked: Instant| asked.elapsed() < ASK_AGAIN;
        if known.has_fresh(id, Instant::now()) || known.asked.is_some_and(recently) {
            return known.keys;
        }
        let fetched = self.fetch().await;
        let mut now = Known {
            asked: Some(Instant::now()),
            ..known
        };
        match fetched {
            Ok(keys) => {
                now.keys = Arc::new(keys);
                now.fetched = now.asked;
            }
            Err(why) => {
                tracing::warn!(
                    domain = "config",
                    error = %why,
                    issuer = %self.config.issuer,
                    "the issuer's keys cannot be fetched"
                );
                now.forget_old_keys(Instant::now());
            }
        }
        let keys = now.keys.clone();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = now;
        keys
    }

    fn known(&self) -> Known {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks the issuer where its keys are, and for them.
    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let deadline = Instant::now() + WITHIN;
        let issuer = &self.config.issuer;
        let base = issuer.trim_end_matches('/');
        let about = format!("{base}/.well-known/openid-configuration");
        let about = self.get(&about, deadline).await?;
        if about["issuer"].as_str() != Some(issuer) {
            return Err(format!("{} calls itself {}", issuer, about["issuer"]));
        }
        let address = about["jwks_uri"].as_str().unwrap_or_default();
        parse_issuer(issuer)
            .and_then(|issuer| parse_endpoint(&issuer, address))
            .map_err(|why| format!("jwks_uri of {base} cannot be used: {why}"))?;
        let document = self.get(address, deadline).await?;
        let keys = keys::parse(&document)?;
        if keys.is_empty() {
            return Err(format!("no RSA or P-256 signature key at {address}"));
        }
        Ok(keys)
    }

    async fn get(&self, url: &str, deadline: Instant) -> Result<Value, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.https.get_json(url, left).await
    }
}

impl Known {
    fn has_fresh(&self, id: &str, now: Instant) -> bool {
        self.are_younger_than(KEYS_AGE, now) && self.keys.iter().any(|key| key.id == id)
    }

    /// Drops keys that were fetched too long ago to be believed without asking again.
    fn forget_old_keys(&mut self, now: Instant) {
        if !self.are_younger_than(KEYS_LAST, now) {
            self.keys = Arc::default();
        }
    }

    fn are_younger_than(&self, age: Duration, now: Instant) -> bool {
        self.fetched
            .is_some_and(|fetched| now.saturating_duration_since(fetched) < age)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_fetched_again_after_15_minutes_and_forgotten_after_2_hours_without_an_issuer() {
        let set = json!({ "keys": [{ "kty": "RSA", "kid": "k1", "n": "AQAB", "e": "AQAB" }] });
        let fetched = Instant::now();
        let mut known = Known {
            keys: Arc::new(keys::parse(&set).expect("a set")),
            fetched: Some(fetched),
            asked: None,
        };
        let almost = |age: Duration| fetched + age.saturating_sub(Duration::from_secs(1));
        assert!(known.has_fresh("k1", almost(KEYS_AGE)));
        assert!(!known.has_fresh("k2", fetched));
        assert!(!known.has_fresh("k1", fetched + KEYS_AGE));
        known.forget_old_keys(almost(KEYS_LAST));
        assert_eq!(known.keys.len(), 1);
        known.forget_old_keys(fetched + KEYS_LAST);
        assert!(known.keys.is_empty());
    }

    #[test]
    fn a_set_of_more_than_100_keys_is_refused() {
        let key = json!({ "kty": "RSA", "kid": "k1", "n": "AQAB", "e": "AQAB" });
        let set = |number| json!({ "keys": vec![key.clone(); number] });
        assert_eq!(
            keys::parse(&set(keys::MOST_KEYS)).map(|it| it.len()),
            Ok(100)
        );
        assert!(keys::parse(&set(keys::MOST_KEYS + 1)).is_err());
    }
}
