//! A request as handlers see it: what a route needs, checked where it is taken out.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use lambda_http::http::header;
use pennon_eval::json::quote;
use pennon_eval::{FlagKey, UserId};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::etag::ETag;
use super::incoming::{Incoming, VouchedKey};
use super::path::OfrepPath;
use super::route::{ENDPOINTS, Endpoint, Match, UnknownParameters};
use crate::app::App;
use crate::auth::{self, Admin, Claims};
use crate::config::{AuthConfig, PublicConfigRoutes};
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::request_context::RequestContext;
use crate::service::Expected;
use crate::store::Page;

/// What an existing service gave to who did not say.
const DEFAULT_PAGE_SIZE: u32 = 50;
/// A page of this many overrides or flags stays far below the 6 MB that Lambda can answer with.
const LARGEST_PAGE_SIZE: u32 = 1_000;
/// What `If-Match` takes.
const NO_TAG: &str = "Expected * or a quoted ETag such as \"123\", as GET /api/admin/flags/{flagKey} \
    and answers to changes have it; not a weak one, nor that of a public route";
/// What a parameter without a name is called, as in `?=1`.
const NO_NAME: &str = "(empty)";
/// Stands in a path in the place of a name that the query has.
const BY_QUERY: &str = "-";
/// Far behind the end of every list, and small enough to be counted with.
const LAST_PAGE: u32 = 1_000_000;

/// A request to one of the routes.
pub struct Request {
    incoming: Incoming,
    found: Match,
    scope: Arc<RequestContext>,
    admin: OnceLock<Result<Admin, Error>>,
}

impl Request {
    pub(crate) fn new(
        incoming: Incoming,
        scope: Arc<RequestContext>,
        public_config: PublicConfigRoutes,
    ) -> Self {
        let found = match (incoming.find(), public_config) {
            // Whatever the method: nothing tells these paths from those that no route has.
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
            scope,
            admin: OnceLock::new(),
        }
    }

    /// Time and record of this request.
    #[must_use]
    pub fn scope(&self) -> &RequestContext {
        &self.scope
    }

