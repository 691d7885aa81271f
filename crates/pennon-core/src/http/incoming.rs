//! A request as received: from an event of API Gateway, or over HTTP by the local server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use lambda_http::http::{HeaderMap, Method, header};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::etag::ETag;
use super::route::{self, Endpoint, Match, UnknownParameters};
use crate::auth::Claims;
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::key_kind::KeyKind;

/// Stands for the empty name of a parameter, as in `?=1`, in messages.
const NO_NAME: &str = "(empty)";

/// The error about a parameter that is not UTF-8.
pub(super) const NOT_UTF_8: &str = "Must be UTF-8 after percent-decoding";

/// Larger bodies are rejected. Lambda's limit is 6 MB, in which a quotation mark of the body takes two bytes; this
/// limit leaves space for them.
pub const MAX_BODY_SIZE: usize = 4_000_000;

/// Marks a request whose API key was verified before the handler. Only the local server sets it, for its own keys,
/// which are not stored.
#[derive(Debug, Clone, Copy)]
pub struct TrustedKey(pub KeyKind);

/// Parses the name of an environment.
pub(super) fn parse_environment(text: &str) -> Result<Environment, Error> {
    Environment::parse(text).map_err(|error| Error::invalid_field("environment", error.to_string()))
}

/// A request before validation.
///
/// The path is a string and not a URI: HTTP APIs decode it, so that it may contain `#`, `?`, `%`, spaces or any other
/// character.
#[derive(Default)]
pub struct Incoming {
    /// The method.
    pub method: Method,
    /// The path. HTTP APIs decode it; REST APIs, function URLs and the local server leave it percent-encoded.
    pub path: String,
    /// Whether a route of an HTTP API matched, so that the path is decoded. The route `$default` does not tell an HTTP
    /// API from a function URL.
    pub is_path_decoded: bool,
    /// The stage of the API, which may precede the path; empty without a stage.
    pub stage: String,
    /// The path template of the route that the gateway matched. None if no gateway matched a route (in the local
    /// server, at a function URL, and for the route `$default`), and for a greedy parameter: see `proxy_path`.
    pub route: Option<String>,
    /// The path without the base path of a custom domain, if the gateway matched a route with a greedy parameter
    /// (`/api/admin/{proxy+}`).
    pub proxy_path: Option<String>,
    /// The decoded values of the parameters of [`Incoming::route`].
    pub path_parameters: BTreeMap<String, String>,
    /// The query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as bytes.
    pub body: Vec<u8>,
    /// The claims of a token that an authorizer in front of this function has verified.
    pub claims: Option<Claims>,
    /// Whether the response goes to a gateway, as JSON in which the body is a string.
    pub is_from_gateway: bool,
    /// Set by the local server if it has verified the API key.
    pub trusted_key: Option<TrustedKey>,
    /// The id of the request from the gateway or Lambda.
    pub request_id: Option<String>,
    /// Why the event is malformed, if it is: the response is 400 with this text.
    pub malformed: Option<String>,
}

/// A request before validation, and its route.
pub struct Routed {
    /// The request.
    pub incoming: Incoming,
    /// The route.
    pub found: Match,
}

