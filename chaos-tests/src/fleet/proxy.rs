//! The network between the nodes, in this process: each node advertises a door here, and whatever goes through a door is carried on, late, or not at all.
//!
//! Who sends is known by the address that it sends from: each node has a loopback address of its own.

mod datagrams;
mod streams;
pub mod weather;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use rand::Rng;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::Addresses;
use datagrams::{Doors, number_of};
use weather::Forecast;

/// Nodes and doors listen on these ports, each on an address of its own.
pub const PEER_PORT: u16 = 7071;
pub const HTTP_PORT: u16 = 7070;
/// Host number of the first node, and of the first door.
const FIRST_NODE: u8 = 1;
const FIRST_DOOR: u8 = 101;
pub const NODES_MAX: usize = 32;
const TRIES_MAX: usize = 50;

/// A part of the loopback network that belongs to one fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet(u8, u8);

impl Subnet {
    fn random() -> Self {
        let mut random = rand::rng();
        Self(random.random_range(16..=250), random.random())
    }

    fn address(self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, self.0, self.1, host)), port)
    }

    pub fn addresses(self, node: usize) -> Addresses {
        Addresses { http: self.http(node), peer: self.peer(node), advertise: self.door(node) }
    }

    pub fn http(self, node: usize) -> SocketAddr {
        self.address(FIRST_NODE + node as u8, HTTP_PORT)
    }

    /// Where a node listens for peers.
    pub fn peer(self, node: usize) -> SocketAddr {
        self.address(FIRST_NODE + node as u8, PEER_PORT)
    }

    /// Where others reach it.
    pub fn door(self, node: usize) -> SocketAddr {
        self.address(FIRST_DOOR + node as u8, PEER_PORT)
    }
}

/// What went through, to be sure that the proxy is not bypassed.
#[derive(Debug, Default)]
pub struct Counts {
    streams: AtomicU64,
    datagrams: AtomicU64,
    datagrams_lost: AtomicU64,
    strangers: Mutex<BTreeSet<IpAddr>>,
    /// Streams whose opener began with a TLS record, and those that began with anything else.
    tls: AtomicU64,
    plain: AtomicU64,
}

/// First byte of a TLS record that carries a handshake (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 22;

impl Counts {
    fn datagram(&self, lost: bool) {
        (if lost { &self.datagrams_lost } else { &self.datagrams }).fetch_add(1, Ordering::Relaxed);
    }

    /// The first byte that the opener of a stream sent.
    fn opened_with(&self, first: u8) {
        (if first == TLS_HANDSHAKE { &self.tls } else { &self.plain }).fetch_add(1, Ordering::Relaxed);
    }

    fn stranger(&self, address: IpAddr) {
        self.strangers.lock().insert(address);
    }
}

/// The doors of a fleet. Dropped, they close.
pub struct Proxy {
    pub subnet: Subnet,
    pub forecast: Forecast,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Takes a part of the loopback network that nobody uses, and opens a door for each of `nodes`.
    ///
    /// # Errors
    /// More nodes than there are addresses, or no free ones.
    pub async fn open(nodes: usize) -> Result<Self> {
        if nodes == 0 || nodes > NODES_MAX {
            bail!("{nodes} nodes: choose 1 to {NODES_MAX}");
        }
        let mut last = None;
        for _ in 0..TRIES_MAX {
            match Self::open_in(Subnet::random(), nodes).await {
                Ok(proxy) => return Ok(proxy),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no try")?).context("no free loopback addresses")
    }

    async fn open_in(subnet: Subnet, nodes: usize) -> Result<Self> {
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for node in 0..nodes {
            // Taken by another fleet's nodes?
            drop(TcpListener::bind(subnet.peer(node)).await?);
            listeners.push(TcpListener::bind(subnet.door(node)).await?);
            sockets.push(UdpSocket::bind(subnet.door(node)).await?);
        }
        let doors = Arc::new(Doors { sockets, nodes: (0..nodes).map(|node| subnet.peer(node)).collect() });
        let (forecast, counts, mut tasks) = (Forecast::default(), Arc::new(Counts::default()), JoinSet::new());
        for (to, listener) in listeners.into_iter().enumerate() {
            tasks.spawn(accept(listener, subnet, to, doors.clone(), forecast.clone(), counts.clone()));
            tasks.spawn(datagrams::carry(doors.clone(), to, forecast.clone(), counts.clone()));
        }
        Ok(Self { subnet, forecast, counts, _tasks: tasks })
    }

    /// Whether everything that came was from a node's own address: else cuts would cut nothing.
    ///
    /// # Errors
    /// Addresses that are no node's, or nothing came at all.
    pub fn check_senders(&self) -> Result<()> {
        let strangers = self.counts.strangers.lock();
        if !strangers.is_empty() {
            bail!(
                "connections between nodes come from {strangers:?}, not from the nodes' own addresses: faults of the network would not be seen"
            );
        }
        let (streams, datagrams) = (self.counts.streams.load(Ordering::Relaxed), self.counts.datagrams.load(Ordering::Relaxed));
        if streams == 0 || datagrams == 0 {
            bail!("nodes do not talk through the proxy: {streams} streams, {datagrams} datagrams");
        }
        Ok(())
    }

    /// Whether every stream between nodes was TLS.
    ///
    /// # Errors
    /// Some were not, or there was none.
    pub fn check_tls(&self) -> Result<()> {
        let (tls, plain) = (self.counts.tls.load(Ordering::Relaxed), self.counts.plain.load(Ordering::Relaxed));
        if tls == 0 || plain > 0 {
            bail!("TLS was asked for between nodes, and {plain} of {} streams were not TLS", tls + plain);
        }
        Ok(())
    }

    pub fn datagrams_lost(&self) -> u64 {
        self.counts.datagrams_lost.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, subnet: Subnet, to: usize, doors: Arc<Doors>, forecast: Forecast, counts: Arc<Counts>) {
    let mut streams = JoinSet::new();
    loop {
        while streams.try_join_next().is_some() {}
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let Some(from) = number_of(&doors.nodes, peer.ip()) else {
            counts.stranger(peer.ip());
            continue;
        };
        counts.streams.fetch_add(1, Ordering::Relaxed);
        let mut source = subnet.door(from);
        source.set_port(0);
        let (target, forecast, counts) = (doors.nodes[to], forecast.clone(), counts.clone());
        streams.spawn(async move {
            // Nobody listens there: whoever opened the stream sees it end.
            let _ = streams::carry(stream, (from, to), target, source, &forecast, &counts).await;
        });
    }
}

#[cfg(test)]
mod tests;
