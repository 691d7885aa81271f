//! Where a server is: host and port, and which of the addresses behind a name to connect to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use futures_util::future::select_ok;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout_at;

/// Where a server listens. Also its name in logs.
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

    /// Parses `host:port` as a redirection names it. An IPv6 address comes without brackets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self::new(host, port.parse().ok()?))
    }

    /// The same, where a node that does not know its own name has left the host out: then it is where
    /// we found that node.
    pub(super) fn or_host_of(self, found: &Self) -> Self {
        if self.host.is_empty() || &*self.host == "?" {
            Self {
                host: found.host.clone(),
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

    /// An IP address that accepts connections. The endpoint of a cluster has one for each node, also
    /// for one that is dead, and fred would try them one after the other: the first that says nothing
    /// would take all the time there is. So all are tried at once.
    ///
    /// # Errors
    /// When the name has no address; [`io::ErrorKind::TimedOut`] when none accepts in time.
    pub(super) async fn reach(&self, deadline: Instant) -> io::Result<IpAddr> {
        let found = timeout_at(deadline.into(), lookup_host((self.host(), self.port)));
        let found: Vec<SocketAddr> = found.await??.collect();
        match found.as_slice() {
            [] => Err(io::Error::other("the name has no address")),
            // Whether it accepts shows when it is connected to.
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
    async fn a_dead_address_does_not_keep_a_live_one_from_being_found() {
        // A listener whose queue is full drops whatever comes, as a host that is gone does.
        let hole = TcpListener::bind("127.0.0.1:0").expect("a port");
        let hole_at = hole.local_addr().expect("an address");
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&hole_at, Duration::from_millis(200)) {
            waiting.push(stream);
        }
        let refusing = SocketAddr::from(([127, 0, 0, 1], 1));
        let alive = TcpListener::bind("127.0.0.1:0").expect("a port");
        let alive_at = alive.local_addr().expect("an address");
        let found = first_to_accept(&[hole_at, refusing, alive_at]).await;
        assert_eq!(found.expect("one accepts"), alive_at);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_an_address_is_taken_as_it_is() {
        let deadline = Instant::now() + Duration::from_secs(5);
        for (host, expected) in [("127.0.0.7", Some("127.0.0.7")), ("::1", Some("::1"))] {
            let found = Address::new(host, 6379).reach(deadline).await;
            assert_eq!(found.ok().map(|ip| ip.to_string()).as_deref(), expected);
        }
        let nobody = Address::new("no-such-host.invalid", 6379);
        let failure = nobody.reach(deadline).await.expect_err("no such name");
        assert_ne!(failure.kind(), io::ErrorKind::TimedOut);
    }
}
