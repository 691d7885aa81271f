//! A receiver of webhooks that can misbehave, over HTTPS with a certificate for 127.0.0.1, or over HTTP.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Certificates;

/// What the receiver does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers this status.
    Answer(u16),
    /// Redirects to this URL.
    Redirect(String),
    /// Reads the request and does not answer.
    Silence,
    /// Answers one byte of the head after the other, without an end.
    SlowHead,
    /// Answers a head that has no end.
    EndlessHead,
    /// Answers this status and a body that has no end.
    EndlessBody(u16),
    /// Answers something that is not HTTP.
    Garbage,
    /// Announces a longer body than it sends, and closes the connection.
    ShortBody(u16),
    /// Closes the connection without an answer.
    Close,
}

/// A request that the receiver has read.
#[derive(Debug, Clone)]
pub struct Received {
    /// The request line.
    pub line: String,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// A receiver that is running.
pub struct Receiver {
    scheme: &'static str,
    port: u16,
    state: Arc<State>,
}

struct State {
    behaviour: Mutex<Behaviour>,
    received: Mutex<Vec<Received>>,
}

impl Received {
    /// A header, or "".
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Whether the signature is that of the secret, as a receiver verifies it.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let encoded = secret.strip_prefix("whsec_").expect("a prefix");
        let key = STANDARD.decode(encoded).expect("base64");
        let (id, timestamp) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let signed = format!("{id}.{timestamp}.{}", self.body);
        let mut signatures = self.header("webhook-signature").split(' ');
        signatures.any(|signature| {
            let tag = signature
                .strip_prefix("v1,")
                .map(|tag| STANDARD.decode(tag));
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            matches!(tag, Some(Ok(tag)) if hmac::verify(&key, signed.as_bytes(), &tag).is_ok())
        })
    }
}

impl Receiver {
    /// Starts a receiver that accepts all requests.
    pub async fn start() -> Self {
        Self::start_with(Some(Self::acceptor())).await
    }

    /// The same without TLS.
    pub async fn start_plain() -> Self {
        Self::start_with(None).await
    }

    fn acceptor() -> TlsAcceptor {
        let certificates = Certificates::shared();
        let chain = CertificateDer::from_pem_file(certificates.file("server.pem"));
        let key = PrivateKeyDer::from_pem_file(certificates.file("server.key"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_no_client_auth()
            .with_single_cert(vec![chain.expect("a certificate")], key.expect("a key"))
            .expect("a configuration");
        TlsAcceptor::from(Arc::new(config))
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            behaviour: Mutex::new(Behaviour::Answer(204)),
            received: Mutex::default(),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tls.clone(), shared.clone()));
            }
        });
        Self {
            scheme,
            port,
            state,
        }
    }

    /// The path of a PEM file with the authority that signed its certificate.
    pub fn authority_file() -> String {
        Certificates::shared().file("ca.pem")
    }

    /// A URL of it.
    pub fn url(&self) -> String {
        format!(
            "{}://127.0.0.1:{}/hooks/secret-path",
            self.scheme, self.port
        )
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().expect("a lock") = behaviour;
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("a lock").clone()
    }
}

async fn serve(mut stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    // The client may close the connection at any time.
    let _closed = match tls {
        None => answer(&mut stream, &state).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(mut stream) => answer(&mut stream, &state).await,
            Err(error) => Err(error),
        },
    };
}

async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    state: &State,
) -> std::io::Result<()> {
    let received = read_request(stream).await?;
    state.received.lock().expect("a lock").push(received);
    let behaviour = state.behaviour.lock().expect("a lock").clone();
    let head = |status: u16, more: &str| format!("HTTP/1.1 {status} Status\r\n{more}\r\n");
    let forever = match behaviour {
        Behaviour::Answer(status) => {
            let text = head(status, "content-length: 0\r\n");
            stream.write_all(text.as_bytes()).await?;
            None
        }
        Behaviour::Redirect(url) => {
            let text = head(307, &format!("location: {url}\r\ncontent-length: 0\r\n"));
            stream.write_all(text.as_bytes()).await?;
            None
        }
        Behaviour::Silence => std::future::pending().await,
        Behaviour::SlowHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await?;
            loop {
                stream.write_all(b"y").await?;
                stream.flush().await?;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        Behaviour::EndlessHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            Some("x: y\r\n".repeat(1000))
        }
        Behaviour::EndlessBody(status) => {
            stream.write_all(head(status, "").as_bytes()).await?;
            Some("body".repeat(10_000))
        }
        Behaviour::Garbage => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await?;
            None
        }
        Behaviour::ShortBody(status) => {
            let text = head(status, "content-length: 100\r\n") + "short";
            stream.write_all(text.as_bytes()).await?;
            None
        }
        Behaviour::Close => None,
    };
    while let Some(text) = &forever {
        stream.write_all(text.as_bytes()).await?;
    }
    stream.shutdown().await
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Received> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        // In bytes: a read may end inside a character.
        let body = &bytes[end + 4..];
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let received = Received {
            line,
            headers,
            body: String::from_utf8_lossy(body).into_owned(),
        };
        let length: usize = received.header("content-length").parse().unwrap_or(0);
        if body.len() >= length {
            return Ok(received);
        }
    }
}
