//! Connections leave from the address that this node listens on, where that is a certain one: on a host with several addresses, firewall rules and whoever looks at
//! the network see the node and not the host.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// Connects to `address` from `source`, or from wherever the system chooses.
pub async fn connect(address: &str, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the address has no host");
    for target in lookup_host(address).await? {
        match connect_to(target, source).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn connect_to(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source.filter(|source| reaches(*source, target.ip())) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(target).await
}

/// Whether packets from `source` can get to `target` at all.
fn reaches(source: IpAddr, target: IpAddr) -> bool {
    !source.is_unspecified() && source.is_ipv4() == target.is_ipv4() && source.is_loopback() == target.is_loopback()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn connections_come_from_the_given_address_where_it_reaches_the_target() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address").to_string();
        for (source, seen) in
            [(Some("127.0.9.7"), "127.0.9.7"), (Some("0.0.0.0"), "127.0.0.1"), (Some("10.9.8.7"), "127.0.0.1"), (None, "127.0.0.1")]
        {
            let source = source.map(|source| source.parse().expect("address"));
            let (connected, accepted) = tokio::join!(connect(&address, source), listener.accept());
            assert!(connected.is_ok(), "{connected:?}");
            assert_eq!(accepted.expect("accepted").1.ip().to_string(), seen, "{source:?}");
        }
    }
}
