//! What two nodes say before a connection is used for anything, whoever accepted it: that both know the cookie, which versions they speak, who they are.
//!
//! Five messages, each a length `u16` and that many bytes. The first two begin with the magic, so that a stranger is recognised at once:
//!
//! 1. client: magic, purpose `u8`, lowest and highest version `u8`, 32 random bytes
//! 2. server: the same, and its proof
//! 3. client: its proof, its [`Hello`] as JSON
//! 4. server: its verdict, its hello
//! 5. client: its verdict
//!
//! A proof is HMAC-SHA256 under the cookie over the side, both first messages and the TLS channel that all of this is in ([`Secret`]), compared in constant time; the cookie never travels. A verdict other than `ok`
//! is a text that says why. The layout up to the hello is the same in every version, so that any two versions can tell each other which they are. Without
//! TLS below, whoever watches the network learns names and ids, and may take the connection over.

use std::io;

use hmac::{Hmac, KeyInit, Mac};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::super::limits::{HANDSHAKE_BYTES_MAX, HANDSHAKE_TIME_MAX};
use super::super::session::wire::{VERSION_MAX, VERSION_MIN};
use super::super::{BootId, NodeId};

const MAGIC: &[u8; 5] = b"TMESH";
const OPENING_BYTES: usize = MAGIC.len() + 3 + 32;
const PROOF_BYTES: usize = 32;
const OK: &[u8] = b"ok";
/// First byte of what a peer with TLS says, as client and when it ends a connection: lengths that begin so are over the limit.
const TLS_HANDSHAKE: usize = 0x16;
const TLS_ALERT: usize = 0x15;
const _: () = assert!(HANDSHAKE_BYTES_MAX < TLS_ALERT << 8);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    Session = 1,
    Bulk = 2,
}

/// Who a node says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub node: NodeId,
    pub boot: BootId,
    pub name: String,
    /// Where others dial it.
    pub address: String,
    pub cluster_name: String,
    /// None as long as it belongs to no cluster.
    pub cluster_id: Option<String>,
}

impl Hello {
    /// Why these two must not talk, if so.
    fn objection(&self, other: &Self) -> Option<Refused> {
        if self.cluster_name != other.cluster_name {
            return Some(Refused::ClusterName { ours: self.cluster_name.clone(), theirs: other.cluster_name.clone() });
        }
        match (&self.cluster_id, &other.cluster_id) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                Some(Refused::ClusterId { ours: ours.clone(), theirs: theirs.clone(), node: other.node, name: other.name.clone() })
            }
            _ if self.node == other.node && self.boot == other.boot => Some(Refused::Itself),
            _ if self.node == other.node => Some(Refused::SameNode(self.node)),
            _ => None,
        }
    }
}

/// Why this node does not talk to another one. For an operator: it says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the cookie differs: give both nodes the same one")]
    Cookie,
    #[error("it speaks versions {theirs_min} to {theirs_max}, this node {VERSION_MIN} to {VERSION_MAX}: upgrade the older one")]
    Version { theirs_min: u8, theirs_max: u8 },
    #[error("its cluster is named `{theirs}`, this node's `{ours}`: correct the name, or the address that was dialled")]
    ClusterName { ours: String, theirs: String },
    #[error(
        "node {name} ({node}) belongs to cluster {theirs}, this node to {ours}: one of the two has another cluster's data; start it with an empty directory to make \
         it join"
    )]
    ClusterId { ours: String, theirs: String, node: NodeId, name: String },
    #[error("node {0} is this node's own id at another address: a data directory was copied; start one of the two with an empty directory")]
    SameNode(NodeId),
    #[error("it is this node itself")]
    Itself,
    #[error("what answers is no node of this kind")]
    Stranger,
    #[error("it speaks no TLS and this node does: give it the peer.tls_ settings")]
    NoTls,
    #[error("it speaks TLS and this node does not: give this node the peer.tls_ settings, or take them from that one")]
    OnlyTls,
    #[error("its certificate is refused: {0}")]
    Certificate(String),
    #[error("the TLS handshake with it failed: {0}")]
    Tls(String),
    #[error("it refused this node: {0}")]
    ByPeer(String),
}

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it did not say who it is within {} ms", HANDSHAKE_TIME_MAX.as_millis())]
    TimedOut,
}

