//! The addresses at which the issuer signs people in, from its metadata (OpenID Connect Discovery). The console needs
//! them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use url::Url;

use super::{FETCH_INTERVAL, FETCH_TIMEOUT, Tokens};
use crate::config::{parse_endpoint, parse_issuer};
use crate::moment::Moment;

/// The metadata is fetched again when it is this old. Issuers change their endpoints rarely, and announce it.
const REFRESH_AGE: Duration = Duration::from_secs(3_600);

/// The addresses of a sign-in.
#[derive(Debug, PartialEq, Eq)]
pub struct SignInEndpoints {
    /// The page on which people sign in.
    pub authorization: Url,
    /// Where a code is exchanged for tokens.
    pub token: Url,
    /// The page that ends the session at the issuer, if it has one.
    pub end_session: Option<Url>,
}

/// The endpoints that were fetched last.
#[derive(Default)]
pub(super) struct CachedEndpoints {
    state: RwLock<State>,
    /// Held by the request that fetches the metadata; others wait for the result.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct State {
    endpoints: Option<Arc<SignInEndpoints>>,
    /// The last fetch, and the time until the next one.
    attempted: Option<(Moment, Duration)>,
}

impl State {
    /// The state after a fetch: a failed one keeps the endpoints, which are probably still right.
    fn after(self, fetched: Result<SignInEndpoints, String>, now: Moment) -> Self {
        match fetched {
            Ok(endpoints) => Self {
                endpoints: Some(Arc::new(endpoints)),
                attempted: Some((now, REFRESH_AGE)),
            },
            Err(_logged) => Self {
                endpoints: self.endpoints,
                attempted: Some((now, FETCH_INTERVAL)),
            },
        }
    }

    fn is_current(&self, now: Moment) -> bool {
        self.attempted
            .is_some_and(|(attempted, pause)| attempted.age_at(now) < pause)
    }
}

impl Tokens {
    /// The addresses of a sign-in. If the issuer cannot be reached or its metadata is invalid, those that were fetched
    /// last, and `None` if there are none; the log states the reason.
    pub async fn sign_in_endpoints(&self) -> Option<Arc<SignInEndpoints>> {
        let before = self.endpoints.state();
        if before.is_current(Moment::now()) {
            return before.endpoints;
        }
        let _one_at_a_time = self.endpoints.fetching.lock().await;
        let before = self.endpoints.state();
        if before.is_current(Moment::now()) {
            return before.endpoints;
        }
        let metadata = self.metadata(Instant::now() + FETCH_TIMEOUT).await;
        let fetched = metadata.and_then(|metadata| endpoints(&self.config.issuer, &metadata));
        if let Err(why) = &fetched {
            tracing::warn!(
                domain = "config",
                error = %why,
                issuer = %self.config.issuer,
                "the sign-in endpoints cannot be read from the issuer's metadata"
            );
        }
        let after = before.after(fetched, Moment::now());
        let endpoints = after.endpoints.clone();
        *self
            .endpoints
            .state
            .write()
            .unwrap_or_else(PoisonError::into_inner) = after;
        endpoints
    }
}

impl CachedEndpoints {
    fn state(&self) -> State {
        let state = self.state.read();
        state.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The endpoints in the metadata of an issuer.
fn endpoints(issuer: &str, metadata: &Value) -> Result<SignInEndpoints, String> {
    let issuer = parse_issuer(issuer)?;
    let optional = |name: &str| {
        let address = metadata[name].as_str();
        let parse = |address| {
            parse_endpoint(&issuer, address)
                .and_then(with_plain_host)
                .map_err(|why| format!("the {name} of the issuer is invalid: {why}"))
        };
        address.map(parse).transpose()
    };
    let required = |name: &str| {
        optional(name)?.ok_or_else(|| format!("the metadata of the issuer has no {name}"))
    };
    Ok(SignInEndpoints {
        authorization: required("authorization_endpoint")?,
        token: required("token_endpoint")?,
        end_session: optional("end_session_endpoint")?,
    })
}

/// Rejects hosts with characters that have a meaning in a Content-Security-Policy, such as `;`, which the parser
/// accepts.
fn with_plain_host(url: Url) -> Result<Url, &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if url
        .host_str()
        .is_some_and(|host| host.bytes().all(is_plain))
    {
        Ok(url)
    } else {
        Err("its host has an invalid character")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_fetched_again_after_an_hour_and_kept_if_that_fails() {
        let metadata = json!({
            "authorization_endpoint": "https://login.example/authorize",
            "token_endpoint": "https://login.example/token",
        });
        let fetched = || endpoints("https://issuer.example", &metadata);
        let start = Moment::now();
        let at = |seconds: u64| start.after(seconds * 1_000, seconds * 1_000);
        let state = State::default().after(Err("unreachable".to_owned()), start);
        assert_eq!(state.endpoints, None);
        assert!(state.is_current(at(9)) && !state.is_current(at(10)));
        let state = state.after(fetched(), at(10));
        assert!(state.is_current(at(3_609)) && !state.is_current(at(3_610)));
        let state = state.after(Err("unreachable".to_owned()), at(3_610));
        assert_eq!(state.endpoints.as_deref(), fetched().as_ref().ok());
        assert!(!state.is_current(at(3_620)));
    }

    #[test]
    fn endpoints_are_https_urls_and_the_end_of_a_session_is_optional() {
        let issuer = "https://issuer.example";
        let page = "https://login.example/authorize?p=1";
        let token = "https://login.example:8443/token";
        let mut metadata = json!({ "authorization_endpoint": page, "token_endpoint": token });
        let found = endpoints(issuer, &metadata).expect("endpoints");
        assert_eq!(found.authorization.as_str(), page);
        let origin = found.token.origin().ascii_serialization();
        assert_eq!(origin, "https://login.example:8443");
        assert_eq!(found.end_session, None);
        metadata["end_session_endpoint"] = json!("https://login.example/logout");
        let found = endpoints(issuer, &metadata).expect("endpoints");
        assert!(found.end_session.is_some());
        for name in [
            "authorization_endpoint",
            "token_endpoint",
            "end_session_endpoint",
        ] {
            for address in [
                "http://login.example/",
                "https://127.0.0.1/",
                "https://user@login.example/",
                "https://login.example; script-src *",
                "https://login.example;script-src/",
                "javascript:alert(1)",
                "/token",
                "",
            ] {
                let mut metadata = metadata.clone();
                metadata[name] = json!(address);
                let why = endpoints(issuer, &metadata).expect_err(address);
                assert!(
                    why.starts_with(&format!("the {name} of the issuer is invalid")),
                    "{why}"
                );
            }
        }
        let missing = json!({ "authorization_endpoint": page });
        let why = endpoints(issuer, &missing).expect_err("no token endpoint");
        assert_eq!(why, "the metadata of the issuer has no token_endpoint");
    }
}
