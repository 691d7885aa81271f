//! A request as handlers see it. Accessors validate what they return.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use lambda_http::http::header;
use pennon_eval::json::quote;
use pennon_eval::{FlagKey, UserId};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::etag::ETag;
use super::incoming::{Incoming, NOT_UTF_8, Routed, TrustedKey, parse_environment};
use super::path::OfrepPath;
use super::route::{Authorization, Endpoint, Match, UnknownParameters, mask};
use crate::app::App;
use crate::auth::{self, Actor, Claims, Role};
use crate::config::{AuthConfig, PublicConfigRoutes};
use crate::environment::Environment;
use crate::error::Error;
use crate::request_context::RequestContext;
use crate::service::Expected;
use crate::store::PageRequest;

/// The default of the existing service.
const DEFAULT_PAGE_SIZE: u32 = 50;
/// A page with this many overrides or flags is usually far smaller than Lambda's limit of 6 MB.
const MAX_PAGE_SIZE: u32 = 1_000;
/// The error for an invalid `If-Match`.
const INVALID_IF_MATCH: &str = "Expected * or a quoted ETag such as \"123\", from GET /api/admin/flags/{flagKey} or \
    the response to a change; weak ETags and those of public routes are not accepted";
/// The path segment of an item that the query names.
const BY_QUERY: &str = "-";
/// The highest page number: beyond every list, and small enough that offsets do not overflow.
const LAST_PAGE: u32 = 1_000_000;

/// A request, with the route that it matches, if any.
pub struct Request {
    incoming: Incoming,
    found: Match,
    context: Arc<RequestContext>,
    actor: OnceLock<Result<Actor, Error>>,
}

impl Request {
    pub(crate) fn new(
        routed: Routed,
        context: Arc<RequestContext>,
        public_config: PublicConfigRoutes,
    ) -> Self {
        let Routed { incoming, found } = routed;
        let found = match (found, public_config) {
            // For every method, so that responses do not disclose that the routes exist.
            (
                Match::Found(endpoint, _) | Match::OtherMethod { endpoint, .. },
                PublicConfigRoutes::Off,
            ) if endpoint.is_public_config() => Match::Unknown,
            (
                found,
                PublicConfigRoutes::Off | PublicConfigRoutes::Key | PublicConfigRoutes::Open,
            ) => found,
        };
        Self {
            incoming,
            found,
            context,
            actor: OnceLock::new(),
        }
    }

    /// The time budget and the trace of this request.
    #[must_use]
    pub fn context(&self) -> &RequestContext {
        &self.context
    }

    /// The path of the request, which may begin with a stage or the base path of a custom domain. To compare routes,
    /// use [`Request::route`].
    #[must_use]
    pub fn path(&self) -> &str {
        &self.incoming.path
    }