    /// The path as the request has it. Which route that is, [`Request::route`] says: a stage or the
    /// base path of a domain may stand before it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.incoming.path
    }

    /// The route that was asked for. `HEAD` asks for that of `GET`.
    #[must_use]
    pub fn route(&self) -> Option<&'static Endpoint> {
        match &self.found {
            Match::Found(endpoint, _) => Some(endpoint),
            Match::OtherMethod { .. } | Match::UnknownAdmin | Match::Unknown => None,
        }
    }

    /// The path for a log line: that of the route, with its braces, so that the ids of users are in no log.
    /// Of a path that leads nowhere only the words are kept that routes consist of.
    pub(crate) fn shape(&self) -> Cow<'static, str> {
        match &self.found {
            Match::Found(endpoint, _) | Match::OtherMethod { endpoint, .. } => {
                Cow::Borrowed(endpoint.path)
            }
            Match::UnknownAdmin | Match::Unknown => Cow::Owned(shape_of(&self.incoming.path)),
        }
    }

    /// Where in OFREP the request leads, if there.
    pub(crate) fn place(&self) -> Option<OfrepPath> {
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
            // A gateway that did not take the key out of the path.
            None => OfrepPath::of(self.path()).unwrap_or(OfrepPath::Unknown),
        })
    }

    /// What the request leads to, where that is more than a route.
    pub(crate) fn found(&self) -> &Match {
        &self.found
    }

    /// The request before anything was found out about it.
    pub(crate) fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// What stands in the path in the place of this brace, decoded; empty when nothing does.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        let Match::Found(_, parameters) = &self.found else {
            return "";
        };
        let mut named = parameters.iter().filter(|(found, _)| *found == name);
        named.next().map_or("", |(_, text)| text)
    }

    /// The flag that an admin route is about: `?flagKey=`, else the `{flagKey}` of the path.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be a flag key, or when path and query name different ones.
    pub fn flag_key(&self) -> Result<FlagKey, Error> {
        self.parse_flag_key(self.item("flagKey")?)
    }

    /// The `{flagKey}` of the path, on a route that looks at no `?flagKey=`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be a flag key.
    pub fn flag_key_in_path(&self) -> Result<FlagKey, Error> {
        self.parse_flag_key(self.parameter("flagKey"))
    }

    fn parse_flag_key(&self, text: &str) -> Result<FlagKey, Error> {
        let key = FlagKey::parse(text)
            .map_err(|error| Error::invalid_field("flagKey", error.to_string()))?;
        self.scope.trace.flag_key(key.as_str());
        Ok(key)
    }

    /// What an admin route is about: the parameter of this name in the query, where the path has
    /// `-` in its place, else what the path has. A `/` in a name arrives decoded, and then no
    /// path leads to it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the query names several, or another than the path does: a change must
    /// not depend on which of them counts.
    pub fn item(&self, name: &str) -> Result<&str, Error> {
        let in_path = self.parameter(name);
        let in_query: Vec<&str> = self.incoming.query.all(name).collect();
        match in_query.as_slice() {
            [] => Ok(in_path),
            [named] if in_path == BY_QUERY || in_path == *named => Ok(named),
            [named] => Err(Error::invalid_field(
                name,
                format!(
                    "The path names '{in_path}' and the query '{named}'; with ?{name}= the path has \
                     {BY_QUERY} in its place"
                ),
            )),
            [_, _, ..] => Err(Error::invalid_field(name, "Must stand in the query once")),
        }
    }

    /// The flag that an evaluation asks for: any text, since what cannot be a key is not found.
    #[must_use]
    pub fn asked_flag(&self) -> String {
        match self.place() {
            Some(OfrepPath::Single(key)) => key,
            Some(OfrepPath::Bulk | OfrepPath::Unknown) | None => String::new(),
        }
    }

    /// A whole number of the query, within a range.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is something else.
    pub fn whole_number(
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
                    let (least, most) = (range.start(), range.end());
                    let got = quote(&text.into());
                    let message = format!("Must be an integer from {least} to {most} (got {got})");
                    Err(Error::invalid_field(name, message))
                }
            },
        }
    }

    /// Whether `?environment=` stands in the query with another value than this, once or among others.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a value is no environment name.
    pub fn names_other_environment(&self, environment: &Environment) -> Result<bool, Error> {
        for text in self.incoming.query.all("environment") {
            if !text.is_empty() && parse_environment(text)? != *environment {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `?environment=`, when the request has one.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no environment name.
    pub fn named_environment(&self) -> Result<Option<Environment>, Error> {
        match self.query("environment") {
            None | Some("") => Ok(None),
            Some(text) => parse_environment(text).map(Some),
        }
    }

    /// The `{environment}` of the path.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no environment name.
    pub fn environment_in_path(&self) -> Result<Environment, Error> {
        parse_environment(self.parameter("environment"))
    }

    /// `?page=` and `?pageSize=`, or the first fifty. A size that is no whole number in its range counts
    /// as absent, as clients of the existing service know it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the page is no whole number in its range. On routes that the existing service
    /// lacked, also for an empty one.
    pub fn page(&self) -> Result<Page, Error> {
        let number = |text: &str, most: u32| {
            let number = text.parse().ok();
            number.filter(|number| (1..=most).contains(number))
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
            let message = format!("Must be an integer from 1 to {LAST_PAGE} (got {got})");
            Error::invalid_field("page", message)
        })?;
        let size = self.query("pageSize");
        Ok(Page {
            number: page,
            size: size
                .and_then(|text| number(text, LARGEST_PAGE_SIZE))
                .unwrap_or(DEFAULT_PAGE_SIZE),
        })
    }

    /// The page that the query names; none when it names neither `page` nor `pageSize`, and the whole list is
    /// meant.
    ///
    /// # Errors
    /// Those of [`Self::page`].
    pub fn page_if_any(&self) -> Result<Option<Page>, Error> {
        let is_named = ["page", "pageSize"]
            .into_iter()
            .any(|name| self.query(name).is_some());
        is_named.then(|| self.page()).transpose()
    }

    /// A switch in the query: `true`, or `false` as when it is absent.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is neither. An empty one is neither: `?dryRun` must not import.
    pub fn switch(&self, name: &str) -> Result<bool, Error> {
        match self.query(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::invalid_field(name, "Expected true or false")),
        }
    }

    /// `?environment=`, or production.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no environment name.
    pub fn environment(&self) -> Result<Environment, Error> {
        let named = self.named_environment()?;
        Ok(named.unwrap_or_else(Environment::production))
    }

    /// Who asks: the subject of a token that the gateway or this function has verified, else
    /// `?userId=` where that is believed, else nobody. The issuer is asked for its keys when the
    /// first token comes.
    pub async fn user(&self, app: &App) -> Option<UserId> {
        let mut user = self.incoming.claims.as_ref().and_then(Claims::user);
        if user.is_none()
            && let (Some(tokens), Some(token)) = (&app.tokens, self.bearer_token())
        {
            user = tokens.user(token).await;
        }
        if user.is_none() && app.config.auth.trust_user_id_parameter {
            user = UserId::parse(self.query("userId")?);
        }
        user
    }

    /// Proof that an admin asks.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::Forbidden`].
    pub fn admin(&self, config: &AuthConfig) -> Result<Admin, Error> {
        let verify = || {
            let Incoming {
                claims, headers, ..
            } = &self.incoming;
            Admin::verify(claims.as_ref(), headers, config)
        };
        self.admin.get_or_init(verify).clone()
    }

    /// Whether the caller says that it has the answer with this tag (`If-None-Match`).
    #[must_use]
    pub fn has(&self, tag: &ETag) -> bool {
        self.incoming
            .headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| tag.is_named_by(value))
    }

    /// Which state the caller wants to change (`If-Match`).
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is neither `*` nor a list of tags of what admins change: it could
    /// never be met, and the caller would look for somebody else's change.
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
        tags.map(|tag| {
            tag.trim_ascii()
                .strip_prefix(b"\"")
                .and_then(|rest| rest.strip_suffix(b"\""))
                .and_then(|inner| std::str::from_utf8(inner).ok()?.parse::<i64>().ok())
        })
        .collect::<Option<Vec<i64>>>()
        .map(Expected::OneOf)
        .ok_or_else(|| Error::invalid_field("If-Match", NO_TAG))
    }

    /// What to say to a request that this function does not answer: 405 where the path has other
    /// methods, else 404. Where only admins may look, a caller without a verified identity learns
    /// neither.
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

    /// The local server's word for the key of the request.
    pub(crate) fn vouched_key(&self) -> Option<VouchedKey> {
        self.incoming.vouched_key
    }

    /// Where this request should go instead, when it asks for an evaluation by a path with empty
    /// segments, as a base URL with a slash at its end makes them.
    pub(crate) fn moved_to(&self) -> Option<String> {
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

    /// A header, if it is there and is text.
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

    /// The parameters of the query that the route does not know.
    fn unknown_parameters(&self, endpoint: &Endpoint) -> Vec<String> {
        let mut unknown: Vec<String> = Vec::new();
        for (name, value) in self.incoming.query.pairs() {
            let nothing = name.is_empty() && value.is_empty();
            let known = endpoint.query.contains(&name.as_str());
            let name = if name.is_empty() { NO_NAME } else { name };
            if !nothing && !known && !unknown.iter().any(|found| found == name) {
                unknown.push(name.to_owned());
            }
        }
        unknown
    }

    /// The parameters of the query that the route ignores.
    pub(crate) fn ignored_parameters(&self) -> Vec<String> {
        match self.route() {
            Some(endpoint) if endpoint.unknown_parameters == UnknownParameters::Ignored => {
                self.unknown_parameters(endpoint)
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Checks the query as a whole.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a parameter that the route does not know and does not ignore, or that
    /// stands there twice with different values: nobody can say which of them is meant.
    pub(crate) fn check_parameters(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut errors = FieldErrors::default();
        if endpoint.unknown_parameters == UnknownParameters::Ignored {
            // Clients of the existing service may send anything, but a change is for one environment.
            if endpoint.is_admin() {
                self.must_be_unique("environment", &mut errors);
            }
            return errors.none();
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
            self.must_be_unique(name, &mut errors);
        }
        errors.none()
    }

    fn must_be_unique(&self, name: &str, errors: &mut FieldErrors) {
        let query = &self.incoming.query;
        let first = query.first(name);
        if query.all(name).any(|value| Some(value) != first) {
            errors.add(name, "Stands in the query twice, with different values");
        }
    }

    /// Whether this asks for flags in the form of the existing service, which has always answered for
    /// environments that do not exist.
    pub(crate) fn is_for_public_flags(&self) -> bool {
        self.route()
            .is_some_and(|endpoint| !endpoint.is_admin() && !endpoint.is_ofrep())
    }

    /// A parameter of the query, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.incoming.query.first(name)
    }
}

fn parse_environment(text: &str) -> Result<Environment, Error> {
    Environment::parse(text).map_err(|error| Error::invalid_field("environment", error.to_string()))
}

/// What cannot stand in the path of a URI: RFC 3986, section 3.3.
const NOT_IN_A_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A path for a `Location`: what a gateway has decoded is encoded again, and what is encoded stays.
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

/// A path with `*` in the place of everything that is not a word of some route.
fn shape_of(path: &str) -> String {
    /// As many segments as tell what was meant.
    const MOST: usize = 8;
    let is_word = |segment: &str| {
        let mut routes = ENDPOINTS.iter();
        routes.any(|endpoint| endpoint.path.split('/').any(|word| word == segment))
    };
    let mut segments = path.split('/').skip(1);
    let mut shape = String::new();
    for segment in segments.by_ref().take(MOST) {
        shape.push('/');
        shape.push_str(if is_word(segment) { segment } else { "*" });
    }
    if segments.next().is_some() {
        shape.push_str("/…");
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_path_has_no_names_in_it() {
        for (path, shape) in [
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
            assert_eq!(shape_of(path), shape);
        }
        assert!(shape_of(&"/x".repeat(5_000)).len() < 30);
    }

    #[test]
    fn a_decoded_path_is_encoded_for_a_location_and_an_encoded_one_stays() {
        for (path, expected) in [
            ("/flags/a%2Fb", "/flags/a%2Fb"),
            ("/flags/a b", "/flags/a%20b"),
            ("/flags/100%", "/flags/100%25"),
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
        let scope = Arc::new(RequestContext::begin(Duration::from_millis(400)));
        Request::new(incoming, scope, PublicConfigRoutes::Open)
    }

    #[test]
    fn if_match_is_any_state_or_a_list_of_numbers_or_refused() {
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
                Ok(Expected::Unspecified) => panic!("there is a header"),
                Err(error) => assert!(matches!(error, Error::Invalid(_))),
            }
            // As If-None-Match, the same text names a tag only if the tag is part of it, or any.
            let tag = ETag::of(Revision(7));
            if tag.is_named_by(&text) {
                assert!(text.contains(tag.as_str()) || text.contains('*'), "{text}");
            }
        });
    }

    #[test]
    fn every_path_and_query_lead_to_a_route_or_an_error() {
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
                assert!((1..=LARGEST_PAGE_SIZE).contains(&page.size));
            }
            let _any = (
                request.item("userId"),
                request.switch("permanently"),
                request.place(),
            );
            let _flag = request.asked_flag();
            let _error = request.route_not_found();
            if let Some(location) = request.moved_to() {
                assert!(
                    location.starts_with('/') && !location.starts_with("//"),
                    "{location}"
                );
                HeaderValue::from_str(&location).expect("a header can hold it");
            }
        });
    }
}
