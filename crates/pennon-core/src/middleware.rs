//! Runs around every handler, on Lambda and locally: checks that the caller may use the route, turns errors and
//! panics into responses, and writes one log line per request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lambda_http::Body;
use lambda_http::http::{Method, header};
use serde_json::json;

use crate::app::App;
use crate::error::Error;
use crate::http::{
    AcceptedCompression, Authorization, Cors, ENDPOINTS, Endpoint, MAX_BODY_SIZE,
    MAX_RESPONSE_SIZE, Match, OfrepPath, Request, Response, Routed, error_reply, header_list, json,
    permanent_redirect, size_above_limit, with_console_headers, with_header,
};
use crate::id::unique_id;
use crate::key_uses::LastUses;
use crate::moment::Moment;
use crate::ofrep;
use crate::request_context::RequestContext;
use crate::telemetry::RequestLine;

/// The time limit for change events after the commit of a request. `reconcile` sends the remaining ones.
const PUBLISH_BUDGET: Duration = Duration::from_millis(300);

/// The future of a handler. It is boxed, so that the code around handlers is compiled once, not for each of them.
pub type Handling = BoxFuture<'static, Result<Response, Error>>;

/// Responds to a request. The handler receives only requests for the routes of its function; every function
/// responds to other requests in the same way.
pub async fn answer(
    app: Arc<App>,
    function: &'static str,
    handle: impl FnOnce(Arc<App>, Request) -> Handling,
    routed: Routed,
) -> Response {
    let context = Arc::new(RequestContext::begin(app.config.cache.request_budget));
    let method = routed.incoming.method.clone();
    let request_id = routed.incoming.request_id.clone().unwrap_or_else(unique_id);
    let request = Request::new(routed, context.clone(), app.config.auth.public_config);
    let cors = Cors::of(
        &app.config.cors,
        request.found(),
        &request.incoming().headers,
    );
    let path_template = request.path_template();
    let is_only_method = request
        .route()
        .is_some_and(|endpoint| endpoint.has_one_method() && method == endpoint.method);
    let ofrep_path = request
        .ofrep_path()
        .or_else(|| ofrep_path_of_malformed(&request, function));

    let may_change = request
        .route()
        .is_some_and(|endpoint| match endpoint.authorization {
            Authorization::Editor | Authorization::Admin => true,
            Authorization::Viewer
            | Authorization::Anyone
            | Authorization::PublicConfig
            | Authorization::ApiKey
            | Authorization::SyncKey => false,
        });
    let ignored = request.ignored_parameters();
    let is_public_config = request.is_for_public_config();
    let is_page = request.found().is_page();
    let handled = respond(app.clone(), function, handle, request, &cors).await;
    if may_change
        && handled.is_ok()
        && let Some(bus) = app.bus()
    {
        app.service.publish_after_change(bus, PUBLISH_BUDGET).await;
    }
    app.service.store().end_of_request().await;
    let response = handled.unwrap_or_else(|error| {
        report(&error, &context);
        let error = error.bounded();
        match &ofrep_path {
            Some(path) => ofrep::error_reply(&error, path),
            None => error_reply(&error),
        }
    });
    let response = cors.expose(response);
    let response = if ignored.is_empty() {
        response
    } else {
        with_header(response, "x-ignored-parameters", &header_list(&ignored))
    };
    let facts = context.trace.take();
    let response = if is_public_config && facts.unknown_environment {
        with_header(response, "x-unknown-environment", "true")
    } else {
        response
    };
    let response = if is_page {
        with_console_headers(response)
    } else {
        response
    };
    let response = if method == Method::HEAD {
        without_body(response)
    } else {
        response
    };

    let cache = app.service.cache();
    let reports_counts = app.log_writer.reports_counts();
    let evaluations = (reports_counts && facts.posted.is_none())
        .then(|| app.tally.due(Moment::now()))
        .flatten();
    let key_uses = if reports_counts {
        app.key_uses.take()
    } else {
        LastUses::new()
    };
    app.log_writer.write(&RequestLine {
        method: method.as_str(),
        reported_method: (!is_only_method).then_some(method.as_str()),
        path: &path_template,
        status: response.status().as_u16(),
        request_id: &request_id,
        duration: context.arrived.elapsed(),
        cold_start: app.is_first_request(),
        connections: cache.map_or(0, crate::cache::Cache::connections),
        breaker_open: cache.is_some_and(crate::cache::Cache::is_breaker_open),
        cluster: cache.is_some_and(crate::cache::Cache::is_cluster),
        facts: &facts,
        evaluations,
        key_uses,
        forged_entries: cache.map_or(0, crate::cache::Cache::take_forged_entries),
    });
    while let Some(counts) = app.tally.remaining() {
        app.log_writer.write_counts(&counts);
    }
    with_header(response, "x-request-id", &request_id)
}