/// What both sides know when a connection may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub peer: Hello,
    pub purpose: Purpose,
    /// Highest version that both speak.
    pub version: u8,
    /// Number of this connection, the same on both sides.
    pub connection: u64,
}

/// What proves that a node is of the fleet.
#[derive(Clone, Copy)]
pub struct Secret<'a> {
    pub cookie: &'a str,
    /// Known to the two ends of the encrypted connection that this one is inside of; empty without one. Somebody in the middle has another one with each side, so
    /// what he passes on proves nothing.
    pub binding: &'a [u8],
}

impl<'a> Secret<'a> {
    /// Outside of TLS.
    pub const fn of(cookie: &'a str) -> Self {
        Self { cookie, binding: &[] }
    }
}

/// Makes itself known on a connection that this node opened.
///
/// # Errors
/// Why it cannot be used; the peer has been told.
pub async fn dial<S>(stream: &mut S, secret: Secret<'_>, hello: &Hello, purpose: Purpose) -> Result<Agreed, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within_time(async {
        let ours = opening(purpose);
        send(stream, &ours).await?;
        let answer = receive(stream).await?;
        let Some((theirs, proof)) = answer.split_first_chunk::<OPENING_BYTES>() else {
            return Err(stranger_or_refusal(&answer).into());
        };
        let (_, version) = read_opening(theirs)?;
        let version = refuse(stream, version).await?;
        if !proves(secret, b"server", &ours, theirs, proof) {
            return refuse(stream, Err(Refused::Cookie)).await;
        }
        let mut message = prove(secret, b"client", &ours, theirs);
        message.extend_from_slice(&to_json(hello)?);
        send(stream, &message).await?;
        let verdict = receive(stream).await?;
        if verdict != OK {
            let said = text(&verdict);
            let itself = said == Refused::Itself.to_string();
            return Err(if itself { Refused::Itself } else { Refused::ByPeer(said) }.into());
        }
        let peer = read_hello(&receive(stream).await?)?;
        if let Some(objection) = hello.objection(&peer) {
            return refuse(stream, Err(objection)).await;
        }
        send(stream, OK).await?;
        Ok(Agreed { peer, purpose, version, connection: number(secret, &ours, theirs) })
    })
    .await
}

/// Lets somebody make himself known who opened a connection to this node.
///
/// # Errors
/// Why it cannot be used; the peer has been told.
pub async fn accept<S>(stream: &mut S, secret: Secret<'_>, hello: &Hello) -> Result<Agreed, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    within_time(async {
        let opened = match receive(stream).await {
            // It may read the reason before it finds out by itself that this is no TLS.
            Err(HandshakeError::Refused(refused @ Refused::OnlyTls)) => return refuse(stream, Err(refused)).await,
            opened => opened?,
        };
        let Ok(theirs) = <&[u8; OPENING_BYTES]>::try_from(&opened[..]) else { return Err(Refused::Stranger.into()) };
        let (purpose, version) = read_opening(theirs)?;
        let ours = opening(purpose);
        let version = match version {
            Ok(version) => version,
            // With an opening, so that the other side sees which versions this one speaks.
            Err(refused) => {
                send(stream, &ours).await?;
                return Err(refused.into());
            }
        };
        let mut answer = ours.to_vec();
        answer.extend_from_slice(&prove(secret, b"server", theirs, &ours));
        send(stream, &answer).await?;
        let message = receive(stream).await?;
        let Some((proof, peer)) = message.split_first_chunk::<PROOF_BYTES>() else {
            return Err(Refused::ByPeer(text(&message)).into());
        };
        if !proves(secret, b"client", theirs, &ours, proof) {
            // A refusal is text; nobody else's proof reads as one.
            let refused = if message.is_ascii() { Refused::ByPeer(text(&message)) } else { Refused::Cookie };
            return refuse(stream, Err(refused)).await;
        }
        let peer = read_hello(peer)?;
        if let Some(objection) = hello.objection(&peer) {
            return refuse(stream, Err(objection)).await;
        }
        send(stream, OK).await?;
        send(stream, &to_json(hello)?).await?;
        let verdict = receive(stream).await?;
        if verdict != OK {
            return Err(Refused::ByPeer(text(&verdict)).into());
        }
        Ok(Agreed { peer, purpose, version, connection: number(secret, theirs, &ours) })
    })
    .await
}

