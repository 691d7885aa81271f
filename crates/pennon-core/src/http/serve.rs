//! What happens around every handler, on Lambda and locally: an id, a time, a record, an answer
//! whatever happens, and one log line.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;

use super::reply::{Response, error_reply, with_header};
use super::request::Request;
use crate::app::App;
use crate::error::Error;
use crate::id::unique_id;
use crate::ofrep::{self, Place};
use crate::service::Scope;
use crate::telemetry::RequestLine;

/// Larger bodies are refused. Lambda passes on 6 MB, in which every quotation mark of a body takes two
/// bytes; this leaves room for them, and for a file of all the flags that an import takes.
pub const LARGEST_BODY: usize = 4_000_000;

/// Runs a handler and answers, whatever it does.
pub async fn answer<H, F>(app: Arc<App>, handle: H, request: lambda_http::Request) -> Response
where
    H: FnOnce(Arc<App>, Request) -> F,
    F: Future<Output = Result<Response, Error>>,
{
    let scope = Arc::new(Scope::begin(app.config.cache.request_budget));
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let request_id = request_id(&request);
    let place = Place::of(&path);
    let request = Request::new(request, scope.clone());

    let handled = if request.body().len() > LARGEST_BODY {
        Err(Error::TooLarge { most: LARGEST_BODY })
    } else if place.is_some() && method == "OPTIONS" {
        Ok(ofrep::preflight())
    } else {
        AssertUnwindSafe(Box::pin(handle(app.clone(), request)))
            .catch_unwind()
            .await
            .unwrap_or_else(|_panic| Err(Error::Internal("the handler panicked".to_owned())))
    };
    let response = handled.unwrap_or_else(|error| {
        report(&error, &scope);
        match &place {
            Some(place) => ofrep::error_reply(&error, place),
            None => error_reply(&error),
        }
    });
    let response = match place {
        Some(_) => ofrep::with_cors(response),
        None => response,
    };

    let facts = scope.trace.facts();
    let cache = app.service.cache();
    let evaluations = app
        .instance
        .tells_counts()
        .then(|| app.tally.due(Instant::now()));
    app.instance.write(&RequestLine {
        method: &method,
        path: &path,
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

/// An error that the caller cannot mend is told in the log, once, here.
fn report(error: &Error, scope: &Scope) {
    let kind = match error {
        Error::Invalid(_) => "validation",
        Error::Unauthenticated => "unauthenticated",
        Error::Forbidden => "forbidden",
        Error::FlagNotFound(_) => "flag_not_found",
        Error::NotFound(_) => "not_found",
        Error::Conflict(_) => "conflict",
        Error::InvalidState(_) => "invalid_state",
        Error::Changed => "precondition_failed",
        Error::StateNotNamed => "precondition_required",
        Error::TooMany { .. } => "rate_limited",
        Error::RouteNotFound => "route_not_found",
        Error::Unavailable(why) | Error::FileOfNoUse(why) => {
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

/// The gateway's id of the request, or Lambda's, so that a caller and a log line can be matched.
fn request_id(request: &lambda_http::Request) -> String {
    let by_gateway = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
        Some(RequestContext::ApiGatewayV1(context)) => context.request_id.clone(),
        Some(_) | None => None,
    };
    by_gateway
        .or_else(|| {
            let context = request.lambda_context_ref()?;
            Some(context.request_id.clone())
        })
        .unwrap_or_else(unique_id)
}
