//! What happens around every handler, on Lambda and locally: an id, a time, a record, an answer
//! whatever happens, and one log line.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lambda_http::Body;
use lambda_http::http::{Method, header};
use serde_json::json;

use crate::app::App;
use crate::error::Error;
use crate::http::{
    Cors, ENDPOINTS, Endpoint, Incoming, LARGEST_ANSWER, LARGEST_BODY, Match, OfrepPath, Request,
    Response, beyond_lambda, error_reply, header_list, json, moved, with_header,
};
use crate::id::unique_id;
use crate::ofrep;
use crate::request_context::RequestContext;
use crate::telemetry::RequestLine;

/// The time limit for change events after the commit of a request. `reconcile` sends the remaining ones.
const PUBLISH_WITHIN: Duration = Duration::from_millis(300);

/// Runs the handler of a function and answers, whatever it does. The handler gets the requests to the
/// routes of its function; all others are answered here, the same by every function.
pub async fn answer<H, F>(
    app: Arc<App>,
    function: &'static str,
    handle: H,
    incoming: Incoming,
) -> Response
where
    H: FnOnce(Arc<App>, Request) -> F,
    F: Future<Output = Result<Response, Error>>,
{
    let scope = Arc::new(RequestContext::begin(app.config.cache.request_budget));
    let method = incoming.method.clone();
    let request_id = incoming.request_id.clone().unwrap_or_else(unique_id);
    let request = Request::new(incoming, scope.clone(), app.config.auth.public_config);
    let cors = Cors::of(
        &app.config.cors,
        request.found(),
        &request.incoming().headers,
    );
    let shape = request.shape();
    let only_method = request
        .route()
        .is_some_and(|endpoint| endpoint.is_alone() && method == endpoint.method);
    let place = request
        .place()
        .or_else(|| place_of_defect(&request, function));

    let may_change = request
        .route()
        .is_some_and(|endpoint| endpoint.is_admin() && endpoint.method != "GET");
    let ignored = request.ignored_parameters();
    let of_flags = request.is_for_public_flags();
    let handled = respond(app.clone(), function, handle, request, &cors).await;
    if may_change
        && handled.is_ok()
        && let Some(bus) = app.bus()
    {
        app.service.publish_after_change(bus, PUBLISH_WITHIN).await;
    }
    app.service.store().end_of_request().await;
    let response = handled.unwrap_or_else(|error| {
        report(&error, &scope);
        let error = error.bounded();
        match &place {
            Some(place) => ofrep::error_reply(&error, place),
            None => error_reply(&error),
        }
    });
    let response = cors.expose(response);
    let response = if ignored.is_empty() {
        response
    } else {
        with_header(response, "x-ignored-parameters", &header_list(&ignored))
    };
    let facts = scope.trace.facts();
    let response = if of_flags && facts.unknown_environment {
        with_header(response, "x-unknown-environment", "true")
    } else {
        response
    };
    let response = if method == Method::HEAD {
        without_body(response)
    } else {
        response
    };

    let cache = app.service.cache();
    let evaluations = app
        .instance
        .reports_counts()
        .then(|| app.tally.due(Instant::now()));
    app.instance.write(&RequestLine {
        method: method.as_str(),
        reported_method: (!only_method).then_some(method.as_str()),
        path: &shape,
        status: response.status().as_u16(),
        request_id: &request_id,
        duration: scope.arrived.elapsed(),
        cold_start: app.is_first_request(),
        connections: cache.map_or(0, crate::cache::Cache::connections),
        breaker_open: cache.is_some_and(crate::cache::Cache::is_breaker_open),
        cluster: cache.is_some_and(crate::cache::Cache::is_cluster),
        facts: &facts,
        evaluations: evaluations.flatten(),
    });
    with_header(response, "x-request-id", &request_id)
}