/// Calls the handler if the request is for one of its routes.
async fn respond(
    app: Arc<App>,
    function: &'static str,
    handle: impl FnOnce(Arc<App>, Request) -> Handling,
    request: Request,
    cors: &Cors,
) -> Result<Response, Error> {
    if let Some(defect) = &request.incoming().malformed {
        return Err(Error::invalid_form(defect));
    }
    let is_own = |endpoint: &&Endpoint| endpoint.function == function;
    let Some(endpoint) = request.route().filter(is_own) else {
        return other_route(&request, cors);
    };
    if endpoint.is_admin() {
        // Before validation, so that errors disclose nothing to callers without the role.
        request.actor(&app.config.auth)?;
    }
    if request.body().len() > MAX_BODY_SIZE {
        return Err(Error::TooLarge {
            limit: MAX_BODY_SIZE,
        });
    }
    request.check_parameters(endpoint)?;
    let compression = AcceptedCompression::of(&request.incoming().headers, endpoint.is_admin());
    AssertUnwindSafe(handle(app, request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_panic| Err(Error::Internal("the handler panicked".to_owned())))
        .map(|response| compression.apply(response))
        .and_then(|response| bounded(response, endpoint))
}

/// Replaces a response that exceeds Lambda's limit, which would count as an error of the function. Handlers
/// shorten lists and large values themselves; rows written by SQL, and settings, can still be too large.
fn bounded(response: Response, endpoint: &Endpoint) -> Result<Response, Error> {
    let Some(size) = size_above_limit(&response) else {
        return Ok(response);
    };
    if endpoint.method == "GET" {
        let has_pages = endpoint.query.contains(&"pageSize");
        let advice = has_pages.then_some("; request a smaller pageSize");
        return Err(Error::Conflict(format!(
            "The response would have {size} bytes, more than the limit of {MAX_RESPONSE_SIZE}{}",
            advice.unwrap_or_default()
        )));
    }
    // A change may be committed, so the response must not be an error.
    let mut short = json(response.status(), &json!({ "omittedBytes": size }));
    let headers = response.headers().iter();
    for (name, value) in headers.filter(|(name, _)| *name != header::CONTENT_ENCODING) {
        short.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(short)
}

/// The OFREP path to assume if the event is malformed and its path unknown. Clients of a function with OFREP
/// routes can only read OFREP errors.
fn ofrep_path_of_malformed(request: &Request, function: &str) -> Option<OfrepPath> {
    request.incoming().malformed.as_ref()?;
    let mut routes = ENDPOINTS
        .iter()
        .filter(|endpoint| endpoint.function == function);
    let serves_ofrep = routes.any(Endpoint::is_ofrep);
    (serves_ofrep && request.path().len() < 2).then_some(OfrepPath::Unknown)
}

/// Responds to a request that matches no route of this function: a preflight, a redirect, 401, 404 or 405.
fn other_route(request: &Request, cors: &Cors) -> Result<Response, Error> {
    let is_options = request.incoming().method == Method::OPTIONS;
    match (request.found(), request.ofrep_path()) {
        (Match::OtherMethod { allow, .. }, _) if is_options => Ok(cors.preflight(allow)),
        (Match::Unknown, Some(_)) if is_options => Ok(cors.preflight("POST, OPTIONS")),
        // API Gateway may not match a route to a path that ends with a slash.
        (Match::Found(endpoint, _), _)
            if endpoint.is_page() && request.path().ends_with("/console/") =>
        {
            Ok(permanent_redirect(request.path().trim_end_matches('/')))
        }
        (_, Some(OfrepPath::Bulk | OfrepPath::Single(_))) => match request.redirect_target() {
            Some(path) => Ok(permanent_redirect(&path)),
            None => Err(request.route_not_found()),
        },
        (_, Some(OfrepPath::Unknown) | None) => Err(request.route_not_found()),
    }
}

/// The response to `HEAD`: that to `GET` without its body, but with its `Content-Length`.
fn without_body(mut response: Response) -> Response {
    let length = response.body().len();
    if length > 0 {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::Empty;
    response
}

/// Records the error for the log line of the request. Errors that the caller cannot fix are also logged with
/// their text, only here.
fn report(error: &Error, context: &RequestContext) {
    let kind = match error {
        Error::Invalid(_) => "validation",
        Error::Unauthenticated | Error::NoKey => "unauthenticated",
        Error::Forbidden(_) | Error::OtherEnvironment | Error::KeyKind(_) => "forbidden",
        Error::FlagNotFound(_) => "flag_not_found",
        Error::NotFound(_) => "not_found",
        Error::Conflict(_) => "conflict",
        Error::InvalidState(_) => "invalid_state",
        Error::PreconditionFailed | Error::ItemsChanged(_) => "precondition_failed",
        Error::PreconditionRequired => "precondition_required",
        Error::RateLimited { .. } => "rate_limited",
        Error::RouteNotFound => "route_not_found",
        Error::MethodNotAllowed { .. } => "method_not_allowed",
        Error::Unavailable(why) | Error::StoreFile(why) => {
            tracing::error!(
                domain = "config",
                error = %why,
                "the request failed because the store or a service is unavailable"
            );
            "unavailable"
        }
        Error::TooLarge { .. } | Error::ResponseTooLarge(_) => "too_large",
        Error::Internal(why) => {
            tracing::error!(domain = "config", error = %why, "the request failed because of a defect");
            "internal"
        }
    };
    context.trace.failed(kind);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_response_keeps_its_headers_except_that_of_its_compression() {
        let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.method == "PUT");
        let compressed = Response::new(Body::Binary(vec![0; MAX_RESPONSE_SIZE]));
        let compressed = with_header(compressed, "content-encoding", "zstd");
        let compressed = with_header(compressed, "x-cache-invalidated", "true");
        let short = bounded(compressed, endpoint.expect("a route")).expect("a response");
        assert!(matches!(short.body(), Body::Text(text) if text.contains("omittedBytes")));
        assert_eq!(short.headers().get("content-encoding"), None);
        assert!(short.headers().contains_key("x-cache-invalidated"));
    }
}
