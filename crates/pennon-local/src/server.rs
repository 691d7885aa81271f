//! HTTP on localhost: finds the route, does what API Gateway would do, and calls the handler.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use lambda_http::RequestExt;
use pennon_core::api_key::KeyText;
use pennon_core::app::App;
use pennon_core::auth::Claims;
use pennon_core::config::Secret;
use pennon_core::error::Error;
use pennon_core::http::{self, Match};
use pennon_core::ofrep::{self, Place, VouchedKey};
use tokio::net::TcpListener;

use crate::throttle::Throttle;

/// What stands between a request and its handler here, as the gateway does on AWS.
pub(crate) struct Gate {
    /// The admin's bearer token.
    pub(crate) admin_token: Secret,
    /// The API key of this server.
    pub(crate) api_key: KeyText,
    /// Limits evaluations.
    pub(crate) throttle: Option<Throttle>,
}

#[derive(Clone)]
struct Local {
    app: Arc<App>,
    gate: Arc<Gate>,
}

/// Serves until the process is told to stop.
pub(crate) async fn serve(listener: TcpListener, app: Arc<App>, gate: Gate) -> Result<(), String> {
    let router = axum::Router::new()
        .fallback(dispatch)
        .layer(axum::extract::DefaultBodyLimit::max(http::LARGEST_BODY))
        .with_state(Local {
            app,
            gate: Arc::new(gate),
        });
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped())
        .await
        .map_err(|error| error.to_string())
}

/// Ctrl-C, or SIGTERM from whatever started us.
async fn stopped() {
    let interrupted = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            }
        }
        Err(_) => {
            let _interrupted = interrupted.await;
        }
    }
}

async fn dispatch(
    State(local): State<Local>,
    request: Request<axum::body::Body>,
) -> Response<axum::body::Body> {
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str().to_owned();
    let path = parts.uri.path().to_owned();
    let place = Place::of(&path);
    let Ok(body) = axum::body::to_bytes(body, http::LARGEST_BODY).await else {
        let request = Request::from_parts(parts, lambda_http::Body::Empty);
        return whole(http::answer(local.app, too_large, request).await);
    };
    if let (Some(place), Some(throttle)) = (&place, &local.gate.throttle)
        && method == "POST"
        && let Err(retry_after) = throttle.admit(Instant::now())
    {
        return whole(ofrep::with_cors(ofrep::too_many(retry_after, place.key())));
    }
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let claims = verify(
        parts.headers.get(header::AUTHORIZATION),
        &local.gate.admin_token,
    );
    let vouched = vouch(&parts.headers, &local.gate.api_key);

    let mut request = Request::from_parts(parts, lambda_http::Body::Binary(body.to_vec()));
    if let Some(claims) = claims {
        request.extensions_mut().insert(claims);
    }
    if let Some(vouched) = vouched {
        request.extensions_mut().insert(vouched);
    }
    let found = http::find(&method, &path);
    let mut parameters: HashMap<String, String> = HashMap::new();
    if let Match::Found(_, found) = &found {
        for (name, text) in found {
            parameters.insert((*name).to_owned(), http::decoded(text));
        }
    }
    let request = request
        .with_path_parameters(parameters)
        .with_query_string_parameters(query_parameters(&query));

    let app = local.app.clone();
    let response = match found {
        Match::Found(endpoint, _) => match endpoint.function {
            "list-flags" => http::answer(app, list_flags::handle, request).await,
            "get-flag" => http::answer(app, get_flag::handle, request).await,
            "update-flag" => http::answer(app, update_flag::handle, request).await,
            "report-usage" => http::answer(app, report_usage::handle, request).await,
            "manage-keys" => http::answer(app, manage_keys::handle, request).await,
            "evaluate-flag" => http::answer(app, evaluate_flag::handle, request).await,
            "evaluate-flags" => http::answer(app, evaluate_flags::handle, request).await,
            "overrides" => http::answer(app, overrides::handle, request).await,
            "schedules" => http::answer(app, schedules::handle, request).await,
            "manage-flags" => http::answer(app, manage_flags::handle, request).await,
            "manage-environments" => http::answer(app, manage_environments::handle, request).await,
            "health" => http::answer(app, health::handle, request).await,
            _ => http::answer(app, not_found::handle, request).await,
        },
        Match::UnknownAdmin | Match::Unknown => http::answer(app, not_found::handle, request).await,
    };
    whole(response)
}

/// 413: what was sent was not even read.
async fn too_large(_app: Arc<App>, _request: http::Request) -> Result<http::Response, Error> {
    let most = http::LARGEST_BODY;
    Err(Error::TooLarge { most })
}

fn whole(response: http::Response) -> Response<axum::body::Body> {
    response.map(|body| axum::body::Body::from(body.to_vec()))
}

/// The claims of the one token that there is. They are made here, after the comparison, the way
/// API Gateway's authorizer makes them after checking a signature.
fn verify(authorization: Option<&HeaderValue>, admin_token: &Secret) -> Option<Claims> {
    let sent = authorization?.to_str().ok()?.strip_prefix("Bearer ")?;
    (sent == admin_token.expose())
        .then(|| Claims::trusted(&[("sub", "local-admin"), ("cognito:groups", "[admin]")]))
}

/// This server's word for its own key, which no store knows.
fn vouch(headers: &HeaderMap, key: &KeyText) -> Option<VouchedKey> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let sent = ofrep::presented(text("x-api-key"), text("authorization"))?;
    (sent == key.expose()).then_some(VouchedKey(key.kind))
}

fn query_parameters(query: &str) -> HashMap<String, Vec<String>> {
    let mut parameters: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        parameters
            .entry(name.into_owned())
            .or_default()
            .push(value.into_owned());
    }
    parameters
}
