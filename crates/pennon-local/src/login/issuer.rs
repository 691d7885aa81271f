//! Requests to the OpenID Connect issuer, and the checks of its responses.

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

use super::callback::printable;
use super::options::Options;
use super::session::{Session, SessionFile, is_token, seconds_now};

/// The time limit of one request to the issuer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The assumed lifetime of a token without `expires_in`, in seconds.
const DEFAULT_LIFETIME: u64 = 300;

/// An issuer, from its discovery document.
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

/// A sign-in in progress.
pub(super) struct Attempt {
    /// The page on which the user signs in.
    pub(super) url: Url,
    /// The `state` that the callback must repeat.
    pub(super) state: String,
    nonce: String,
    verifier: Secret,
    redirect: String,
}

/// Why a request returned no usable tokens.
#[derive(Debug)]
pub(super) enum TokenError {
    /// The issuer does not accept the code or the refresh token, or returned the tokens of another user.
    Rejected(String),
    /// Any other failure. A retry may succeed.
    Failed(String),
}

impl Issuer {
    /// Reads the discovery document of the issuer.
    pub(super) async fn discover(options: &Options) -> Result<Self, String> {
        let ca_file = process_environment("JWT_CA_FILE");
        let https = Https::trusting(ca_file.as_deref())?;
        let tokens = Tokens::new(TokenConfig {
            issuer: options.issuer.clone(),
            audiences: vec![options.client_id.clone()],
            ca_file,
        })?;
        let base = options.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let document = https.get_json(&url, REQUEST_TIMEOUT).await?;
        if document["issuer"].as_str() != Some(&options.issuer) {
            return Err(format!(
                "{url} names the issuer {}; --issuer must have exactly this value",
                printable(&document["issuer"].to_string())
            ));
        }
        let address = parse_issuer(&options.issuer)?;
        let endpoint = |name: &str| {
            let text = document[name].as_str();
            let text =
                text.ok_or_else(|| format!("the discovery document of the issuer has no {name}"))?;
            parse_endpoint(&address, text)
                .map_err(|why| format!("the {name} of the issuer is invalid: {why}"))
        };
        Ok(Self {
            name: options.issuer.clone(),
            client_id: options.client_id.clone(),
            scope: options.scope.clone().unwrap_or_else(|| "openid".to_owned()),
            authorization: endpoint("authorization_endpoint")?,
            token: endpoint("token_endpoint")?,
            revocation: endpoint("revocation_endpoint").ok(),
            https,
            tokens,
        })
    }

