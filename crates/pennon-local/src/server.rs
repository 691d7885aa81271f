//! The HTTP server: does the checks of API Gateway, and calls the handler of the route.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt;
use pennon_core::api_key::KeyText;
use pennon_core::app::App;
use pennon_core::auth::{self, Claims, Role};
use pennon_core::config::Secret;
use pennon_core::error::Error;
use pennon_core::http::{self, Incoming, Match, Query, Routed, TrustedKey};
use pennon_core::middleware::{self, Handling};
use pennon_core::ofrep;
use tokio::net::TcpListener;

use crate::alarms;
use crate::browser;
use crate::role_token;
use crate::throttle::Throttle;

/// A body that is too large is read up to this length before the response.
const MAX_DISCARDED_SIZE: usize = 10 * http::MAX_BODY_SIZE;

/// What the checks before a handler need: those of API Gateway (tokens and rates), and those of this server alone
/// (browsers and its own API key).
pub(crate) struct Gateway {
    /// The address of this server, as configured.
    pub(crate) listen: String,
    /// The admin's bearer token.
    pub(crate) admin_token: Secret,
    /// The API key of this server.
    pub(crate) api_key: KeyText,
    /// The limit on evaluations.
    pub(crate) throttle: Option<Throttle>,
}

/// What each request needs.
#[derive(Clone)]
struct ServerState {
    app: Arc<App>,
    gateway: Arc<Gateway>,
}

/// Serves until the process receives a signal.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    gateway: Gateway,
) -> Result<(), String> {
    let router = axum::Router::new()
        .fallback(dispatch)
        .with_state(ServerState {
            app,
            gateway: Arc::new(gateway),
        });
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown_signal())
        .await
        .map_err(|error| error.to_string())
}

/// Waits for Ctrl-C or SIGTERM.
async fn shutdown_signal() {
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
    State(state): State<ServerState>,
    request: Request<axum::body::Body>,
) -> Response<axum::body::Body> {
    let (parts, body) = request.into_parts();
    let incoming = Incoming {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        claims: verify(&parts.headers, &state).await,
        trusted_key: trusted_key(&parts.headers, &state.gateway.api_key),
        headers: parts.headers,
        ..Incoming::default()
    };
    let alarm = alarms::alarm_of(&incoming.method, &incoming.path);
    let mut routed = incoming.routed();
    let checked =
        state
            .gateway
            .check_browser(&routed, alarm.is_some(), &state.app.config.cors.admin);
    let body = read(body).await;
    if let Some(alarm) = alarm {
        return to_axum(match checked.and(body) {
            Ok(body) => alarms::answer(&state.app, &alarm, &routed.incoming, &body).await,
            Err(error) => http::error_reply(&error),
        });
    }
    let function = routed.found.function();
    let app = state.app.clone();
    let rejected = match body {
        Ok(body) => {
            routed.incoming.body = body;
            checked
                .err()
                .or_else(|| state.gateway.throttle(&routed.found))
        }
        Err(error) => Some(error),
    };
    to_axum(match rejected {
        None => pennon_functions::answer(app, function, routed).await,
        Some(error) => {
            let reject = |_app, _request| -> Handling { Box::pin(async { Err(error) }) };
            middleware::answer(app, function, reject, routed).await
        }
    })
}

impl Gateway {
    /// Rejects requests of pages of other sites. Every request for the console is checked; a request for an admin route
    /// or an alarm only if a script in a browser sent it.
    fn check_browser(
        &self,
        routed: &Routed,
        is_alarm: bool,
        admin_origins: &[String],
    ) -> Result<(), Error> {
        let (is_page, is_admin) = match &routed.found {
            Match::Found(endpoint, _) => (endpoint.is_page(), endpoint.is_admin()),
            Match::OtherMethod { .. } | Match::UnknownAdmin | Match::Unknown => (false, is_alarm),
        };
        let headers = &routed.incoming.headers;
        if is_page || (is_admin && browser::is_from_script(headers)) {
            browser::check(headers, &self.listen, admin_origins)
        } else {
            Ok(())
        }
    }

    /// The error of a request above the rate limit.
    fn throttle(&self, found: &Match) -> Option<Error> {
        let throttle = self.throttle.as_ref()?;
        match found {
            Match::Found(endpoint, _) if endpoint.is_ofrep() => {
                let retry_after = throttle.admit(Instant::now()).err()?;
                Some(Error::RateLimited { retry_after })
            }
            Match::Found(..) | Match::OtherMethod { .. } | Match::UnknownAdmin | Match::Unknown => {
                None
            }
        }
    }
}

/// Reads a body. A body above the limit is read too, up to [`MAX_DISCARDED_SIZE`], and discarded: a server that
/// closes a connection with unread bytes resets it, and the client may lose the response.
///
/// # Errors
/// [`Error::TooLarge`]; [`Error::Invalid`] for a body that ends early or is wrongly encoded.
async fn read(mut body: axum::body::Body) -> Result<Vec<u8>, Error> {
    let limit = http::MAX_BODY_SIZE;
    let mut kept = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::malformed_body())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length <= limit {
            kept.extend_from_slice(&data);
        } else if length > MAX_DISCARDED_SIZE {
            break;
        }
    }
    if length <= limit {
        Ok(kept)
    } else {
        Err(Error::TooLarge { limit })
    }
}

/// Converts a response to the type of axum.
fn to_axum(response: http::Response) -> Response<axum::body::Body> {
    response.map(|body| axum::body::Body::from(body.to_vec()))
}

/// The claims of the caller, if the request has the admin token, a token of a role, or a token of the configured
/// issuer. On AWS, the claims come from the authorizer of API Gateway.
async fn verify(headers: &HeaderMap, state: &ServerState) -> Option<Claims> {
    let sent = auth::bearer_token(headers.get(header::AUTHORIZATION)?.to_str().ok()?)?;
    let admin_token = &state.gateway.admin_token;
    if sent == admin_token.expose() {
        return Some(Claims::of_local(&Role::Admin));
    }
    if let Some(role) = role_token::role_of(admin_token, sent) {
        return Some(Claims::of_local(&role));
    }
    let claims = state.app.tokens.as_ref()?.claims(sent).await.ok()?;
    Some(Claims::of_token(claims.as_object()?))
}

/// The kind of this server's API key, if the request has that key. The key is not in the store, so it is verified here.
/// `Authorization` may also be the key without a scheme, which only routes for sync keys accept.
fn trusted_key(headers: &HeaderMap, key: &KeyText) -> Option<TrustedKey> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bare = text("authorization").map(str::trim);
    let sent = ofrep::key_of(text("x-api-key"), text("authorization")).or(bare)?;
    (sent == key.expose()).then_some(TrustedKey(key.kind))
}
