//! HTTP on both sides of a handler: requests in, responses out, and what every route has in common.

mod body;
mod etag;
mod fields;
mod flag_state;
mod listing;
mod reply;
mod request;
mod route;
mod serve;
mod settings;

pub use crate::timestamp::timestamp;
pub use body::{parse_change, take_change};
pub use etag::ETag;
pub use fields::Fields;
pub use flag_state::FlagState;
pub use listing::{audit_page, pagination};
pub use reply::{Response, header_list, json, no_content, not_modified, with_header};
pub use request::Request;
pub use route::{ENDPOINTS, Endpoint, Match, Parameters, find};
pub use serve::answer;
pub use settings::{fractional, parse_settings};

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

/// Adds what every answer to a change says: whether Redis could be told, where there is one.
#[must_use]
pub fn with_invalidation(response: Response, invalidated: Option<bool>) -> Response {
    match invalidated {
        Some(true) => with_header(response, "x-cache-invalidated", "true"),
        Some(false) => with_header(response, "x-cache-invalidated", "false"),
        None => response,
    }
}
