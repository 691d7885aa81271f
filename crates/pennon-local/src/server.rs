//! HTTP on localhost: finds the route, does what API Gateway would do, and calls the handler.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, Request, Response, header};
use lambda_http::RequestExt;
use pennon_core::app::App;
use pennon_core::auth::Claims;
use pennon_core::config::Secret;
use pennon_core::http::{self, Match};
use tokio::net::TcpListener;

/// Larger bodies are refused: no request needs one. API Gateway's own limit is 10 MB.
const LARGEST_BODY: usize = 1_000_000;

#[derive(Clone)]
struct Local {
    app: Arc<App>,
    admin_token: Secret,
}

/// Serves until the process is told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    admin_token: Secret,
) -> Result<(), String> {
    let router = axum::Router::new()
        .fallback(dispatch)
        .layer(axum::extract::DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Local { app, admin_token });
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
    let Ok(body) = axum::body::to_bytes(body, LARGEST_BODY).await else {
        let too_large = Response::builder()
            .status(413)
            .header(header::CONTENT_TYPE, "application/json")
            .body(axum::body::Body::from(r#"{"error":"Payload too large"}"#));
        return too_large.unwrap_or_default();
    };
    let claims = verify(parts.headers.get(header::AUTHORIZATION), &local.admin_token);
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let method = parts.method.as_str().to_owned();
    let path = parts.uri.path().to_owned();

    let mut request = Request::from_parts(parts, lambda_http::Body::Binary(body.to_vec()));
    if let Some(claims) = claims {
        request.extensions_mut().insert(claims);
    }
    let found = http::find(&method, &path);
    let mut parameters: HashMap<String, String> = HashMap::new();
    if let Match::Found(_, found) = &found {
        for (name, text) in found {
            // What does not decode to UTF-8 stays as it is and names nothing.
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            let value = decoded.map_or_else(|_| text.clone(), std::borrow::Cow::into_owned);
            parameters.insert((*name).to_owned(), value);
        }
    }
    let request = request
        .with_path_parameters(parameters)
        .with_query_string_parameters(query_parameters(&query));

    let app = local.app;
    let response = match found {
        Match::Found(endpoint, _) => match endpoint.function {
            "list-flags" => http::answer(app, list_flags::handle, request).await,
            "get-flag" => http::answer(app, get_flag::handle, request).await,
            "update-flag" => http::answer(app, update_flag::handle, request).await,
            "overrides" => http::answer(app, overrides::handle, request).await,
            "manage-flags" => http::answer(app, manage_flags::handle, request).await,
            "manage-environments" => http::answer(app, manage_environments::handle, request).await,
            "health" => http::answer(app, health::handle, request).await,
            _ => http::answer(app, not_found::handle, request).await,
        },
        Match::UnknownAdmin | Match::Unknown => http::answer(app, not_found::handle, request).await,
    };
    response.map(|body| axum::body::Body::from(body.to_vec()))
}

/// The claims of the one token that there is. They are made here, after the comparison, the way
/// API Gateway's authorizer makes them after checking a signature.
fn verify(authorization: Option<&HeaderValue>, admin_token: &Secret) -> Option<Claims> {
    let sent = authorization?.to_str().ok()?.strip_prefix("Bearer ")?;
    (sent == admin_token.expose())
        .then(|| Claims::trusted(&[("sub", "local-admin"), ("cognito:groups", "[admin]")]))
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
