//! POST requests to URLs that users choose. The host is resolved once and every address is checked before a
//! connection is made, so that no URL and no DNS server can point a request at the inside of a network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::with_causes;
use crate::tls::{self, Authorities};

/// The longest head of a response. A longer one ends the request.
const MAX_HEAD: usize = 32 * 1024;
/// The time limit for connecting to one address, so that an address that drops packets leaves time for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Limit on the addresses of a host that are tried.
const MAX_ADDRESSES: usize = 4;

/// The addresses and schemes that a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// HTTPS to public addresses.
    Public,
    /// HTTPS and HTTP to any address: for the local server and for tests. No function uses it.
    Anywhere,
}

/// Why a request has no response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PostError {
    /// The URL or the address of its host is not allowed.
    Refused(String),
    /// The host was not reached, or did not answer in time.
    Failed(String),
}

/// A client that opens a connection per request, follows no redirects and reads no response bodies.
pub(crate) struct WebhookClient {
    tls: TlsConnector,
    reach: Reach,
}

impl Reach {
    /// The host and port of a URL that this client may request.
    ///
    /// # Errors
    /// Text for the user.
    fn check(self, url: &Url) -> Result<(Host<&str>, u16), &'static str> {
        if self == Self::Public && url.scheme() != "https" {
            return Err("must begin with https://");
        }
        if !matches!(url.scheme(), "https" | "http") {
            return Err("must be an HTTP URL");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not contain a user name or password");
        }
        if url.fragment().is_some() {
            return Err("must not have a fragment");
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err("must name a host");
        };
        let literal = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        };
        if literal.is_some_and(|address| !self.allows(address)) {
            return Err("must name a public address");
        }
        Ok((host, port))
    }

    /// Whether a URL may be requested, as far as the URL itself shows. The addresses of its host are checked when a
    /// request connects.
    ///
    /// # Errors
    /// Text for the user.
    pub fn accepts(self, url: &Url) -> Result<(), &'static str> {
        self.check(url).map(|_| ())
    }

    fn allows(self, address: IpAddr) -> bool {
        self == Self::Anywhere || is_public(address)
    }
}

impl WebhookClient {
    /// A client that trusts these authorities.
    ///
    /// # Errors
    /// Text for the log when a PEM file cannot be used.
    pub(crate) fn new(authorities: &Authorities<'_>, reach: Reach) -> Result<Self, String> {
        let tls = TlsConnector::from(Arc::new(tls::client_config(authorities)?));
        Ok(Self { tls, reach })
    }

    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// Sends a POST request and returns the status of the response. Its body is not read: the sender has no
    /// use for it, and it could be endless.
    ///
    /// # Errors
    /// Text for the list of webhooks, without the path of the URL, which may be a secret.
    pub(crate) async fn post(
        &self,
        url: &Url,
        headers: impl Iterator<Item = (&str, &str)>,
        body: String,
        within: Duration,
    ) -> Result<StatusCode, PostError> {
        let refused = |why: &str| PostError::Refused(format!("the URL {why}"));
        let (host, port) = self.reach.check(url).map_err(refused)?;
        let mut request = Request::post(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(
                "host",
                &url[url::Position::BeforeHost..url::Position::AfterPort],
            )
            .header("user-agent", "pennon-webhooks");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::from(Bytes::from(body)))
            .map_err(|error| PostError::Refused(error.to_string()))?;
        let exchange = async {
            let stream = self.connect(&host, port).await?;
            if url.scheme() == "http" {
                return exchange(stream, request).await;
            }
            let name = match host {
                Host::Domain(name) => ServerName::try_from(name.to_owned())
                    .map_err(|_| refused("has no valid host name"))?,
                Host::Ipv4(address) => ServerName::from(IpAddr::V4(address)),
                Host::Ipv6(address) => ServerName::from(IpAddr::V6(address)),
            };
            let stream = self.tls.connect(name, stream).await;
            exchange(stream.map_err(|error| failed(&error))?, request).await
        };
        tokio::time::timeout(within, exchange)
            .await
            .unwrap_or_else(|_elapsed| {
                let why = format!("no response within {} ms", within.as_millis());
                Err(PostError::Failed(why))
            })
    }

