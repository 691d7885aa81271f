//! Which of the addresses behind a name to connect to.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use futures_util::future::select_ok;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout_at;

use super::client::Failure;
use super::node::Address;

/// An address that accepts connections. The endpoint of a cluster has one for each node, also for one
/// that is dead, and fred would try them one after the other: the first that says nothing would take
/// all the time there is. So all are tried at once.
///
/// # Errors
/// [`Failure`] when the name has no address, or none accepts in time.
pub(super) async fn reach(address: &Address, deadline: Instant) -> Result<IpAddr, Failure> {
    let found = lookup_host((address.host(), address.port()));
    let found: Vec<SocketAddr> = match timeout_at(deadline.into(), found).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(Failure::NotConnected(error.to_string())),
        Err(_elapsed) => return Err(Failure::TimedOut),
    };
    match found.as_slice() {
        [] => Err(Failure::NotConnected("the name has no address".to_owned())),
        // Whether it accepts shows when it is connected to.
        [only] => Ok(only.ip()),
        several => match timeout_at(deadline.into(), first_to_accept(several)).await {
            Ok(Ok(first)) => Ok(first.ip()),
            Ok(Err(error)) => Err(Failure::NotConnected(error.to_string())),
            Err(_elapsed) => Err(Failure::TimedOut),
        },
    }
}

async fn first_to_accept(addresses: &[SocketAddr]) -> std::io::Result<SocketAddr> {
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
            let found = reach(&Address::new(host, 6379), deadline).await;
            assert_eq!(found.ok().map(|ip| ip.to_string()).as_deref(), expected);
        }
        let nobody = Address::new("no-such-host.invalid", 6379);
        let failure = reach(&nobody, deadline).await.expect_err("no such name");
        assert_eq!(failure.kind(), "not_connected");
    }
}