pub async fn within_time<T>(handshake: impl Future<Output = Result<T, HandshakeError>>) -> Result<T, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake).await.unwrap_or(Err(HandshakeError::TimedOut))
}

fn opening(purpose: Purpose) -> [u8; OPENING_BYTES] {
    let mut opening = [0; OPENING_BYTES];
    opening[..MAGIC.len()].copy_from_slice(MAGIC);
    opening[MAGIC.len()..][..3].copy_from_slice(&[purpose as u8, VERSION_MIN, VERSION_MAX]);
    StdRng::from_os_rng().fill(&mut opening[MAGIC.len() + 3..]);
    opening
}

/// The purpose, and the highest version that both speak.
fn read_opening(opening: &[u8; OPENING_BYTES]) -> Result<(Purpose, Result<u8, Refused>), Refused> {
    let Some([purpose, theirs_min, theirs_max, ..]) = opening.strip_prefix(MAGIC) else { return Err(Refused::Stranger) };
    let purpose = match purpose {
        1 => Purpose::Session,
        2 => Purpose::Bulk,
        _ => return Err(Refused::Stranger),
    };
    let highest = VERSION_MAX.min(*theirs_max);
    let fits = highest >= VERSION_MIN && highest >= *theirs_min;
    Ok((purpose, fits.then_some(highest).ok_or(Refused::Version { theirs_min: *theirs_min, theirs_max: *theirs_max })))
}

fn keyed(secret: Secret<'_>, side: &[u8], client: &[u8], server: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.cookie.as_bytes()).ok()?;
    [side, client, server, secret.binding].into_iter().for_each(|part| mac.update(part));
    Some(mac)
}