    /// The identifier of the issuer (`iss`).
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Starts a sign-in.
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
        let response = self
            .request_tokens(&fields)
            .await
            .map_err(|error| match error {
                TokenError::Rejected(why) => format!("the issuer rejected the code: {why}"),
                TokenError::Failed(why) => why,
            })?;
        let id_token = response["id_token"].as_str().unwrap_or_default();
        let claims = self.claims(id_token).await?;
        if claims["nonce"].as_str() != Some(&attempt.nonce) {
            return Err("the id token belongs to another sign-in (nonce)".to_owned());
        }
        self.session(&response, id_token.to_owned(), &claims, None)
    }

    /// Exchanges the refresh token for new tokens, and stores them in the file.
    pub(super) async fn refresh(
        &self,
        mut session: Session,
        file: &SessionFile,
    ) -> Result<Session, TokenError> {
        let old = session.refresh_token.as_ref();
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", old.map_or("", Secret::expose)),
            ("client_id", &self.client_id),
        ];
        let response = self.request_tokens(&fields).await?;
        // Stored before the new tokens are verified, which may fail: an issuer that rotates refresh tokens has
        // invalidated the previous one.
        if let Some(rotated) = refresh_token(&response) {
            session.refresh_token = Some(rotated);
            file.write(&session).map_err(TokenError::Failed)?;
        }
        let (id_token, claims) = match response["id_token"].as_str() {
            Some(id_token) => {
                let claims = self.claims(id_token).await.map_err(TokenError::Failed)?;
                (id_token.to_owned(), claims)
            }
            None => (session.id_token.expose().to_owned(), Value::Null),
        };
        if !claims.is_null() && claims["sub"].as_str() != Some(&session.subject) {
            return Err(TokenError::Rejected(
                "the new tokens belong to another user".to_owned(),
            ));
        }
        let refreshed = self
            .session(&response, id_token, &claims, Some(&session))
            .map_err(TokenError::Failed)?;
        file.write(&refreshed).map_err(TokenError::Failed)?;
        Ok(refreshed)
    }

    /// Revokes the refresh token, if the issuer has an endpoint for that.
    pub(super) async fn revoke(&self, session: &Session) -> Result<(), String> {
        let (Some(address), Some(token)) = (&self.revocation, &session.refresh_token) else {
            return Ok(());
        };
        let fields = [("token", token.expose()), ("client_id", &self.client_id)];
        let (status, _) = self
            .https
            .post_form(address.as_str(), &fields, REQUEST_TIMEOUT)
            .await?;
        if (200..300).contains(&status) {
            Ok(())
        } else {
            Err(format!(
                "the issuer did not revoke the refresh token (status {status})"
            ))
        }
    }

    async fn request_tokens(&self, fields: &[(&str, &str)]) -> Result<Value, TokenError> {
        let response = self
            .https
            .post_form(self.token.as_str(), fields, REQUEST_TIMEOUT)
            .await;
        let (status, body) = response.map_err(TokenError::Failed)?;
        match status {
            200 => Ok(body),
            400 | 401 => {
                let why = body["error"].as_str().unwrap_or("no reason given");
                Err(TokenError::Rejected(printable(why)))
            }
            _ => Err(TokenError::Failed(format!(
                "{}: status {status}",
                self.token
            ))),
        }
    }

    /// Verifies an id token and returns its claims.
    async fn claims(&self, id_token: &str) -> Result<Value, String> {
        let claims = self.tokens.claims(id_token).await;
        let claims =
            claims.map_err(|why| format!("the id token of the issuer is invalid: {why}"))?;
        let azp = &claims["azp"];
        if !azp.is_null() && azp.as_str() != Some(&self.client_id) {
            return Err("the id token is for another client (azp)".to_owned());
        }
        Ok(claims)
    }

    fn session(
        &self,
        response: &Value,
        id_token: String,
        claims: &Value,
        before: Option<&Session>,
    ) -> Result<Session, String> {
        let bearer = response["token_type"].as_str();
        if !bearer.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err("the issuer returned a token that is not a bearer token".to_owned());
        }
        let access_token = response["access_token"].as_str();
        let access_token = access_token.filter(|token| is_token(token));
        let refresh_token = refresh_token(response)
            .or_else(|| before.and_then(|session| session.refresh_token.clone()));
        let scope = before.map_or(&self.scope, |session| &session.scope);
        let subject = before.map(|session| session.subject.clone());
        let subject = subject.or_else(|| claims["sub"].as_str().map(str::to_owned));
        Ok(Session {
            issuer: self.name.clone(),
            client_id: self.client_id.clone(),
            scope: scope.clone(),
            subject: subject.unwrap_or_default(),
            access_token: Secret::new(access_token.ok_or("the issuer returned no access token")?),
            id_token: Secret::new(id_token),
            refresh_token,
            expires_at: seconds_now()
                .saturating_add(response["expires_in"].as_u64().unwrap_or(DEFAULT_LIFETIME)),
        })
    }
}

/// The refresh token of a response. A refresh returns one if the issuer rotates refresh tokens. A token may have any
/// characters (RFC 6749, appendix A.17), because it is only sent in forms.
fn refresh_token(response: &Value) -> Option<Secret> {
    let token = response["refresh_token"].as_str();
    token.filter(|token| !token.is_empty()).map(Secret::new)
}
