//! The issuer's side: where it is asked, and what its answers must say.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pennon_core::config::{Secret, TokenConfig, parse_endpoint, parse_issuer, process_environment};
use pennon_core::https::Https;
use pennon_core::id::unguessable_text;
use pennon_core::token::Tokens;
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::callback::plain;
use super::options::Options;
use super::session::{Session, is_token, seconds_now};

/// One request to the issuer.
const WITHIN: Duration = Duration::from_secs(15);
/// What a token without `expires_in` is believed to be valid for.
const UNSAID_EXPIRY: u64 = 300;

/// An issuer that has described itself.
pub(super) struct Issuer {
    name: String,
    client_id: String,
    scope: String,
    authorization: Url,
    token: Url,
    revocation: Option<Url>,
    https: Https,
    tokens: Tokens,
}

/// A sign-in that has begun.
pub(super) struct Attempt {
    /// Where the user signs in.
    pub(super) url: Url,
    /// What the issuer sends back with the browser.
    pub(super) state: String,
    nonce: String,
    verifier: Secret,
    redirect: String,
}

/// Why there are no tokens.
#[derive(Debug)]
pub(super) enum Refused {
    /// The issuer takes the refresh token no more.
    Over(String),
    /// Something else went wrong; trying again may help.
    Failed(String),
}

impl Issuer {
    /// Asks the issuer where it signs users in.
    pub(super) async fn discover(options: &Options) -> Result<Self, String> {
        let ca_file = process_environment("JWT_CA_FILE").filter(|it| !it.is_empty());
        let https = Https::trusting(ca_file.as_deref())?;
        let tokens = Tokens::new(TokenConfig {
            issuer: options.issuer.clone(),
            audiences: vec![options.client_id.clone()],
            ca_file,
        })?;
        let base = options.issuer.trim_end_matches('/');
        let about = https
            .get_json(&format!("{base}/.well-known/openid-configuration"), WITHIN)
            .await?;
        if about["issuer"].as_str() != Some(&options.issuer) {
            return Err(format!(
                "{} calls itself {}; --issuer must be what it calls itself",
                options.issuer,
                plain(&about["issuer"].to_string())
            ));
        }
        let address = parse_issuer(&options.issuer)?;
        let endpoint = |name: &str| {
            let text = about[name].as_str();
            let text = text.ok_or_else(|| format!("the issuer names no {name}"))?;
            parse_endpoint(&address, text)
                .map_err(|why| format!("{name} of the issuer cannot be used: {why}"))
        };
        Ok(Self {
            name: options.issuer.clone(),
            client_id: options.client_id.clone(),
            scope: options.scope.clone(),
            authorization: endpoint("authorization_endpoint")?,
            token: endpoint("token_endpoint")?,
            revocation: endpoint("revocation_endpoint").ok(),
            https,
            tokens,
        })
    }

    /// What the issuer calls itself.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Begins to sign a user in.
    pub(super) fn begin(&self, redirect: String) -> Result<Attempt, String> {
        let random = || unguessable_text().map_err(|error| error.to_string());
        let (state, nonce, verifier) = (random()?, random()?, random()?);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let mut url = self.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", &redirect)
            .append_pair("scope", &self.scope)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(Attempt {
            url,
            state,
            nonce,
            verifier: Secret::new(verifier),
            redirect,
        })
    }

