//! Requests, responses, and the table of routes.

mod body;
mod compression;
mod console_headers;
mod cors;
mod etag;
mod fields;
mod flag_state;
mod incoming;
mod listing;
mod path;
mod reply;
mod request;
mod route;
mod settings;

pub use crate::timestamp::{http_date, timestamp, unix_seconds};
pub use body::{parse_change, parse_change_with_users, take_change};
pub use compression::{AcceptedCompression, accepts_gzip, compressed};
pub use console_headers::{content_security_policy, with_console_headers};
pub use cors::Cors;
pub use etag::ETag;
pub use fields::{Fields, check_value_count, not_json};
pub use flag_state::FlagState;
pub use incoming::{Incoming, MAX_BODY_SIZE, Query, Routed, TrustedKey};
pub(crate) use listing::replace_largest;
pub use listing::{audit_page, list_body, omit_large_fields, pagination, take_fitting};
pub use path::OfrepPath;
pub use reply::{
    MAX_RESPONSE_SIZE, Response, error_reply, header_list, json, no_content, not_modified,
    size_above_limit, with_added_vary, with_fixed_header, with_header,
};
pub(crate) use reply::{is_json_string, json_body, permanent_redirect};
pub use request::Request;
pub(crate) use route::PREFIX;
pub use route::{
    Authorization, ENDPOINTS, Endpoint, Match, PAGES, Parameters, UnknownParameters, decoded, find,
    find_template,
};
pub use settings::{fractional, parse_settings, parse_settings_with_users};

use crate::service::{Reading, Source};
use crate::telemetry::CacheOutcome;

/// Adds `X-Cache-Hit`, `X-Cache-Source`, and a `Cache-Control` that lets clients store the response but makes them
/// revalidate it.
#[must_use]
pub fn with_cache_headers(response: Response, reading: &Reading) -> Response {
    let hit = if reading.cache == CacheOutcome::Hit {
        "true"
    } else {
        "false"
    };
    let source = match reading.source {
        Source::Memory => "memory",
        Source::Redis => "redis",
        Source::Database => "database",
        Source::Stale => "stale",
    };
    let response = with_fixed_header(response, "x-cache-hit", hit);
    let response = with_fixed_header(response, "x-cache-source", source);
    with_fixed_header(response, "cache-control", "private, no-cache")
}

/// Adds an `ETag`. If rules depend on the time, the tag also covers the body, and a caller that has the response with
/// this tag gets 304.
#[must_use]
pub(crate) fn with_etag(
    response: Response,
    tag: &ETag,
    depends_on_time: bool,
    has: impl Fn(&ETag) -> bool,
) -> Response {
    if !depends_on_time {
        return with_header(response, "etag", tag.as_str());
    }
    let tag = tag.with_body(response.body());
    if has(&tag) {
        not_modified(&tag)
    } else {
        with_header(response, "etag", tag.as_str())
    }
}

/// Lists ignored fields of the body in `X-Ignored-Fields` and in the log, so that a misspelled field is noticed.
#[must_use]
pub fn with_ignored_fields(response: Response, ignored: &[String], request: &Request) -> Response {
    if ignored.is_empty() {
        return response;
    }
    request.context().trace.ignored_fields(ignored);
    with_header(response, "x-ignored-fields", &header_list(ignored))
}

/// Adds `X-Cache-Invalidated`: whether Redis confirmed the invalidation. Omitted if nothing had to be invalidated.
#[must_use]
pub fn with_invalidation(response: Response, invalidated: Option<bool>) -> Response {
    match invalidated {
        Some(true) => with_header(response, "x-cache-invalidated", "true"),
        Some(false) => with_header(response, "x-cache-invalidated", "false"),
        None => response,
    }
}
