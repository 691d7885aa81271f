//! What a browser wants to hear before it lets a page ask, and before it shows the page the answer.
//!
//! The functions say it themselves, route by route. What an HTTP API can be configured to say holds for
//! all of its routes and replaces what functions say, so pages that may read flags could change them too.
//!
//! Any page may read public routes by default: no browser sends a key by itself as it would a cookie.
//! Admin routes are closed to pages unless their origins are named.

use lambda_http::Body;
use lambda_http::http::{HeaderMap, StatusCode, header};

use super::reply::{Response, with_header};
use super::route::Match;
use crate::config::CorsConfig;

/// As long as the browsers that grant the most will remember a preflight (two hours).
const REMEMBER_SECONDS: &str = "7200";
/// The headers that a page may send to a public route, and read from its answer.
const PUBLIC_REQUEST: &str = "Authorization, Content-Type, If-None-Match, X-API-Key";
const PUBLIC_ANSWER: &str = "Allow, ETag, Retry-After, WWW-Authenticate, X-Cache-Hit, X-Cache-Source, \
    X-Ignored-Parameters, X-Request-Id, X-Unknown-Environment";
/// The same for admin routes.
const ADMIN_REQUEST: &str = "Authorization, Content-Type, If-Match, If-None-Match";
const ADMIN_ANSWER: &str = "Allow, ETag, Retry-After, X-Cache-Invalidated, X-Ignored-Fields, \
    X-Ignored-Parameters, X-Request-Id";

/// What browsers are told about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    admin: bool,
    /// The value of `Access-Control-Allow-Origin`; none where the page may not read the answer.
    allowed: Option<String>,
    /// Another origin would have been answered otherwise, which caches must know.
    by_origin: bool,
}

impl Cors {
    /// Decides about a request. Unknown paths count as public, so that pages can read their 404.
    #[must_use]
    pub fn of(config: &CorsConfig, found: &Match, headers: &HeaderMap) -> Self {
        use crate::config::Origins::{Any, Named};
        let admin = match found {
            Match::Found(endpoint, _) | Match::OtherMethod { endpoint, .. } => endpoint.is_admin(),
            Match::UnknownAdmin => true,
            Match::Unknown => false,
        };
        let named = match (&config.public, admin) {
            (Any, false) => {
                return Self {
                    admin,
                    allowed: Some("*".to_owned()),
                    by_origin: false,
                };
            }
            (Named(named), false) => named,
            (Any | Named(_), true) => &config.admin,
        };
        let origin = origin_of(headers).filter(|origin| named.iter().any(|it| it == origin));
        Self {
            admin,
            allowed: origin.map(str::to_owned),
            by_origin: !named.is_empty(),
        }
    }

    /// Adds what lets a page read this answer, an error as well as any other.
    #[must_use]
    pub fn expose(&self, response: Response) -> Response {
        let response = if self.by_origin {
            with_header(response, "vary", "Origin")
        } else {
            response
        };
        let Some(origin) = &self.allowed else {
            return response;
        };
        let response = with_header(response, "access-control-allow-origin", origin);
        let exposed = if self.admin {
            ADMIN_ANSWER
        } else {
            PUBLIC_ANSWER
        };
        with_header(response, "access-control-expose-headers", exposed)
    }

    /// The answer to `OPTIONS`, which is a browser's question before the first request of a page. `allow`
    /// are the methods of the path.
    pub(crate) fn preflight(&self, allow: &str) -> Response {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let response = with_header(response, "allow", allow);
        if self.allowed.is_none() {
            return response;
        }
        let headers = if self.admin {
            ADMIN_REQUEST
        } else {
            PUBLIC_REQUEST
        };
        let response = with_header(response, "access-control-allow-methods", allow);
        let response = with_header(response, "access-control-allow-headers", headers);
        with_header(response, "access-control-max-age", REMEMBER_SECONDS)
    }
}

/// The origin of the page that asks. Browsers send one; two are nobody's.
fn origin_of(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::ORIGIN).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => only.to_str().ok(),
        (Some(_) | None, _) => None,
    }
}