    /// The route of the request. `HEAD` has the route of `GET`.
    #[must_use]
    pub fn route(&self) -> Option<&'static Endpoint> {
        match &self.found {
            Match::Found(endpoint, _) => Some(endpoint),
            Match::OtherMethod { .. } | Match::UnknownAdmin | Match::Unknown => None,
        }
    }

    /// The path for a log line: the template of the route, so that user ids are not logged. In a path without a
    /// route, `*` replaces every segment that is not a literal of some route.
    pub(crate) fn path_template(&self) -> Cow<'static, str> {
        match &self.found {
            Match::Found(endpoint, _) | Match::OtherMethod { endpoint, .. } => {
                Cow::Borrowed(endpoint.path)
            }
            Match::UnknownAdmin | Match::Unknown => Cow::Owned(mask(&self.incoming.path)),
        }
    }

    /// The OFREP path of the request, if it has one.
    pub(crate) fn ofrep_path(&self) -> Option<OfrepPath> {
        let (endpoint, parameters) = match &self.found {
            Match::Found(endpoint, parameters)
            | Match::OtherMethod {
                endpoint,
                parameters,
                ..
            } => (endpoint, parameters),
            Match::UnknownAdmin => return None,
            Match::Unknown => return OfrepPath::of(self.path()),
        };
        if !endpoint.is_ofrep() {
            return None;
        }
        Some(match parameters.first() {
            Some((_, key)) => OfrepPath::Single(key.clone()),
            None if endpoint.parameter().is_empty() => OfrepPath::Bulk,
            // The gateway did not pass the parameter.
            None => OfrepPath::of(self.path()).unwrap_or(OfrepPath::Unknown),
        })
    }

    /// See [`Incoming::base_path`].
    #[must_use]
    pub fn base_path(&self) -> &str {
        self.incoming.base_path()
    }

    /// The result of matching the routes.
    pub(crate) fn found(&self) -> &Match {
        &self.found
    }

    /// The request before validation.
    #[must_use]
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// The decoded value of a path parameter; empty without one.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        let Match::Found(_, parameters) = &self.found else {
            return "";
        };
        let mut named = parameters.iter().filter(|(found, _)| *found == name);
        named.next().map_or("", |(_, text)| text)
    }

    /// The flag of an admin route: `?flagKey=`, otherwise `{flagKey}` of the path.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not a valid key, or path and query name different flags.
    pub fn flag_key(&self) -> Result<FlagKey, Error> {
        self.parse_flag_key(self.item("flagKey")?)
    }

    /// `{flagKey}` of the path, on routes without `?flagKey=`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not a valid key.
    pub fn flag_key_in_path(&self) -> Result<FlagKey, Error> {
        self.parse_flag_key(self.parameter("flagKey"))
    }

    fn parse_flag_key(&self, text: &str) -> Result<FlagKey, Error> {
        let key = FlagKey::parse(text)
            .map_err(|error| Error::invalid_field("flagKey", error.to_string()))?;
        self.context.trace.flag_key(key.as_str());
        Ok(key)
    }

    /// The item that an admin route names in its path, or, if the path has `-` in its place, in the query. Gateways
    /// decode paths, so an item whose name contains `/` can only be named in the query.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the query names several items, or another item than the path: it would be ambiguous
    /// which of them to change. Also if the name is not UTF-8: with U+FFFD, it could be that of another item.
    pub fn item(&self, name: &str) -> Result<&str, Error> {
        let in_path = self.parameter(name);
        let in_query: Vec<&str> = self.incoming.query.all(name).collect();
        match in_query.as_slice() {
            [] => Ok(in_path),
            [_] if self.incoming.query.is_malformed(name) => {
                Err(Error::invalid_field(name, NOT_UTF_8))
            }
            [named] if in_path == BY_QUERY || in_path == *named => Ok(named),
            [named] => Err(Error::invalid_field(
                name,
                format!(
                    "The path names '{in_path}' and the query '{named}'; with ?{name}=, use {BY_QUERY} in the path"
                ),
            )),
            [_, _, ..] => Err(Error::invalid_field(
                name,
                "Must occur only once in the query",
            )),
        }
    }

    /// The flag to evaluate. Any text is accepted; an invalid key is not found later.
    #[must_use]
    pub fn evaluated_flag(&self) -> String {
        match self.ofrep_path() {
            Some(OfrepPath::Single(key)) => key,
            Some(OfrepPath::Bulk | OfrepPath::Unknown) | None => String::new(),
        }
    }

    /// An integer in the query.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not an integer in this range.
    pub fn integer(
        &self,
        name: &str,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, Error> {
        match self.query(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if range.contains(&number) => Ok(number),
                Ok(_) | Err(_) => {
                    let (min, max) = (range.start(), range.end());
                    let got = quote(&text.into());
                    let error = format!("Must be an integer from {min} to {max} (got {got})");
                    Err(Error::invalid_field(name, error))
                }
            },
        }
    }

    /// Whether any `?environment=` in the query differs from this one.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a value is not an environment name.
    pub fn names_other_environment(&self, environment: &Environment) -> Result<bool, Error> {
        self.incoming.query.names_other_environment(environment)
    }

    /// `?environment=`, if present.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not an environment name.
    pub fn named_environment(&self) -> Result<Option<Environment>, Error> {
        match self.query("environment") {
            None | Some("") => Ok(None),
            Some(text) => parse_environment(text).map(Some),
        }
    }

    /// `{environment}` of the path.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not an environment name.
    pub fn environment_in_path(&self) -> Result<Environment, Error> {
        parse_environment(self.parameter("environment"))
    }

    /// `?page=` and `?pageSize=`; by default the first page of fifty. An invalid size is ignored, as in the existing
    /// service.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the page is not an integer in its range. An empty page is accepted only on routes of the
    /// existing service.
    pub fn page(&self) -> Result<PageRequest, Error> {
        let number = |text: &str, limit: u32| {
            let number = text.parse().ok();
            number.filter(|number| (1..=limit).contains(number))
        };
        let may_be_empty = self
            .route()
            .is_some_and(|route| route.unknown_parameters == UnknownParameters::Ignored);
        let page = match self.query("page") {
            None => Some(1),
            Some("") if may_be_empty => Some(1),
            Some(text) => number(text, LAST_PAGE),
        };
        let page = page.ok_or_else(|| {
            let got = quote(&self.query("page").into());
            let error = format!("Must be an integer from 1 to {LAST_PAGE} (got {got})");
            Error::invalid_field("page", error)
        })?;
        let size = self.query("pageSize");
        Ok(PageRequest {
            number: page,
            size: size
                .and_then(|text| number(text, MAX_PAGE_SIZE))
                .unwrap_or(DEFAULT_PAGE_SIZE),
        })
    }

    /// Like [`Self::page`], but `None`, for the whole list, if the query has neither `page` nor `pageSize`.
    ///
    /// # Errors
    /// Those of [`Self::page`].
    pub fn optional_page(&self) -> Result<Option<PageRequest>, Error> {
        let is_named = ["page", "pageSize"]
            .into_iter()
            .any(|name| self.query(name).is_some());
        is_named.then(|| self.page()).transpose()
    }

    /// A boolean in the query, `false` by default.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is neither `true` nor `false`. An empty value is invalid too: `?dryRun` must not
    /// import.
    pub fn boolean(&self, name: &str) -> Result<bool, Error> {
        match self.query(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::invalid_field(name, "Expected true or false")),
        }
    }

    /// `?environment=`, `production` by default.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not an environment name.
    pub fn environment(&self) -> Result<Environment, Error> {
        let named = self.named_environment()?;
        Ok(named.unwrap_or_else(Environment::production))
    }

    /// The calling user: the subject of a token that the gateway or this function has verified, otherwise `?userId=`
    /// if the settings trust it.
    pub async fn user(&self, app: &App) -> Option<UserId> {
        let mut user = self.incoming.claims.as_ref().and_then(Claims::user);
        if user.is_none()
            && let (Some(tokens), Some(token)) = (&app.tokens, self.bearer_token())
        {
            user = tokens.user(token, &self.context.trace).await;
        }
        if user.is_none() && app.config.auth.trust_user_id_parameter {
            user = UserId::parse(self.query("userId")?);
        }
        user
    }

    /// The caller of an admin route, if their roles allow them to use it. Nothing has been read from the store yet, so
    /// an error does not disclose what exists.
    ///
    /// # Errors
    /// Those of [`Actor::verify`]; [`Error::Forbidden`] if the caller does not have the role for the route (for an
    /// editor: in the environment of the request); [`Error::Invalid`] if the route needs an editor and the name of the
    /// environment is invalid.
    pub fn actor(&self, config: &AuthConfig) -> Result<Actor, Error> {
        let verify = || {
            let Incoming {
                claims, headers, ..
            } = &self.incoming;
            let actor = Actor::verify(claims.as_ref(), headers, config)?;
            actor.require(self.needed_role()?)?;
            Ok(actor)
        };
        self.actor.get_or_init(verify).clone()
    }

    /// The least role that may use the route.
    fn needed_role(&self) -> Result<Role, Error> {
        let Some(endpoint) = self.route() else {
            return Ok(Role::Admin);
        };
        Ok(match endpoint.authorization {
            Authorization::Viewer => Role::Viewer,
            Authorization::Editor if endpoint.has_environment_in_path() => {
                Role::EditorOf(self.environment_in_path()?)
            }
            Authorization::Editor => Role::EditorOf(self.environment()?),
            Authorization::Admin
            | Authorization::Anyone
            | Authorization::PublicConfig
            | Authorization::ApiKey
            | Authorization::SyncKey => Role::Admin,
        })
    }

    /// Whether the caller has the response with this tag (`If-None-Match`).
    #[must_use]
    pub fn has_current(&self, tag: &ETag) -> bool {
        self.incoming.has_current(tag)
    }

    /// Whether `Accept` names this media type.
    #[must_use]
    pub fn accepts(&self, media_type: &str) -> bool {
        let values = self.incoming.headers.get_all(header::ACCEPT).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split([',', ';']))
            .any(|part| part.trim().eq_ignore_ascii_case(media_type))
    }

    /// The state that the caller expects to change (`If-Match`).
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is neither `*` nor a list of tags of items of the admin API. Such a condition can
    /// never hold, and 412 would suggest that someone else has changed the item.
    pub fn expected(&self) -> Result<Expected, Error> {
        let headers = self.incoming.headers.get_all(header::IF_MATCH);
        let mut values = headers.iter().peekable();
        let Some(first) = values.peek() else {
            return Ok(Expected::Unspecified);
        };
        if first.as_bytes().trim_ascii() == b"*" {
            return Ok(Expected::Any);
        }
        let tags = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        tags.map(|tag| ETag::parse_record(std::str::from_utf8(tag).ok()?))
            .collect::<Option<Vec<i64>>>()
            .map(Expected::OneOf)
            .ok_or_else(|| Error::invalid_field("If-Match", INVALID_IF_MATCH))
    }

    /// The error for a request without a route in this function: 405 if the path has other methods, otherwise 404.
    /// On admin paths, callers without a verified identity get 401.
    #[must_use]
    pub fn route_not_found(&self) -> Error {
        let (admin, error) = match &self.found {
            Match::Found(endpoint, _) => (endpoint.is_admin(), Error::RouteNotFound),
            Match::OtherMethod {
                endpoint, allow, ..
            } => {
                let allow = allow.clone();
                (endpoint.is_admin(), Error::MethodNotAllowed { allow })
            }
            Match::UnknownAdmin => (true, Error::RouteNotFound),
            Match::Unknown => (false, Error::RouteNotFound),
        };
        if admin && self.incoming.claims.is_none() {
            Error::Unauthenticated
        } else {
            error
        }
    }

    /// Set if the local server has verified the API key.
    pub(crate) fn trusted_key(&self) -> Option<TrustedKey> {
        self.incoming.trusted_key
    }

    /// The target of a redirect, for an evaluation whose path has empty segments because the client's base URL ends
    /// with a slash.
    pub(crate) fn redirect_target(&self) -> Option<String> {
        match OfrepPath::of(self.path())? {
            OfrepPath::Bulk | OfrepPath::Single(_) => {}
            OfrepPath::Unknown => return None,
        }
        let plain = OfrepPath::without_empty_segments(self.path())?;
        let plain = encoded(&plain);
        Some(match self.incoming.query.as_str() {
            "" => plain,
            query => format!("{plain}?{query}"),
        })
    }

    /// The value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.incoming.headers.get(name)?.to_str().ok()
    }

    /// The body as bytes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.incoming.body
    }

    fn bearer_token(&self) -> Option<&str> {
        auth::bearer_token(self.header("authorization")?)
    }

    /// Parameters of the query that the route ignores.
    pub(crate) fn ignored_parameters(&self) -> Vec<String> {
        match self.route() {
            Some(endpoint) if endpoint.unknown_parameters == UnknownParameters::Ignored => {
                self.incoming.query.unknown_parameters(endpoint)
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Checks the parameters of the query.
    ///
    /// # Errors
    /// Those of [`Query::check`](super::incoming::Query::check).
    pub(crate) fn check_parameters(&self, endpoint: &Endpoint) -> Result<(), Error> {
        self.incoming.query.check(endpoint)
    }

    /// Whether this is a public config route, which reports an unknown environment in a header.
    pub(crate) fn is_for_public_config(&self) -> bool {
        self.route().is_some_and(Endpoint::is_public_config)
    }

    /// The decoded value of a parameter of the query.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.incoming.query.first(name)
    }
}

/// Characters that are invalid in the path of a URI (RFC 3986, section 3.3).
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Encodes a path for the header `Location`. Sequences that are already percent-encoded stay.
fn encoded(path: &str) -> String {
    let mut text = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        text.extend(utf8_percent_encode(before, NOT_IN_A_PATH));
        let hexadecimal = after.bytes().take(2).filter(u8::is_ascii_hexdigit);
        text.push_str(if hexadecimal.count() == 2 { "%" } else { "%25" });
        rest = after;
    }
    text.extend(utf8_percent_encode(rest, NOT_IN_A_PATH));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_path_contains_no_names() {
        for (path, masked) in [
            (
                "/api/admin/flags/x/users/alice/more",
                "/api/admin/flags/*/users/*/*",
            ),
            ("/flags/%61lice\u{1b}\n", "/flags/*"),
            ("/wp-login.php", "/*"),
            ("//", "//"),
            ("", ""),
            ("/a/b/c/d/e/f/g/h", "/*/*/*/*/*/*/*/*"),
            ("/a/b/c/d/e/f/g/h/i/j", "/*/*/*/*/*/*/*/*/…"),
        ] {
            assert_eq!(mask(path), masked);
        }
        assert!(mask(&"/x".repeat(5_000)).len() < 30);
    }

    #[test]
    fn a_decoded_path_is_encoded_for_location_and_an_encoded_one_stays() {
        for (path, expected) in [
            ("/flags/a%2Fb", "/flags/a%2Fb"),
            ("/flags/a b", "/flags/a%20b"),
            ("/flags/100%", "/flags/100%25"),
            ("/flags/a[1]", "/flags/a%5B1%5D"),
            ("/flags/ä?#\\\r\n", "/flags/%C3%A4%3F%23%5C%0D%0A"),
        ] {
            assert_eq!(encoded(path), expected);
        }
    }
}