fn prove(secret: Secret<'_>, side: &[u8], client: &[u8], server: &[u8]) -> Vec<u8> {
    keyed(secret, side, client, server).map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

fn proves(secret: Secret<'_>, side: &[u8], client: &[u8], server: &[u8], proof: &[u8]) -> bool {
    keyed(secret, side, client, server).is_some_and(|mac| mac.verify_slice(proof).is_ok())
}

fn number(secret: Secret<'_>, client: &[u8], server: &[u8]) -> u64 {
    prove(secret, b"number", client, server).first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Tells the other side why, if there is a reason.
async fn refuse<S: AsyncWrite + Unpin, T>(stream: &mut S, verdict: Result<T, Refused>) -> Result<T, HandshakeError> {
    if let Err(refused) = &verdict {
        // It may be gone; the reason is this side's all the same.
        let _ = send(stream, refused.to_string().as_bytes()).await;
    }
    verdict.map_err(HandshakeError::Refused)
}

fn stranger_or_refusal(answer: &[u8]) -> Refused {
    match std::str::from_utf8(answer) {
        Ok(said) if !said.is_empty() => Refused::ByPeer(said.to_owned()),
        _ => Refused::Stranger,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}

fn to_json(hello: &Hello) -> Result<Vec<u8>, HandshakeError> {
    serde_json::to_vec(hello).map_err(|e| io::Error::other(e).into())
}

fn read_hello(bytes: &[u8]) -> Result<Hello, HandshakeError> {
    serde_json::from_slice(bytes).map_err(|_| Refused::Stranger.into())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&(message.len() as u16).to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    stream.flush().await
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, HandshakeError> {
    let length = usize::from(stream.read_u16().await?);
    if [TLS_ALERT, TLS_HANDSHAKE].contains(&(length >> 8)) {
        return Err(Refused::OnlyTls.into());
    }
    if length > HANDSHAKE_BYTES_MAX {
        return Err(Refused::Stranger.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: u128) -> Hello {
        Hello {
            node: NodeId::from_u128(node),
            boot: BootId(7),
            name: format!("n{node}"),
            address: "127.0.0.1:7071".to_owned(),
            cluster_name: "main".to_owned(),
            cluster_id: None,
        }
    }

    async fn meet(client: (&str, Hello), server: (&str, Hello)) -> (Result<Agreed, HandshakeError>, Result<Agreed, HandshakeError>) {
        let (mut a, mut b) = tokio::io::duplex(4 << 10);
        tokio::join!(dial(&mut a, Secret::of(client.0), &client.1, Purpose::Session), accept(&mut b, Secret::of(server.0), &server.1))
    }

    #[tokio::test]
    async fn nodes_that_fit_know_each_other_afterwards() {
        let (a, b) = meet(("secret", hello(1)), ("secret", Hello { cluster_id: Some("x".to_owned()), ..hello(2) })).await;
        assert_eq!(a.expect("agreed").peer.node, NodeId::from_u128(2));
        let b = b.expect("agreed");
        assert_eq!((b.peer, b.version), (hello(1), VERSION_MAX));
    }

    #[tokio::test]
    async fn each_reason_to_refuse_is_told_to_both_sides() {
        let in_cluster = |node, id: &str| Hello { cluster_id: Some(id.to_owned()), ..hello(node) };
        let other_name = Hello { cluster_name: "test".to_owned(), ..hello(2) };
        let second_run = Hello { boot: BootId(8), ..hello(1) };
        for (server, says) in [
            (("wrong", hello(2)), "cookie"),
            (("secret", other_name), "is named"),
            (("secret", in_cluster(2, "y")), "belongs to cluster"),
            (("secret", second_run), "copied"),
            (("secret", in_cluster(1, "x")), "itself"),
        ] {
            let (a, b) = meet(("secret", in_cluster(1, "x")), server).await;
            let (a, b) = (a.expect_err("refused").to_string(), b.expect_err("refused").to_string());
            assert!(
                (a.contains(says) || a.contains("refused this node")) && (b.contains(says) || b.contains("refused this node")),
                "{says}: {a} / {b}"
            );
            assert!(a.contains(says) || b.contains(says), "{says}: {a} / {b}");
        }
    }

    #[tokio::test]
    async fn version_that_nobody_shares_is_named() {
        let (mut a, mut b) = tokio::io::duplex(4 << 10);
        let mut of_the_future = opening(Purpose::Session);
        of_the_future[MAGIC.len() + 1] = VERSION_MAX + 1;
        of_the_future[MAGIC.len() + 2] = VERSION_MAX + 3;
        send(&mut a, &of_the_future).await.expect("sent");
        let refused = accept(&mut b, Secret::of("secret"), &hello(1)).await.expect_err("refused").to_string();
        assert!(refused.contains("versions 2 to 4"), "{refused}");
        assert!(receive(&mut a).await.expect("an opening that names the versions").starts_with(MAGIC));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_and_those_who_say_nothing_are_let_go() {
        let (mut a, mut b) = tokio::io::duplex(4 << 10);
        a.write_all(b"GET / HTTP/1.1\r\nhost: somebody\r\n\r\n").await.expect("sent");
        assert!(matches!(accept(&mut b, Secret::of("secret"), &hello(1)).await, Err(HandshakeError::Refused(Refused::Stranger))));
        let (mut silent, _kept) = tokio::io::duplex(4 << 10);
        assert!(matches!(accept(&mut silent, Secret::of("secret"), &hello(1)).await, Err(HandshakeError::TimedOut)));
        let (mut silent, _kept) = tokio::io::duplex(4 << 10);
        assert!(matches!(dial(&mut silent, Secret::of("secret"), &hello(1), Purpose::Bulk).await, Err(HandshakeError::TimedOut)));
    }
}
