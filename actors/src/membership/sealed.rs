//! Gossip that only holders of the cookie can take part in: a UDP socket for `chitchat` that seals what it sends, and drops what is not sealed.
//!
//! A datagram is version `u8`, HMAC-SHA256 (32 bytes) over the version and the rest, and what `chitchat` says. The key is derived from the cookie, so that neither can be
//! used in place of the other. What is older, damaged or a stranger's is dropped before anything is read of it or kept for it, is counted, and is logged once a minute.
//!
//! It says that a member wrote it, not when, nor to whom: who can read the network can send a datagram again. `chitchat` takes of it what has a higher version
//! than it knows, which is nothing; at worst a node that is dead and forgotten shows for a moment, and is dialled in vain. Nothing is hidden either.
//!
//! `chitchat` keeps its encoding to itself and lends only its own socket. So that one is bound to a loopback port, and what it sends and gets goes by way of
//! a second one beside it, which nobody else can write to.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket as Encoder};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tallymesh_storage::clock::Clock;
use tokio::net::UdpSocket;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + MAC_BYTES;
/// The largest that UDP carries over IPv4, and that `chitchat` makes, in bytes. Of a fleet of more than a hundred nodes it may make one that is full to the brim, and
/// does not fit with the seal; it is dropped, and another one is made 100 ms later.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// What the key is for.
const CONTEXT: &[u8] = b"tallymesh gossip, datagrams, version 1";
/// From one loopback socket to the other nothing takes time; what does not come was not read.
const HAND_OVER_TIME_MAX: Duration = Duration::from_millis(100);
/// That datagrams are dropped is said again after this time.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Seals and opens datagrams.
#[derive(Clone)]
pub struct Seal {
    /// Keyed, and fed with nothing.
    mac: Hmac<Sha256>,
}

impl Seal {
    /// None without a cookie.
    pub fn new(cookie: &str) -> Option<Self> {
        if cookie.is_empty() {
            return None;
        }
        let mut derive = Hmac::<Sha256>::new_from_slice(cookie.as_bytes()).ok()?;
        derive.update(CONTEXT);
        Some(Self { mac: Hmac::new_from_slice(&derive.finalize().into_bytes()).ok()? })
    }

    fn over(&self, said: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&[VERSION]);
        mac.update(said);
        mac
    }

    /// Seals what stands in the buffer behind room for the head.
    fn close(&self, datagram: &mut [u8]) {
        let Some((head, said)) = datagram.split_first_chunk_mut::<HEAD_BYTES>() else { return };
        head[0] = VERSION;
        head[1..].copy_from_slice(&self.over(said).finalize().into_bytes());
    }

    /// What is in a datagram, if a holder of the cookie sealed it. Takes as long for a nearly right seal as for a wrong one.
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (head, said) = datagram.split_first_chunk::<HEAD_BYTES>()?;
        let [VERSION, seal @ ..] = head else { return None };
        self.over(said).verify_slice(seal).is_ok().then_some(said)
    }
}

/// When datagrams that are dropped are spoken of. Pure.
#[derive(Debug, Default)]
struct Silence {
    unsaid: u64,
    said_at: Option<Duration>,
}

impl Silence {
    /// One more was dropped at `now`; how many to tell of, if it is time to.
    fn note(&mut self, now: Duration) -> Option<u64> {
        self.unsaid += 1;
        let is_time = self.said_at.is_none_or(|at| now >= at + SAY_AGAIN_AFTER);
        is_time.then(|| {
            self.said_at = Some(now);
            std::mem::take(&mut self.unsaid)
        })
    }
}

/// Counts what was dropped. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct SealedTransport {
    pub seal: Seal,
    pub dropped: Dropped,
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = UdpSocket::bind(listen).await.with_context(|| format!("binding {listen}/UDP"))?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (encoder, relay) = (Encoder::open(loopback).await?, UdpSocket::bind(loopback).await?);
        // From here on it takes in what the encoder sends, and nothing else.
        relay.connect(encoder.local_addr()?).await?;
        let relay_at = relay.local_addr()?;
        Ok(Box::new(SealedSocket {
            socket,
            encoder,
            relay,
            relay_at,
            seal: self.seal.clone(),
            dropped: self.dropped.clone(),
            clock: self.clock.clone(),
            sent: vec![0; DATAGRAM_BYTES_MAX + HEAD_BYTES].into(),
            received: vec![0; DATAGRAM_BYTES_MAX + 1].into(),
            handed: None,
            strangers: Silence::default(),
            not_sent: Silence::default(),
        }))
    }
}