#[cfg(test)]
mod fuzz {
    use std::time::Duration;

    use lambda_http::http::{HeaderMap, HeaderValue, Method};
    use pennon_fuzz::{for_all, text};

    use super::*;
    use crate::http::Query;
    use crate::snapshot::Revision;

    fn request(incoming: Incoming) -> Request {
        let context = Arc::new(RequestContext::begin(Duration::from_millis(400)));
        Request::new(incoming.routed(), context, PublicConfigRoutes::Open)
    }

    #[test]
    fn if_match_is_a_star_or_a_list_of_numbers_or_rejected() {
        let examples = [
            "\"1\"",
            "\"1\", \"-2\"",
            "*",
            "\"9223372036854775807\",\"7\"",
            "W/\"1\"",
        ];
        let words = &[
            "\"", ",", "*", "W/", " ", "\t", "-", "+", "0", "\"5\"", ",,", "ä", "1e3",
        ];
        for_all(&text(examples, words), |value| {
            let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else {
                return;
            };
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = HeaderMap::from_iter([(header::IF_MATCH, value)]);
            let incoming = Incoming {
                headers,
                ..Incoming::default()
            };
            match request(incoming).expected() {
                Ok(Expected::Any) => assert_eq!(text.trim(), "*"),
                Ok(Expected::OneOf(revisions)) => {
                    assert_eq!(revisions.len(), text.split(',').count());
                    for (revision, tag) in revisions.iter().zip(text.split(',')) {
                        let quoted = tag.trim();
                        assert!(quoted.starts_with('"') && quoted.ends_with('"'), "{text}");
                        assert_eq!(quoted.trim_matches('"').parse(), Ok(*revision));
                    }
                }
                Ok(Expected::Unspecified) => panic!("the header was ignored"),
                Err(error) => assert!(matches!(error, Error::Invalid(_))),
            }
            // As If-None-Match, the same text matches a tag only if it contains the tag or a star.
            let tag = ETag::of(Revision(7), &Environment::production());
            if tag.matches(&text) {
                assert!(text.contains(tag.as_str()) || text.contains('*'), "{text}");
            }
        });
    }

