//! A request as it arrived, whichever way: as an event of API Gateway, or over HTTP at the local server.

use std::collections::BTreeMap;

use lambda_http::http::{HeaderMap, Method};
use url::form_urlencoded;

use super::route::{self, Match};
use crate::auth::Claims;
use crate::snapshot::KeyKind;

/// Larger bodies are rejected. Lambda passes on 6 MB, in which a quotation mark of the body takes two bytes;
/// this limit leaves room for them, and is enough for an import of all flags.
pub const LARGEST_BODY: usize = 4_000_000;

/// Marks a request whose key was verified before the handler. The local server sets it for its own key;
/// it is never set on Lambda.
#[derive(Debug, Clone, Copy)]
pub struct VouchedKey(pub KeyKind);

/// A request before any check.
///
/// Its path is text and not a URI: HTTP APIs hand paths over decoded, so that `#`, `?`, `%`, a space or
/// any other character may stand in one.
#[derive(Default)]
pub struct Incoming {
    /// The method.
    pub method: Method,
    /// The path. HTTP APIs decode it; function URLs and the local server leave it percent-encoded.
    pub path: String,
    /// The stage of the API, which may stand before the path; empty where there is none.
    pub stage: String,
    /// The path of the route that the gateway has chosen, as the template has it. None where nothing
    /// has chosen one: at the local server, at a function URL, behind `$default`.
    pub route: Option<String>,
    /// The path behind the base path of a domain, decoded, where the gateway has chosen a route for all
    /// paths that begin alike (`/api/admin/{proxy+}`).
    pub routed_path: Option<String>,
    /// What the gateway has found in the place of the braces of [`Incoming::route`], decoded.
    pub path_parameters: BTreeMap<String, String>,
    /// The query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as bytes.
    pub body: Vec<u8>,
    /// The claims of a token that somebody before this function has verified.
    pub claims: Option<Claims>,
    /// The local server's word for the API key of the request.
    pub vouched_key: Option<VouchedKey>,
    /// The id that the gateway, or Lambda, has given to the request.
    pub request_id: Option<String>,
    /// Why this is no request that can be answered, when it is none: the answer is 400 with this text.
    pub defect: Option<String>,
}

/// The query of a request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Query {
    text: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Takes a query as it stands in a URL.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            pairs: form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        }
    }

    /// Takes decoded names and values, as REST APIs hand them over.
    #[must_use]
    pub fn of_pairs(pairs: Vec<(String, String)>) -> Self {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(&pairs);
        Self {
            text: text.finish(),
            pairs,
        }
    }

    /// As it stands in a URL, without the question mark.
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

    /// Names and values, decoded, in their order.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

impl Incoming {
    /// What the request leads to: the gateway's choice where there is one, else the path's.
    #[must_use]
    pub fn find(&self) -> Match {
        let method = self.method.as_str();
        if let Some(template) = &self.route {
            return route::find_template(method, template, &self.path_parameters);
        }
        if let Some(path) = &self.routed_path {
            return route::find(method, path);
        }
        let found = route::find(method, &self.path);
        let behind_stage = self
            .path
            .strip_prefix('/')
            .and_then(|rest| rest.strip_prefix(&self.stage));
        match (&found, behind_stage) {
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
}