    /// Exchanges the code for tokens.
    pub(super) async fn exchange(&self, attempt: &Attempt, code: &str) -> Result<Session, String> {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &attempt.redirect),
            ("client_id", &self.client_id),
            ("code_verifier", attempt.verifier.expose()),
        ];
        let answer = self.ask(&fields).await.map_err(|refused| match refused {
            Refused::Over(why) => format!("the issuer refuses the code: {why}"),
            Refused::Failed(why) => why,
        })?;
        let id_token = answer["id_token"].as_str().unwrap_or_default();
        let claims = self.claims(id_token).await?;
        if claims["nonce"].as_str() != Some(&attempt.nonce) {
            return Err("the id token is not for this sign-in (nonce)".to_owned());
        }
        self.session(&answer, id_token.to_owned(), &claims, None)
    }

    /// Exchanges the refresh token for new tokens, and a new refresh token where the issuer rotates them.
    pub(super) async fn refresh(&self, session: &Session) -> Result<Session, Refused> {
        let old = session.refresh_token.as_ref();
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", old.map_or("", Secret::expose)),
            ("client_id", &self.client_id),
        ];
        let answer = self.ask(&fields).await?;
        let (id_token, claims) = match answer["id_token"].as_str() {
            Some(id_token) => {
                let claims = self.claims(id_token).await.map_err(Refused::Failed)?;
                (id_token.to_owned(), claims)
            }
            None => (session.id_token.expose().to_owned(), Value::Null),
        };
        if !claims.is_null() && claims["sub"].as_str() != Some(&session.subject) {
            return Err(Refused::Over("the tokens are somebody else's".to_owned()));
        }
        self.session(&answer, id_token, &claims, Some(session))
            .map_err(Refused::Failed)
    }

    /// Takes the refresh token back, where the issuer has a way.
    pub(super) async fn revoke(&self, session: &Session) -> Result<(), String> {
        let (Some(address), Some(token)) = (&self.revocation, &session.refresh_token) else {
            return Ok(());
        };
        let fields = [("token", token.expose()), ("client_id", &self.client_id)];
        let (status, _) = self
            .https
            .post_form(address.as_str(), &fields, WITHIN)
            .await?;
        if (200..300).contains(&status) {
            Ok(())
        } else {
            Err(format!(
                "the issuer does not take the refresh token back (status {status})"
            ))
        }
    }

    async fn ask(&self, fields: &[(&str, &str)]) -> Result<Value, Refused> {
        let answer = self
            .https
            .post_form(self.token.as_str(), fields, WITHIN)
            .await;
        let (status, body) = answer.map_err(Refused::Failed)?;
        match status {
            200 => Ok(body),
            400 | 401 => {
                let why = body["error"].as_str().unwrap_or("without a reason");
                Err(Refused::Over(plain(why)))
            }
            _ => Err(Refused::Failed(format!("{}: status {status}", self.token))),
        }
    }

    /// The claims of an id token, if all is well with it.
    async fn claims(&self, id_token: &str) -> Result<Value, String> {
        let claims = self.tokens.claims(id_token).await;
        let claims = claims.map_err(|why| format!("the id token of the issuer is wrong: {why}"))?;
        let azp = &claims["azp"];
        if !azp.is_null() && azp.as_str() != Some(&self.client_id) {
            return Err("the id token is for another client (azp)".to_owned());
        }
        Ok(claims)
    }

    fn session(
        &self,
        answer: &Value,
        id_token: String,
        claims: &Value,
        before: Option<&Session>,
    ) -> Result<Session, String> {
        let bearer = answer["token_type"].as_str();
        if !bearer.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err("the issuer gives a token that is not a bearer token".to_owned());
        }
        let access_token = answer["access_token"].as_str().filter(|it| is_token(it));
        let refresh_token = match answer["refresh_token"].as_str() {
            Some(token) if is_token(token) => Some(Secret::new(token)),
            Some(_) => return Err("the issuer gives a refresh token of another form".to_owned()),
            None => before.and_then(|session| session.refresh_token.clone()),
        };
        let subject = before.map(|session| session.subject.clone());
        let subject = subject.or_else(|| claims["sub"].as_str().map(str::to_owned));
        Ok(Session {
            issuer: self.name.clone(),
            client_id: self.client_id.clone(),
            subject: subject.unwrap_or_default(),
            access_token: Secret::new(access_token.ok_or("the issuer gives no access token")?),
            id_token: Secret::new(id_token),
            refresh_token,
            expires_at: seconds_now()
                .saturating_add(answer["expires_in"].as_u64().unwrap_or(UNSAID_EXPIRY)),
        })
    }
}
