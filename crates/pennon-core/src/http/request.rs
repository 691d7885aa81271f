//! A request as handlers see it: what a route needs, checked where it is taken out.

use std::sync::Arc;

use lambda_http::{RequestExt, http::header};
use pennon_eval::{FlagKey, UserId};

use super::etag::ETag;
use super::route::{self, Match};
use crate::auth::{Admin, Claims};
use crate::config::AuthConfig;
use crate::environment::Environment;
use crate::error::Error;
use crate::service::{Expected, Scope};

/// A request to one of the routes.
pub struct Request {
    inner: lambda_http::Request,
    claims: Option<Claims>,
    scope: Arc<Scope>,
}

impl Request {
    pub(super) fn new(inner: lambda_http::Request, scope: Arc<Scope>) -> Self {
        // The local server puts its own verdict beside the request; on Lambda only the gateway's
        // authorizer speaks.
        let claims = inner
            .extensions()
            .get::<Claims>()
            .cloned()
            .or_else(|| inner.request_context_ref().and_then(Claims::of));
        Self {
            inner,
            claims,
            scope,
        }
    }

    /// Time and record of this request.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The path as it was asked for, percent-encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        self.inner.uri().path()
    }

    /// The `{flagKey}` of the path.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be a flag key.
    pub fn flag_key(&self) -> Result<FlagKey, Error> {
        let parameters = self.inner.path_parameters_ref();
        let text = parameters
            .and_then(|parameters| parameters.first("flagKey"))
            .unwrap_or_default();
        let key = FlagKey::parse(text)
            .map_err(|error| Error::invalid_field("flagKey", error.to_string()))?;
        self.scope.trace.flag_key(key.as_str());
        Ok(key)
    }

    /// `?environment=`, or production.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no environment name.
    pub fn environment(&self) -> Result<Environment, Error> {
        match self.query("environment") {
            None | Some("") => Ok(Environment::production()),
            Some(text) => Environment::parse(text)
                .map_err(|error| Error::invalid_field("environment", error.to_string())),
        }
    }

    /// Who asks: the subject of a verified token, else `?userId=` where that is believed, else
    /// nobody.
    #[must_use]
    pub fn user(&self, config: &AuthConfig) -> Option<UserId> {
        let verified = self.claims.as_ref().and_then(Claims::user);
        if verified.is_some() || !config.trust_user_id_parameter {
            return verified;
        }
        UserId::parse(self.query("userId")?)
    }

    /// Proof that an admin asks.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::Forbidden`].
    pub fn admin(&self, config: &AuthConfig) -> Result<Admin, Error> {
        Admin::verify(self.claims.as_ref(), config)
    }

    /// Whether the caller says that it has the answer with this tag (`If-None-Match`).
    #[must_use]
    pub fn has(&self, tag: &ETag) -> bool {
        self.inner
            .headers()
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| tag.is_named_by(value))
    }

    /// Which state the caller wants to change (`If-Match`). A tag that is none of ours names no state
    /// that is there.
    #[must_use]
    pub fn expected(&self) -> Expected {
        let mut revisions = Vec::new();
        let headers = self.inner.headers().get_all(header::IF_MATCH);
        if headers.iter().next().is_none() {
            return Expected::Unsaid;
        }
        for tag in headers
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        {
            let tag = tag.trim_ascii();
            if tag == b"*" {
                return Expected::Any;
            }
            let number = tag
                .strip_prefix(b"\"")
                .and_then(|rest| rest.strip_suffix(b"\""))
                .and_then(|inner| std::str::from_utf8(inner).ok()?.parse::<i64>().ok());
            revisions.extend(number);
        }
        Expected::OneOf(revisions)
    }

    /// What to say about a path that no route has: where only admins may look, a caller without a
    /// verified identity does not even learn that.
    #[must_use]
    pub fn route_not_found(&self) -> Error {
        match route::find(self.inner.method().as_str(), self.path()) {
            Match::UnknownAdmin if self.claims.is_none() => Error::Unauthenticated,
            Match::UnknownAdmin | Match::Unknown | Match::Found(..) => Error::RouteNotFound,
        }
    }

    /// The body as bytes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.inner.body().as_ref()
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.inner
            .query_string_parameters_ref()
            .and_then(|parameters| parameters.first(name))
    }
}
