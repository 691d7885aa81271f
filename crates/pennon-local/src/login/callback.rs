//! The port of this machine to which the issuer sends the browser back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pennon_core::http::Query;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long the browser may take to fetch the last page.
const LAST_PAGE: Duration = Duration::from_secs(2);

/// A port that listens.
pub(super) struct Callback {
    listener: TcpListener,
    address: SocketAddr,
}

/// What has to come, and where it goes.
struct Expected {
    state: String,
    issuer: String,
    address: SocketAddr,
    outcome: Mutex<Option<oneshot::Sender<Result<String, String>>>>,
}

impl Callback {
    /// Listens on the first port that is free, for this machine only.
    pub(super) async fn listen(ports: &[u16]) -> Result<Self, String> {
        for port in ports {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await {
                let address = listener.local_addr().map_err(|error| error.to_string())?;
                return Ok(Self { listener, address });
            }
        }
        Err(format!(
            "no port is free for the browser to come back to (127.0.0.1, {ports:?})"
        ))
    }

    /// Where the issuer sends the browser.
    pub(super) fn address(&self) -> String {
        format!("http://{}/callback", self.address)
    }

    /// Waits for the browser and gives the issuer's code. What does not name this sign-in is refused, and
    /// does not end it: any page may send a browser here.
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
        let router = axum::Router::new().fallback(take).with_state(expected);
        let server = axum::serve(self.listener, router).with_graceful_shutdown(async {
            let _stopped = stopped.await;
        });
        let server = tokio::spawn(async move { server.await });
        let outcome = tokio::time::timeout(within, outcome).await;
        let _gone = stop.send(());
        let _last_page = tokio::time::timeout(LAST_PAGE, server).await;
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("the port stopped listening".to_owned()),
            Err(_) => Err(format!(
                "nobody has signed in within {} s",
                within.as_secs()
            )),
        }
    }
}

async fn take(State(expected): State<Arc<Expected>>, request: Request) -> Response {
    if request.method() != Method::GET || request.uri().path() != "/callback" {
        return page(StatusCode::NOT_FOUND, "There is nothing here.");
    }
    // A name that leads to this machine is not this machine: the page would be of another origin.
    let host = request.headers().get(header::HOST);
    if host.is_none_or(|host| host.as_bytes() != expected.address.to_string().as_bytes()) {
        return page(
            StatusCode::BAD_REQUEST,
            "This is not the address that was asked for.",
        );
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let only = |name: &str| {
        let mut values = query.all(name);
        let first = values.next();
        first.filter(|_| values.next().is_none())
    };
    if only("state") != Some(&expected.state) {
        let text =
            "This does not belong to the sign-in that is under way. Start again from the terminal.";
        return page(StatusCode::BAD_REQUEST, text);
    }
    let outcome = if query.first("iss").is_some() && only("iss") != Some(&expected.issuer) {
        Err("the answer is from another issuer".to_owned())
    } else if let Some(error) = query.first("error") {
        let more = query.first("error_description").unwrap_or_default();
        Err(
            format!("the issuer refuses: {} {}", plain(error), plain(more))
                .trim_end()
                .to_owned(),
        )
    } else {
        let code = only("code").filter(|code| !code.is_empty());
        code.map(str::to_owned)
            .ok_or_else(|| "the issuer sends no code".to_owned())
    };
    let (status, text) = match &outcome {
        Ok(_) => (
            StatusCode::OK,
            "The terminal goes on. You can close this page.",
        ),
        Err(_) => (
            StatusCode::BAD_REQUEST,
            "You are not signed in; the terminal says why.",
        ),
    };
    let mut waiting = expected
        .outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match waiting.take() {
        Some(waiting) => {
            let _gone = waiting.send(outcome);
            page(status, text)
        }
        None => page(StatusCode::BAD_REQUEST, "The browser was here before."),
    }
}

/// A text from outside, for a terminal.
pub(super) fn plain(text: &str) -> String {
    let plain = |character: char| match character {
        ' '..='~' => character,
        _ => '?',
    };
    text.chars().take(200).map(plain).collect()
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
