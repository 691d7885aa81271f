//! Addresses of servers: host and port, and the choice of a reachable IP address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use futures_util::future::select_ok;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout_at;

/// Host and port of a server. Also its name in logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Address {
    host: Arc<str>,
    port: u16,
}

impl Address {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// Parses the `host:port` of a redirection, in which an IPv6 address has no brackets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self::new(host, port.parse().ok()?))
    }

    /// Replaces a missing host by that of the node that sent this address: a node that does not know its own
    /// host omits it.
    pub(super) fn or_host_of(self, sender: &Self) -> Self {
        if self.host.is_empty() || &*self.host == "?" {
            Self {
                host: sender.host.clone(),
                port: self.port,
            }
        } else {
            self
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Finds an IP address to connect to: the only one of the name, without trying it, or of several the first one that
    /// accepts a connection. The endpoint of a cluster resolves to the addresses of all nodes, including dead ones. All
    /// are tried at once: fred would try them in turn, and the first one that does not answer would use up the whole
    /// time.
    ///
    /// # Errors
    /// If the name has no address, or all of several refuse; [`io::ErrorKind::TimedOut`] if the name is not resolved in
    /// time, or none of several accepts in time.
    pub(super) async fn reach(&self, deadline: Instant) -> io::Result<IpAddr> {
        let found = timeout_at(deadline.into(), lookup_host((self.host(), self.port)));
        let found: Vec<SocketAddr> = found.await??.collect();
        match found.as_slice() {
            [] => Err(io::Error::other("the name has no address")),
            // Not probed: connecting to it shows whether it accepts.
            [only] => Ok(only.ip()),
            several => {
                let first = timeout_at(deadline.into(), first_to_accept(several)).await??;
                Ok(first.ip())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

async fn first_to_accept(addresses: &[SocketAddr]) -> io::Result<SocketAddr> {
    let attempts = addresses.iter().map(|address| {
        Box::pin(async move { TcpStream::connect(address).await.map(|_stream| *address) })
    });
    select_ok(attempts).await.map(|(first, _others)| first)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_reachable_address_is_found_among_dead_ones() {
        // A listener with a full queue ignores connections, like a host that is down.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let silent_address = silent.local_addr().expect("an address");
        let mut waiting = Vec::new();
        while let Ok(stream) =
            TcpStream::connect_timeout(&silent_address, Duration::from_millis(200))
        {
            waiting.push(stream);
        }
        let refusing = SocketAddr::from(([127, 0, 0, 1], 1));
        let alive = TcpListener::bind("127.0.0.1:0").expect("a port");
        let alive_address = alive.local_addr().expect("an address");
        let found = first_to_accept(&[silent_address, refusing, alive_address]).await;
        assert_eq!(found.expect("one accepts"), alive_address);
    }

    #[tokio::test]
    async fn an_ip_address_is_returned_unchanged() {
        let deadline = Instant::now() + Duration::from_secs(5);
        for host in ["127.0.0.7", "::1"] {
            let found = Address::new(host, 6379).reach(deadline).await;
            assert_eq!(found.expect("an address").to_string(), host);
        }
    }
}
