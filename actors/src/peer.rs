//! Nodes among themselves: who they are, how they reach each other, how one asks another.
//!
//! # The way of a question
//!
//! [`Peers::call`] -> [`session::link`] splits it into frames of its lane, within the peer's window -> the library's session (one TCP connection) -> the peer's endpoint
//! actor -> its [`session::link`] -> [`Handler::handle`] in a task of its own -> the answer, the same way back. A call ends in every case: with an answer, a refusal, at
//! its deadline, or at once when the session ends.
//!
//! # What is bounded, and where
//!
//! [`limits`] has every number. The library queues without bound and never slows a sender, so what is on its way to a peer is counted here and given back by the
//! receiver, for urgent messages (votes, heartbeats) and others apart. What does not fit is refused before anything is sent. Large messages are split; what is
//! larger than a log entry may be is refused, and bulk (snapshot files) has connections of its own ([`bulk`]).
//!
//! # Connections
//!
//! Every connection at the peer port begins with [`auth::tls`] where that is set up, and a [`auth::handshake`]: certificates, cookie, version, cluster and node are settled
//! before the library sees a byte. A peer that is stopped or cut off never ends its TCP connection: whoever watches liveness calls [`Peers::drop_session`]. What was sent and not answered by then is unknown,
//! never assumed.

mod auth;
pub mod bulk;
pub mod limits;
pub mod rpc;
mod session;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

pub use auth::handshake::{HandshakeError, Hello, Refused};
pub use auth::identity::{BootId, NodeId, load_or_make};
pub use auth::tls::{Tls, TlsError, TlsFiles};
pub use rpc::{Handler, Lane, PeerError, Refusal, RefusalCode, Request, Rpc, RpcKind};
pub use transport::dialer::Target;
pub use transport::registry::PeerTable;

use auth::credentials::Credentials;
use bulk::{BulkClient, BulkServer};
use transport::registry::Registry;
use transport::{Start, Transport};

/// How to start.
pub struct PeerOptions {
    /// Who this node is; the address in it is what others dial.
    pub hello: Hello,
    /// Known to all nodes of a cluster and to nobody else.
    pub cookie: String,
    pub listen: SocketAddr,
    pub clock: Arc<dyn Clock>,
    /// Whom peers get files from; none refuses them.
    pub bulk: Option<Arc<BulkServer>>,
    /// Mutual TLS with every peer; none is for one host only.
    pub tls: Option<TlsFiles>,
}

#[derive(Debug, thiserror::Error)]
pub enum PeerStartError {
    #[error("listening for peers at {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("an empty cookie keeps nobody out: set one, the same at every node")]
    NoCookie,
    #[error("TLS between nodes: {0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Library(String),
}

/// The other nodes, as this one reaches them. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    me: Arc<RwLock<Hello>>,
    credentials: Arc<Credentials>,
    registry: Arc<Registry>,
    bulk: Option<Arc<BulkServer>>,
    transport: Transport,
}

impl Peers {
    /// Listens, and serves peers that come. Nobody is dialled before [`Peers::set_targets`].
    ///
    /// # Errors
    /// The port's, no cookie, or certificates that cannot be used.
    pub async fn start(options: PeerOptions, handler: Arc<dyn Handler>) -> Result<Self, PeerStartError> {
        let PeerOptions { hello, cookie, listen, clock, bulk, tls } = options;
        if cookie.is_empty() {
            return Err(PeerStartError::NoCookie);
        }
        if tls.is_none() && !listen.ip().is_loopback() {
            tracing::warn!(%listen, "peers talk in the clear on a network: whoever can read or change its packets can read and change data; set peer.tls_ca, tls_cert and tls_key");
        }
        let tls = tls.map(|files| Tls::load(files, clock.clone())).transpose()?;
        let credentials = Arc::new(Credentials::new(cookie, tls.map(Arc::new)).leaving_from(listen.ip()));
        let listener = TcpListener::bind(listen).await.map_err(|error| PeerStartError::Listen { address: listen, error })?;
        let (me, registry) = (Arc::new(RwLock::new(hello)), Arc::new(Registry::default()));
        let start = Start {
            me: me.clone(),
            credentials: credentials.clone(),
            listener,
            registry: registry.clone(),
            handler,
            bulk: bulk.clone(),
            clock,
        };
        let transport = Transport::start(start).await.map_err(PeerStartError::Library)?;
        Ok(Self { inner: Arc::new(Inner { me, credentials, registry, bulk, transport }) })
    }

    /// Who this node says it is.
    pub fn me(&self) -> Hello {
        self.inner.me.read().clone()
    }

    /// Asks a peer. The question is on its way when this returns, the future only waits; dropping it tells the peer that nobody does. This node is no peer of its
    /// own.
    pub fn call(&self, node: NodeId, rpc: Rpc, deadline: Instant) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        match self.inner.registry.session(node) {
            Some(session) => session.call(rpc, deadline),
            None => futures::future::ready(Err(PeerError::Unreachable(node))).boxed(),
        }
    }

    /// [`Peers::call`] by the number that the node has in replica groups.
    pub fn call_member(&self, member: u64, rpc: Rpc, deadline: Instant) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let session = self.inner.registry.sessions().into_iter().find(|session| session.peer.node.member() == member);
        match session {
            Some(session) => session.call(rpc, deadline),
            None => futures::future::ready(Err(PeerError::Unreachable(NodeId::from_member(member, 0)))).boxed(),
        }
    }

    /// Whom to be connected to: live members, and addresses that an operator gave. Sessions with others stay as they are.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.inner.transport.set_targets(targets);
    }

    /// Ends the session with one run of a node that was found silent. Its calls end at once.
    pub fn drop_session(&self, node: NodeId, boot: BootId) {
        // Not only in the transport's task: whoever waits should know now.
        if let Some(session) = self.inner.registry.session(node).filter(|session| session.peer.boot == boot) {
            session.end("silent");
        }
        self.inner.transport.drop_session(node, boot);
    }

    /// The cluster that this node founded or joined. Every connection is made anew, so that both sides know.
    pub fn set_cluster(&self, cluster_id: String) {
        self.inner.me.write().cluster_id = Some(cluster_id);
        self.inner.transport.cluster_changed();
    }

    /// Who is connected.
    pub fn watch(&self) -> watch::Receiver<PeerTable> {
        self.inner.registry.table.subscribe()
    }

    /// Bytes that wait for a peer or are on their way to it.
    pub fn outgoing_bytes(&self, node: NodeId) -> usize {
        self.inner.registry.session(node).map_or(0, |session| session.outgoing_bytes())
    }

    /// Bytes of a shard's files that a member has fetched from this node.
    pub fn given_bytes(&self, member: u64, shard: ShardId) -> u64 {
        self.inner.bulk.as_ref().map_or(0, |bulk| bulk.given_bytes(member, shard))
    }

    /// Fetches files of peers.
    pub fn bulk(&self) -> BulkClient {
        BulkClient::new(self.inner.me.clone(), self.inner.credentials.clone())
    }

    /// Ends every session and stops listening. Idempotent.
    pub async fn shutdown(&self) {
        self.inner.transport.stop().await;
    }
}

#[cfg(test)]
mod tests;