    /// Resolves the host once and connects to an address that was checked: a name that is resolved again for
    /// the connection could have another address by then.
    async fn connect(&self, host: &Host<&str>, port: u16) -> Result<TcpStream, PostError> {
        let found: Vec<SocketAddr> = match host {
            Host::Domain(name) => tokio::net::lookup_host((*name, port))
                .await
                .map_err(|error| PostError::Failed(format!("cannot resolve {name}: {error}")))?
                .collect(),
            Host::Ipv4(address) => vec![SocketAddr::from((*address, port))],
            Host::Ipv6(address) => vec![SocketAddr::from((*address, port))],
        };
        let allowed = found.iter().filter(|found| self.reach.allows(found.ip()));
        let mut last = if found.is_empty() {
            PostError::Failed(format!("{host} has no address"))
        } else {
            PostError::Refused(format!("{host} has no public address"))
        };
        for address in allowed.take(MAX_ADDRESSES) {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = failed(&error),
                Err(_elapsed) => last = PostError::Failed(format!("{host} does not answer")),
            }
        }
        Err(last)
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, PostError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    // The task ends with this function: a task that outlives a request is frozen with the instance.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let response = sender.send_request(request).await;
    Ok(response.map_err(|error| failed(&error))?.status())
}

fn failed(error: &dyn std::error::Error) -> PostError {
    PostError::Failed(with_causes(error))
}

/// Whether an address belongs to the public internet, by IANA's registries of special-purpose addresses. Of IPv6
/// only `2000::/3` is in use there, so that mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`), unique local,
/// link-local and multicast addresses are all outside.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(
            address.octets(),
            // This network, private, loopback, multicast and reserved.
            [0 | 10 | 127 | 224.., ..]
                // Shared by customers of a provider, link-local, and private.
                | [100, 64..=127, ..]
                | [169, 254, ..]
                | [172, 16..=31, ..]
                | [192, 168, ..]
                // Protocol assignments, documentation, relays to IPv6, and benchmarks.
                | [192, 0, 0 | 2, _]
                | [192, 88, 99, _]
                | [198, 18 | 19, ..]
                | [198, 51, 100, _]
                | [203, 0, 113, _]
        ),
        IpAddr::V6(address) => {
            let segments = address.segments();
            let is_special = matches!(
                segments,
                // Protocol assignments (Teredo among them), documentation, and addresses that contain one of IPv4.
                [0x2001, ..0x200 | 0xdb8, ..] | [0x2002, ..] | [0x3fff, ..0x1000, ..]
            );
            segments[0] & 0xe000 == 0x2000 && !is_special
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(
                !is_public(address.parse().expect("an address")),
                "{address}"
            );
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2600:1f18::1",
            "2a00::1",
            "3fff:1000::1",
        ] {
            assert!(is_public(address.parse().expect("an address")), "{address}");
        }
    }

    #[test]
    fn an_accepted_url_is_https_and_names_no_internal_address_in_any_notation() {
        let check = |text: &str| {
            Reach::Public
                .check(&Url::parse(text).expect("a URL"))
                .is_ok()
        };
        for text in [
            "https://example.com/hook?a=b",
            "https://example.com:8443/",
            "https://1.1.1.1/",
            "https://[2600:1f18::1]/",
        ] {
            assert!(check(text), "{text}");
        }
        for text in [
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https://user@example.com/",
            "https://:word@example.com/",
            "https://example.com/#part",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[64:ff9b::a9fe:a9fe]/",
        ] {
            assert!(!check(text), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_with_a_private_address_is_refused_before_a_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("no waiting");
        let port = listener.local_addr().expect("an address").port();
        let client = WebhookClient::new(&Authorities::Public, Reach::Public).expect("a client");
        let url = Url::parse(&format!("https://localhost:{port}/")).expect("a URL");
        let sent = client.post(&url, [].into_iter(), String::new(), Duration::from_secs(5));
        let refused = PostError::Refused("localhost has no public address".to_owned());
        assert_eq!(sent.await, Err(refused));
        let accepted = listener.accept().map_err(|error| error.kind());
        assert!(
            matches!(accepted, Err(std::io::ErrorKind::WouldBlock)),
            "{accepted:?}"
        );
    }
}