/// The answer to a request, by the handler if the request is for one of its routes.
async fn respond<H, F>(
    app: Arc<App>,
    function: &'static str,
    handle: H,
    request: Request,
    cors: &Cors,
) -> Result<Response, Error>
where
    H: FnOnce(Arc<App>, Request) -> F,
    F: Future<Output = Result<Response, Error>>,
{
    if let Some(defect) = &request.incoming().defect {
        return Err(Error::invalid_form(defect));
    }
    if request.body().len() > LARGEST_BODY {
        return Err(Error::TooLarge { most: LARGEST_BODY });
    }
    let ours = |endpoint: &&Endpoint| endpoint.function == function;
    let Some(endpoint) = request.route().filter(ours) else {
        return elsewhere(&request, cors);
    };
    if endpoint.is_admin() {
        // Who may not ask learns nothing of what is wrong with the question.
        request.admin(&app.config.auth)?;
    }
    request.check_parameters(endpoint)?;
    AssertUnwindSafe(Box::pin(handle(app, request)))
        .catch_unwind()
        .await
        .unwrap_or_else(|_panic| Err(Error::Internal("the handler panicked".to_owned())))
        .and_then(|response| within_lambda(response, endpoint))
}

/// The last resort for an answer that Lambda would not take, which would count as an error of the function.
/// Lists and large values are made smaller where they are written; what is left are rows that no route of
/// ours has written.
fn within_lambda(response: Response, endpoint: &Endpoint) -> Result<Response, Error> {
    let Some(size) = beyond_lambda(&response) else {
        return Ok(response);
    };
    if endpoint.method == "GET" {
        return Err(Error::Conflict(format!(
            "The answer would have {size} bytes, more than the {LARGEST_ANSWER} that fit; ask for less, \
             such as a page with a smaller pageSize"
        )));
    }
    // It is done, and an error would say that it is not.
    let mut short = json(response.status(), &json!({ "omittedBytes": size }));
    for (name, value) in response.headers() {
        short.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(short)
}

/// Where in OFREP a request led of which not even the path is known: the clients of a function that
/// answers this protocol read nothing else.
fn place_of_defect(request: &Request, function: &str) -> Option<OfrepPath> {
    request.incoming().defect.as_ref()?;
    let mut routes = ENDPOINTS
        .iter()
        .filter(|endpoint| endpoint.function == function);
    let speaks_ofrep = routes.any(Endpoint::is_ofrep);
    (speaks_ofrep && request.path().len() < 2).then_some(OfrepPath::Unknown)
}

/// The answer to a request that is for no route of this function.
fn elsewhere(request: &Request, cors: &Cors) -> Result<Response, Error> {
    let by_options = request.incoming().method == Method::OPTIONS;
    match (request.found(), request.place()) {
        (Match::OtherMethod { allow, .. }, _) if by_options => Ok(cors.preflight(allow)),
        (Match::Unknown, Some(_)) if by_options => Ok(cors.preflight("POST, OPTIONS")),
        (_, Some(OfrepPath::Bulk | OfrepPath::Single(_))) => match request.moved_to() {
            Some(path) => Ok(moved(&path)),
            None => Err(request.route_not_found()),
        },
        (_, Some(OfrepPath::Unknown) | None) => Err(request.route_not_found()),
    }
}

/// The answer to `HEAD`: what `GET` is answered, and how long its body would be.
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

/// An error that the caller cannot mend is told in the log, once, here.
fn report(error: &Error, scope: &RequestContext) {
    let kind = match error {
        Error::Invalid(_) => "validation",
        Error::Unauthenticated | Error::NoKey => "unauthenticated",
        Error::Forbidden | Error::OtherEnvironment => "forbidden",
        Error::FlagNotFound(_) => "flag_not_found",
        Error::NotFound(_) => "not_found",
        Error::Conflict(_) => "conflict",
        Error::InvalidState(_) => "invalid_state",
        Error::PreconditionFailed => "precondition_failed",
        Error::PreconditionRequired => "precondition_required",
        Error::RateLimited { .. } => "rate_limited",
        Error::RouteNotFound => "route_not_found",
        Error::MethodNotAllowed { .. } => "method_not_allowed",
        Error::Unavailable(why) | Error::StoreFile(why) => {
            tracing::error!(domain = "config", error = %why, "cannot answer");
            "unavailable"
        }
        Error::TooLarge { .. } => "too_large",
        Error::Internal(why) => {
            tracing::error!(domain = "config", error = %why, "a defect");
            "internal"
        }
    };
    scope.trace.failed(kind);
}
