//! The HTTP server, with the two evaluation routes of OFREP. Evaluations have the response bodies of the service.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Incoming, MAX_BODY_SIZE, Match, OfrepPath, Query};
use pennon_core::ofrep::{self, ApiClient};
use pennon_core::ofrep_format::Failure;
use serde_json::json;
use tokio::net::TcpListener;

use crate::evaluator::{Evaluator, NoFlags};

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, evaluator: Arc<Evaluator>) -> Result<(), String> {
    let router = axum::Router::new().fallback(answer).with_state(evaluator);
    axum::serve(listener, router)
        .await
        .map_err(|error| error.to_string())
}

async fn answer(State(evaluator): State<Arc<Evaluator>>, request: Request<Body>) -> Response<Body> {
    let response = respond(&evaluator, request).await;
    response.map(|body| Body::from(body.to_vec()))
}

async fn respond(evaluator: &Arc<Evaluator>, request: Request<Body>) -> http::Response {
    let (parts, body) = request.into_parts();
    let failed = |error: &Error, path: &OfrepPath| ofrep::error_reply(error, path);
    let path = match OfrepPath::of(parts.uri.path()) {
        Some(path @ (OfrepPath::Bulk | OfrepPath::Single(_))) => path,
        Some(OfrepPath::Unknown) | None => {
            return failed(&Error::RouteNotFound, &OfrepPath::Unknown);
        }
    };
    if parts.method != Method::POST {
        let allow = "POST".to_owned();
        return failed(&Error::MethodNotAllowed { allow }, &path);
    }
    let body = match Limited::new(body, MAX_BODY_SIZE).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let error = if error.is::<LengthLimitError>() {
                let limit = MAX_BODY_SIZE;
                Error::TooLarge { limit }
            } else {
                Error::malformed_body()
            };
            return failed(&error, &path);
        }
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    if let Match::Found(endpoint, _) = http::find("POST", parts.uri.path())
        && let Err(error) = query.check(endpoint)
    {
        return failed(&error, &path);
    }
    let caller = match evaluator.read().await {
        Ok(caller) => caller,
        Err(NoFlags::KeyRejected) => return key_rejected(path.key()),
        Err(NoFlags::NotReady) => return not_ready(path.key()),
    };
    match query.names_other_environment(&caller.environment) {
        Ok(false) => {}
        Ok(true) => return failed(&Error::OtherEnvironment, &path),
        Err(error) => return failed(&error, &path),
    }
    let incoming = Incoming {
        headers: parts.headers,
        ..Incoming::default()
    };
    let response = match path.key() {
        Some(key) => single(evaluator, &caller, key, &body),
        None => bulk(evaluator, &caller, &body, &incoming),
    };
    http::with_cache_headers(response, &caller.reading)
}

/// One flag, as from the function `evaluate-flag`.
fn single(evaluator: &Evaluator, caller: &ApiClient, key: &str, body: &[u8]) -> http::Response {
    let outcome = ofrep::parse(body).and_then(|context| {
        let item = caller.evaluate(key, &context)?;
        let response = item.answer()?;
        evaluator.tally.add(&caller.environment, [item.served()]);
        Ok(response)
    });
    outcome.unwrap_or_else(|failure| failure.answer(Some(key)))
}

/// All flags, as from the function `evaluate-flags`.
fn bulk(
    evaluator: &Evaluator,
    caller: &ApiClient,
    body: &[u8],
    incoming: &Incoming,
) -> http::Response {
    let (context, digest) = match ofrep::parse_with_digest(body) {
        Ok(parsed) => parsed,
        Err(failure) => return failure.answer(None),
    };
    let revision = caller.reading.snapshot.revision;
    let tag = ETag::for_context(revision, &caller.environment, caller.kind, &digest);
    caller.answer_all(incoming, &context, &tag, &evaluator.tally)
}

/// 401: the service rejected the key in the setting of the extension. HTTP requires a challenge.
fn key_rejected(key: Option<&str>) -> http::Response {
    let details =
        "The service rejected the key of the extension; set PENNON_SYNC_KEY to a valid sync key";
    let failure = Failure::general(StatusCode::UNAUTHORIZED, details);
    http::with_header(failure.answer(key), "www-authenticate", "Bearer")
}

/// 503: SDKs use the application's default values, and try again at their next evaluation or poll.
fn not_ready(key: Option<&str>) -> http::Response {
    let details = "The flags have not been fetched yet; the log of the extension has the reason";
    let mut body = json!({ "errorCode": "PROVIDER_NOT_READY", "errorDetails": details });
    if let Some(key) = key {
        body["key"] = key.into();
    }
    let response = http::json(StatusCode::SERVICE_UNAVAILABLE, &body);
    http::with_header(response, "retry-after", "1")
}
