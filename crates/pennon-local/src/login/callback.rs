//! The local HTTP server to which the issuer redirects the browser.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pennon_core::http::Query;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The time limit for delivering the last page to the browser.
const LAST_PAGE: Duration = Duration::from_secs(2);

/// The bound port to which the issuer redirects the browser.
pub(super) struct Callback {
    listener: TcpListener,
    address: SocketAddr,
}

/// The expected callback, and the channel for its outcome.
struct Expected {
    state: String,
    issuer: String,
    address: SocketAddr,
    outcome: Mutex<Option<oneshot::Sender<Result<String, String>>>>,
}

impl Callback {
    /// Listens on the first of these ports that is free on the loopback interface.
    pub(super) async fn listen(ports: &[u16]) -> Result<Self, String> {
        for port in ports {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await {
                let address = listener.local_addr().map_err(|error| error.to_string())?;
                return Ok(Self { listener, address });
            }
        }
        Err(format!(
            "no port on 127.0.0.1 is free for the redirect (tried {ports:?})"
        ))
    }

    /// The redirect URI.
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.address)
    }

    /// Waits for the callback and returns the issuer's code. Requests without the state of this sign-in are
    /// rejected and do not end it: any page can send a browser here.
    pub(super) async fn wait(
        self,
        state: &str,
        issuer: &str,
        within: Duration,
    ) -> Result<String, String> {
        let (sender, outcome) = oneshot::channel();
        let expected = Arc::new(Expected {
            state: state.to_owned(),
            issuer: issuer.to_owned(),
            address: self.address,
            outcome: Mutex::new(Some(sender)),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let router = axum::Router::new().fallback(receive).with_state(expected);
        let server = axum::serve(self.listener, router).with_graceful_shutdown(async {
            let _stopped = stopped.await;
        });
        let server = tokio::spawn(async move { server.await });
        let outcome = tokio::time::timeout(within, outcome).await;
        let _gone = stop.send(());
        let _last_page = tokio::time::timeout(LAST_PAGE, server).await;
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("the local server for the redirect stopped".to_owned()),
            Err(_) => Err(format!(
                "the sign-in was not completed within {} s",
                within.as_secs()
            )),
        }
    }
}

async fn receive(State(expected): State<Arc<Expected>>, request: Request) -> Response {
    if request.method() != Method::GET || request.uri().path() != "/callback" {
        return page(StatusCode::NOT_FOUND, "Not found.");
    }
    // Rejects DNS rebinding: a page of another origin whose name resolves to 127.0.0.1.
    let host = request.headers().get(header::HOST);
    if host.is_none_or(|host| host.as_bytes() != expected.address.to_string().as_bytes()) {
        return page(
            StatusCode::BAD_REQUEST,
            "The Host header is not the address of this server.",
        );
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let only = |name: &str| {
        let mut values = query.all(name);
        let first = values.next();
        first.filter(|_| values.next().is_none())
    };
    if only("state") != Some(&expected.state) {
        let text = "This page belongs to another sign-in. Start again from the terminal.";
        return page(StatusCode::BAD_REQUEST, text);
    }
    let outcome = if query.first("iss").is_some() && only("iss") != Some(&expected.issuer) {
        Err("the response is from another issuer".to_owned())
    } else if let Some(error) = query.first("error") {
        let description = query.first("error_description").unwrap_or_default();
        Err(format!(
            "the issuer rejected the sign-in: {} {}",
            printable(error),
            printable(description)
        )
        .trim_end()
        .to_owned())
    } else {
        let code = only("code").filter(|code| !code.is_empty());
        code.map(str::to_owned)
            .ok_or_else(|| "the issuer sent no code".to_owned())
    };
    let (status, text) = match &outcome {
        Ok(_) => (
            StatusCode::OK,
            "You can close this page. The terminal shows whether the sign-in succeeded.",
        ),
        Err(_) => (
            StatusCode::BAD_REQUEST,
            "The sign-in failed. The terminal shows the reason.",
        ),
    };
    let mut sender = expected
        .outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match sender.take() {
        Some(sender) => {
            let _gone = sender.send(outcome);
            page(status, text)
        }
        None => page(StatusCode::BAD_REQUEST, "This sign-in has already ended."),
    }
}

/// The first 200 characters. `?` replaces all but printable ASCII: text from outside must not control the terminal.
pub(super) fn printable(text: &str) -> String {
    let replace = |character: char| match character {
        ' '..='~' => character,
        _ => '?',
    };
    text.chars().take(200).map(replace).collect()
}

fn page(status: StatusCode, text: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::CONNECTION, "close"),
    ];
    let body = format!("<!doctype html><title>Pennon</title><p>{text}</p>\n");
    (status, headers, body).into_response()
}