    #[test]
    fn any_path_and_query_give_valid_values_or_errors() {
        let examples = [
            "PATCH /api/admin/flags/checkout?environment=production",
            "GET /prod/api/admin/flags/-/users/-?flagKey=a%2Fb&userId=CORP%5Calice&page=2&pageSize=9",
            "POST /ofrep//v1/evaluate/flags/a%20b",
            "GET /api/config/flags/100%25?environment=&x=1&x=2",
        ];
        let words = &[
            "/",
            "//",
            "?",
            "&",
            "=",
            "%",
            "%2F",
            "%00",
            "%FF",
            "..",
            "-",
            "flagKey=",
            "environment=",
            "page=",
            "pageSize=",
            "permanently=",
            "true",
            " ",
            "#",
            "ä",
            "\u{202e}",
            "{flagKey}",
            "GET ",
            "\\",
        ];
        for_all(&text(examples, words), |text| {
            let (method, rest) = text.split_once(' ').unwrap_or(("GET", &text));
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            let incoming = Incoming {
                method: Method::from_bytes(method.as_bytes()).unwrap_or_default(),
                path: format!("/{}", path.trim_start_matches('/')),
                stage: "prod".to_owned(),
                query: Query::parse(query),
                ..Incoming::default()
            };
            let request = request(incoming);
            if let Ok(key) = request.flag_key() {
                assert!(!key.as_str().is_empty() && !key.as_str().contains('\0'));
            }
            if let Ok(environment) = request.environment() {
                assert!((1..=20).contains(&environment.as_str().len()));
            }
            if let Ok(page) = request.page() {
                assert!((1..=LAST_PAGE).contains(&page.number));
                assert!((1..=MAX_PAGE_SIZE).contains(&page.size));
            }
            let _any = (
                request.item("userId"),
                request.boolean("permanently"),
                request.ofrep_path(),
            );
            let _flag = request.evaluated_flag();
            let _error = request.route_not_found();
            if let Some(location) = request.redirect_target() {
                assert!(
                    location.starts_with('/') && !location.starts_with("//"),
                    "{location}"
                );
                HeaderValue::from_str(&location).expect("valid in a header");
            }
        });
    }
}
