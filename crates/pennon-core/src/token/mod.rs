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

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use pennon_eval::UserId;
use serde_json::Value;

use crate::config::TokenConfig;
use crate::https::Https;
use crate::tls::Authorities;
use check::{Refusal, Unverified};
use keys::Key;

/// Both documents together: what the first request with a token waits at most.
const WITHIN: Duration = Duration::from_millis(1_500);
/// The least time between two fetches. Whoever invents key ids cannot make us ask more often.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// After so long the keys are fetched again, so that one that was taken back is not believed for
/// ever. API Gateway keeps them for two hours.
const KEYS_AGE: Duration = Duration::from_secs(3_600);

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
        let authorities = config
            .ca_file
            .as_deref()
            .map_or(Authorities::Public, Authorities::File);
        Ok(Self {
            https: Https::new(&authorities)?,
            config,
            known: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// The subject of a token, if all is well with it.
    pub async fn user(&self, token: &str) -> Option<UserId> {
        match self.check(token).await {
            Ok(user) => Some(user),
            Err(refusal) => {
                tracing::info!(domain = "config", error = %refusal, "token refused, the caller is anonymous");
                None
            }
        }
    }

    async fn check(&self, token: &str) -> Result<UserId, Refusal> {
        let unverified = Unverified::parse(token)?;
        // Before anybody is asked for keys: these need none.
        unverified.check_claims(&self.config, SystemTime::now())?;
        let keys = self.keys_for(unverified.key_id()).await;
        let key = keys
            .iter()
            .find(|key| key.id == unverified.key_id())
            .ok_or(Refusal::UnknownKey)?;
        unverified.verify(key)
    }

    /// The keys that are known, fetched before if that may bring the one that is wanted.
    async fn keys_for(&self, id: &str) -> Arc<Vec<Key>> {
        let before = self.known();
        if before.has_fresh(id) {
            return before.keys;
        }
        let _one_at_a_time = self.fetching.lock().await;
        let known = self.known();
        let recently = |asked: Instant| asked.elapsed() < ASK_AGAIN;
        if known.has_fresh(id) || known.asked.is_some_and(recently) {
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
            // Old keys stay: an issuer that is down must not change what its users see.
            Err(why) => tracing::warn!(
                domain = "config",
                error = %why,
                issuer = %self.config.issuer,
                "the issuer's keys cannot be had"
            ),
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
        if !crate::config::is_trustworthy_address(address) {
            return Err(format!("keys at {address:?}, which is not https"));
        }
        let document = self.get(address, deadline).await?;
        let keys = keys::parse(&document);
        if keys.is_empty() {
            return Err(format!("no RSA or P-256 signature key at {address}"));
        }
        Ok(keys)
    }

    async fn get(&self, url: &str, deadline: Instant) -> Result<Value, String> {
        let told = |why: String| format!("{url}: {why}");
        let request = Request::get(url)
            .header("accept", "application/json")
            .body(Full::<Bytes>::default())
            .map_err(|error| told(error.to_string()))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = self.https.send(request, left).await.map_err(told)?;
        if !answer.status.is_success() {
            return Err(told(answer.status.to_string()));
        }
        serde_json::from_slice(&answer.body).map_err(|error| told(error.to_string()))
    }
}

impl Known {
    fn has_fresh(&self, id: &str) -> bool {
        self.fetched
            .is_some_and(|fetched| fetched.elapsed() < KEYS_AGE)
            && self.keys.iter().any(|key| key.id == id)
    }
}
