//! The CORS headers of responses.
//!
//! Functions set them by route. The CORS configuration of an HTTP API would apply to all routes and replace the
//! functions' headers, so that pages which may read flags could also use admin routes.
//!
//! By default, pages of any origin may read public routes: a browser does not add keys to requests by itself, as it
//! does cookies. Admin routes are closed to pages unless their origins are configured.

use lambda_http::Body;
use lambda_http::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::reply::{Response, with_added_vary, with_fixed_header, with_header};
use super::route::Match;
use crate::config::CorsConfig;

/// How long browsers may cache a preflight. Chrome caps it at two hours.
const MAX_AGE_SECONDS: &str = "7200";
/// The headers that a page may send to public routes.
const PUBLIC_REQUEST: &str = "Authorization, Content-Type, If-None-Match, X-API-Key";
/// The headers that a page may read from responses of public routes.
const PUBLIC_RESPONSE: &str = "Allow, ETag, Retry-After, WWW-Authenticate, X-Cache-Hit, X-Cache-Source, \
    X-Ignored-Parameters, X-Request-Id, X-Unknown-Environment";
/// Like [`PUBLIC_REQUEST`], for admin routes.
const ADMIN_REQUEST: &str = "Authorization, Content-Type, If-Match, If-None-Match";
/// Like [`PUBLIC_RESPONSE`], for admin routes.
const ADMIN_RESPONSE: &str = "Allow, ETag, Retry-After, X-Cache-Invalidated, X-Ignored-Fields, \
    X-Ignored-Parameters, X-Omitted-Counts, X-Omitted-Schedules, X-Request-Id";

/// The CORS decision about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    admin: bool,
    /// The value of `Access-Control-Allow-Origin`; none if the page may not read the response.
    allowed: Option<HeaderValue>,
    /// Whether the headers depend on the origin, so that caches need `Vary`.
    by_origin: bool,
}

impl Cors {
    /// Decides about a request. Unknown paths outside of `/admin/` count as public, so that pages can read their 404.
    #[must_use]
    pub fn of(config: &CorsConfig, found: &Match, headers: &HeaderMap) -> Self {
        use crate::config::Origins::{Any, Named};
        // Only pages of the same origin may read the files of the console.
        if found.is_page() {
            return Self {
                admin: false,
                allowed: None,
                by_origin: false,
            };
        }
        let admin = match found {
            Match::Found(endpoint, _) | Match::OtherMethod { endpoint, .. } => endpoint.is_admin(),
            Match::UnknownAdmin => true,
            Match::Unknown => false,
        };
        let named = match (&config.public, admin) {
            (Any, false) => {
                return Self {
                    admin,
                    allowed: Some(HeaderValue::from_static("*")),
                    by_origin: false,
                };
            }
            (Named(named), false) => named,
            (Any | Named(_), true) => &config.admin,
        };
        let is_named = |origin: &&HeaderValue| named.iter().any(|one| *origin == one);
        let origin = origin_of(headers).filter(is_named);
        Self {
            admin,
            allowed: origin.cloned(),
            by_origin: !named.is_empty(),
        }
    }

    /// Adds the headers that let a page read the response, including errors.
    #[must_use]
    pub fn expose(&self, response: Response) -> Response {
        let response = if self.by_origin {
            with_added_vary(response, "Origin")
        } else {
            response
        };
        let Some(origin) = &self.allowed else {
            return response;
        };
        let mut response = response;
        let allowed = header::ACCESS_CONTROL_ALLOW_ORIGIN;
        response.headers_mut().insert(allowed, origin.clone());
        let exposed = if self.admin {
            ADMIN_RESPONSE
        } else {
            PUBLIC_RESPONSE
        };
        with_fixed_header(response, "access-control-expose-headers", exposed)
    }

    /// The response to a preflight, `OPTIONS`, which browsers send before a page's request. `allow` lists the methods
    /// of the path.
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
        with_header(response, "access-control-max-age", MAX_AGE_SECONDS)
    }
}

/// The origin of the page. Browsers send exactly one; several are ignored.
fn origin_of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut values = headers.get_all(header::ORIGIN).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => Some(only),
        (Some(_) | None, _) => None,
    }
}