/// The query of a request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Query {
    text: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses the query of a URL.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            pairs: form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        }
    }

    /// Creates a query from decoded names and values, as REST APIs pass them.
    #[must_use]
    pub fn of_pairs(pairs: Vec<(String, String)>) -> Self {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(&pairs);
        Self {
            text: text.finish(),
            pairs,
        }
    }

    /// The encoded query, without the question mark.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first value of a parameter, decoded.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter, decoded.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.pairs.iter().filter(move |(found, _)| found == name);
        values.map(|(_, value)| value.as_str())
    }

    /// Decoded names and values, in their order.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// Whether any `environment` differs from this one.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a value is not an environment name.
    pub fn names_other_environment(&self, environment: &Environment) -> Result<bool, Error> {
        for text in self.all("environment") {
            if !text.is_empty() && parse_environment(text)? != *environment {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Parameters that the route does not list.
    pub(super) fn unknown_parameters(&self, endpoint: &Endpoint) -> Vec<String> {
        let mut unknown: Vec<String> = Vec::new();
        for (name, value) in &self.pairs {
            let is_empty = name.is_empty() && value.is_empty();
            let known = endpoint.query.contains(&name.as_str());
            let name = if name.is_empty() { NO_NAME } else { name };
            if !is_empty && !known && !unknown.iter().any(|found| found == name) {
                unknown.push(name.to_owned());
            }
        }
        unknown
    }

    /// Checks the parameters for a route.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a parameter that is unknown, is not UTF-8, or occurs with different values. Routes of the
    /// existing service check only the values of `environment` and `dryRun`, on admin routes; pages check nothing.
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut errors = FieldErrors::default();
        if endpoint.unknown_parameters == UnknownParameters::Ignored {
            // Clients of the existing service may send anything, but which environment a request changes, and whether it
            // changes it, must be unambiguous.
            if endpoint.is_admin() {
                self.require_unique("environment", &mut errors);
                self.require_unique("dryRun", &mut errors);
            }
            return errors.into_result();
        }
        if endpoint.unknown_parameters == UnknownParameters::Accepted {
            return Ok(());
        }
        let known = match endpoint.query {
            [] => "this route has none".to_owned(),
            known => format!("this route has {}", known.join(", ")),
        };
        let unknown = self.unknown_parameters(endpoint);
        errors.add_unknown(
            unknown.iter().map(String::as_str),
            &format!("Unknown parameter; {known}"),
        );
        for name in endpoint.query {
            self.require_unique(name, &mut errors);
        }
        for name in endpoint.query {
            if self.is_malformed(name) {
                errors.add(name, NOT_UTF_8);
            }
        }
        errors.into_result()
    }

    /// Whether a parameter is not UTF-8. In its decoded value, U+FFFD replaces the invalid bytes.
    pub(super) fn is_malformed(&self, name: &str) -> bool {
        let encoded = self.text.split('&').filter(|part| !part.is_empty());
        let mut with_name = encoded.zip(&self.pairs).filter(|(_, (it, _))| it == name);
        with_name.any(|(part, _)| percent_decode_str(part).decode_utf8().is_err())
    }

    fn require_unique(&self, name: &str, errors: &mut FieldErrors) {
        let first = self.first(name);
        if self.all(name).any(|value| Some(value) != first) {
            errors.add(name, "Occurs in the query with different values");
        }
    }
}

impl Incoming {
    /// Finds the route: the one that the gateway matched, otherwise by the path.
    #[must_use]
    pub fn routed(self) -> Routed {
        let found = self.find();
        Routed {
            incoming: self,
            found,
        }
    }

    /// Whether the caller has the response with this tag (`If-None-Match`).
    #[must_use]
    pub(crate) fn has_current(&self, tag: &ETag) -> bool {
        let tags = self.headers.get_all(header::IF_NONE_MATCH).iter();
        tags.filter_map(|value| value.to_str().ok())
            .any(|value| tag.matches(value))
    }

    /// Whether a body may be made as a JSON string, which the gateway expects. The plain text is needed to compress the
    /// body, and for the length in the response to `HEAD`.
    #[must_use]
    pub(crate) fn takes_json_string(&self) -> bool {
        self.is_from_gateway
            && self.method != Method::HEAD
            && !self.headers.contains_key(header::ACCEPT_ENCODING)
    }

    pub(crate) fn find(&self) -> Match {
        let method = self.method.as_str();
        if let Some(template) = &self.route {
            return route::find_template(method, template, &self.path_parameters);
        }
        if let Some(path) = &self.proxy_path {
            return route::find(method, &self.encoded(path));
        }
        let path = self.encoded(&self.path);
        let found = route::find(method, &path);
        let after_stage = path
            .strip_prefix('/')
            .and_then(|rest| rest.strip_prefix(&self.stage));
        match (&found, after_stage) {
            (Match::Unknown | Match::UnknownAdmin, Some(rest)) if !self.stage.is_empty() => {
                match rest {
                    "" => route::find(method, "/"),
                    rest if rest.starts_with('/') => route::find(method, rest),
                    _ => found,
                }
            }
            _ => found,
        }
    }

    /// A path whose segments [`route::find`] may decode.
    fn encoded<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if self.is_path_decoded {
            path.replace('%', "%25").into()
        } else {
            path.into()
        }
    }

    /// The part of the path before that of a page: the stage, or the base path of a custom domain; often empty.
    #[must_use]
    pub fn base_path(&self) -> &str {
        let Self {
            path,
            route,
            proxy_path,
            stage,
            ..
        } = self;
        if let Some(own) = proxy_path.as_deref().or(route.as_deref()) {
            return path.strip_suffix(own).unwrap_or_default();
        }
        let stage = path
            .strip_prefix('/')
            .and_then(|rest| rest.strip_prefix(stage.as_str()))
            .filter(|_| !stage.is_empty());
        match (stage, route::find("GET", &self.encoded(path))) {
            (Some(rest), Match::Unknown | Match::UnknownAdmin) => {
                path.strip_suffix(rest).unwrap_or_default()
            }
            (Some(_) | None, _) => "",
        }
    }
}
