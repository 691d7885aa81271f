//! HTTP on both sides of a handler: requests, responses, and the table of routes.

mod body;
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

pub use crate::timestamp::{timestamp, unix_seconds};
pub use body::{parse_change, take_change};
pub use cors::Cors;
pub use etag::ETag;
pub use fields::{Fields, must_have_few_values, not_json};
pub use flag_state::FlagState;
pub use incoming::{Incoming, LARGEST_BODY, Query, VouchedKey};
pub use listing::{audit_page, fitting, leave_out_what_is_large, listed, pagination};
pub use path::OfrepPath;
pub(crate) use reply::moved;
pub use reply::{
    LARGEST_ANSWER, Response, beyond_lambda, error_reply, header_list, json, no_content,
    not_modified, with_header,
};
pub use request::Request;
pub(crate) use route::PREFIX;
pub use route::{
    Authorization, ENDPOINTS, Endpoint, Match, Parameters, UnknownParameters, decoded, find,
    find_template,
};
pub use settings::{fractional, parse_settings};

pub use crate::id::unique_id;
use lambda_http::http::StatusCode;

use crate::service::{Reading, Source};
use crate::telemetry::CacheOutcome;

/// Adds what every answer about flags says about its making: `X-Cache-Hit`, `X-Cache-Source`, and
/// that it may be kept but not used without asking.
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
    let response = with_header(response, "x-cache-hit", hit);
    let response = with_header(response, "x-cache-source", source);
    with_header(response, "cache-control", "private, no-cache")
}

/// Tags an answer. When it depends on the time as well, its own content makes the tag, and a caller who
/// has that content is told so instead.
#[must_use]
pub fn tagged(response: Response, tag: &ETag, by_time: bool, request: &Request) -> Response {
    if !by_time || response.status() != StatusCode::OK {
        return with_header(response, "etag", tag.as_str());
    }
    let tag = tag.with_body(response.body());
    if request.has(&tag) {
        not_modified(&tag)
    } else {
        with_header(response, "etag", tag.as_str())
    }
}

/// Adds the names in a body that mean nothing, for whoever wonders why nothing became of them; the log
/// tells them too.
#[must_use]
pub fn with_ignored_fields(response: Response, ignored: &[String], request: &Request) -> Response {
    if ignored.is_empty() {
        return response;
    }
    request.scope().trace.ignored_fields(ignored);
    with_header(response, "x-ignored-fields", &header_list(ignored))
}

/// Adds what every answer to a change says: whether Redis could be told, where there is one.
#[must_use]
pub fn with_invalidation(response: Response, invalidated: Option<bool>) -> Response {
    match invalidated {
        Some(true) => with_header(response, "x-cache-invalidated", "true"),
        Some(false) => with_header(response, "x-cache-invalidated", "false"),
        None => response,
    }
}