struct SealedSocket {
    socket: UdpSocket,
    /// `chitchat`'s own.
    encoder: Encoder,
    relay: UdpSocket,
    relay_at: SocketAddr,
    seal: Seal,
    dropped: Dropped,
    clock: Arc<dyn Clock>,
    sent: Box<[u8]>,
    received: Box<[u8]>,
    /// Whose datagram, of how many bytes, is with the encoder.
    handed: Option<(SocketAddr, usize)>,
    strangers: Silence,
    not_sent: Silence,
}

/// Errors of datagrams that were sent before, or of the moment.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

impl SealedSocket {
    /// Encodes into the buffer, behind room for the head; the bytes of all of it.
    async fn encode(&mut self, envelope: ChitchatEnvelope) -> anyhow::Result<Option<usize>> {
        // Of one that was broken off.
        while self.relay.try_recv(&mut self.sent).is_ok() {}
        let encoded = self.encoder.send(self.relay_at, envelope).await?.num_bytes_sent;
        let came = tokio::time::timeout(HAND_OVER_TIME_MAX, self.relay.recv(&mut self.sent[HEAD_BYTES..])).await;
        let bytes = HEAD_BYTES + encoded;
        Ok(matches!(came, Ok(Ok(came)) if came == encoded && bytes <= DATAGRAM_BYTES_MAX).then_some(bytes))
    }

    fn drop_one(&mut self, from: SocketAddr, bytes: usize) {
        self.dropped.0.fetch_add(1, Ordering::Relaxed);
        if let Some(count) = self.strangers.note(self.clock.monotonic()) {
            tracing::warn!(
                %from,
                bytes,
                count,
                "gossip that no holder of this cluster's cookie sealed is dropped: a stranger, another cookie, or another build"
            );
        }
    }

    /// The next datagram that holders of the cookie sealed goes to the encoder.
    async fn take_in(&mut self) -> anyhow::Result<()> {
        let (bytes, from) = match self.socket.recv_from(&mut self.received).await {
            Ok(received) => received,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(error).context("the gossip socket is broken"),
        };
        match self.received.get(..bytes).and_then(|datagram| self.seal.open(datagram)) {
            Some(said) if self.relay.send(said).await.is_ok() => self.handed = Some((from, bytes)),
            _ => self.drop_one(from, bytes),
        }
        Ok(())
    }
}

#[async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr().context("the gossip socket has no address")
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        let Some(bytes) = self.encode(envelope).await? else {
            if let Some(count) = self.not_sent.note(self.clock.monotonic()) {
                tracing::warn!(%to, count, "a gossip datagram that does not fit with its seal is not sent");
            }
            return Ok(SendOutcome { num_bytes_sent: 0 });
        };
        self.seal.close(&mut self.sent[..bytes]);
        let num_bytes_sent = self.socket.send_to(&self.sent[..bytes], to).await.context("a gossip datagram is not sent")?;
        Ok(SendOutcome { num_bytes_sent })
    }

    /// Dropping the future loses one datagram at most.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            let Some((from_addr, num_bytes_received)) = self.handed else {
                self.take_in().await?;
                continue;
            };
            match tokio::time::timeout(HAND_OVER_TIME_MAX, self.encoder.recv()).await {
                // Others on this host may write to the encoder's port: in vain.
                Ok(read) if read.as_ref().is_ok_and(|read| read.from_addr != self.relay_at) => {}
                Ok(read) => {
                    self.handed = None;
                    return Ok(RecvOutcome { from_addr, num_bytes_received, ..read? });
                }
                Err(_) => {
                    self.handed = None;
                    self.drop_one(from_addr, num_bytes_received);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
