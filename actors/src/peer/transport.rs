//! Makes and ends connections: the listener, the dialer, and the library's node server that keeps authenticated sessions.
//!
//! The library's own listener is not used (it accepts TLS connections one after the other, so that one silent client stops it); it cannot be left out, so it
//! listens on a loopback port that nobody is told, and whatever comes from there is stopped: a session without a handshake of ours is unknown.

pub(super) mod dialer;
mod doors;
pub(super) mod registry;
mod source;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use ractor::{Actor, ActorCell, ActorId, ActorRef};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream, NodeEventSubscription, NodeServer, NodeServerMessage, NodeSessionMessage};
use tallymesh_storage::clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::auth::credentials::Credentials;
use super::auth::handshake::{Agreed, HandshakeError, Hello, Purpose, Refused};
use super::bulk::BulkServer;
use super::limits::{CONNECT_TIME_MAX, DIAL_TICK, FRAME_BYTES_MAX, HANDSHAKE_TIME_MAX, LOOK_AT_FILES_EVERY};
use super::rpc::Handler;
use super::session::Session;
use super::{BootId, NodeId};
use dialer::{Dialer, Dialled, Target};
use doors::Doors;
use registry::Registry;

/// A frame of the library around one of ours, in bytes.
const ENVELOPE_BYTES_MAX: u64 = 1 << 10;
/// An ended session has this long to let go before a new one takes its place.
const LET_GO_TIME_MAX: Duration = Duration::from_secs(1);

/// What both ends of a connection are to us; TLS goes around it where it is dialled and where it is accepted.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A connection on which both sides said who they are.
struct Connected {
    stream: Box<dyn Stream>,
    agreed: Agreed,
    /// The cluster that this node said it belongs to.
    as_member_of: Option<String>,
}

impl ClusterBidiStream for Connected {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (reader, writer) = tokio::io::split(self.stream);
        (Box::new(reader), Box::new(writer))
    }

    /// What its session is known by afterwards.
    fn peer_label(&self) -> Option<String> {
        Some(label(self.agreed.connection))
    }
}

fn label(connection: u64) -> String {
    format!("{connection:016x}")
}

fn connection(info: &NodeServerSessionInformation) -> Option<u64> {
    u64::from_str_radix(&info.peer_addr, 16).ok().filter(|_| info.peer_addr.len() == 16)
}

enum Event {
    Opened(NodeServerSessionInformation),
    Ready(NodeServerSessionInformation),
    Ended(NodeServerSessionInformation),
    /// A connection on which both sides said who they are; whether the peer opened it.
    Connected {
        connected: Connected,
        is_server: bool,
    },
    /// Somebody was turned away at the door.
    NotAccepted {
        from: IpAddr,
        reason: String,
    },
    Dialled {
        address: String,
        result: Result<Connected, HandshakeError>,
    },
    Targets(Vec<Target>),
    Drop {
        node: NodeId,
        boot: BootId,
    },
    ClusterChanged,
    Stop,
}

struct Subscription(mpsc::UnboundedSender<Event>);

impl NodeEventSubscription for Subscription {
    fn node_session_opened(&self, info: NodeServerSessionInformation) {
        let _ = self.0.send(Event::Opened(info));
    }

    fn node_session_disconnected(&self, info: NodeServerSessionInformation) {
        let _ = self.0.send(Event::Ended(info));
    }

    fn node_session_authenticated(&self, _info: NodeServerSessionInformation) {}

    fn node_session_ready(&self, info: NodeServerSessionInformation) {
        let _ = self.0.send(Event::Ready(info));
    }
}

/// What a transport is started with.
pub struct Start {
    pub me: Arc<RwLock<Hello>>,
    pub credentials: Arc<Credentials>,
    pub listener: TcpListener,
    pub registry: Arc<Registry>,
    pub handler: Arc<dyn Handler>,
    pub bulk: Option<Arc<BulkServer>>,
    pub clock: Arc<dyn Clock>,
}

/// What the handle keeps.
pub struct Transport {
    events: mpsc::UnboundedSender<Event>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Transport {
    /// # Errors
    /// The library's actors did not start.
    pub async fn start(start: Start) -> Result<Self, String> {
        let endpoint = super::session::endpoint::Endpoint;
        let (endpoint, endpoint_task) =
            Actor::spawn(None, endpoint, Arc::downgrade(&start.registry)).await.map_err(|e| format!("the peers' endpoint: {e}"))?;
        let me = start.me.read().clone();
        // The name says where frames go to: with several nodes in one process every session shows the endpoints of all.
        let name = format!("{}.{}.{}", me.node, me.boot, endpoint.get_id().pid());
        let host = format!("{}.{}", me.node, me.boot);
        let mode = Some(NodeConnectionMode::Isolated);
        let server = NodeServer::new(0, start.credentials.cookie().to_owned(), name, host, None, mode)
            .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST))
            .with_max_inbound_frame_size(FRAME_BYTES_MAX as u64 + ENVELOPE_BYTES_MAX);
        let (server, server_task) = Actor::spawn(None, server, ()).await.map_err(|e| format!("the peers' node server: {e}"))?;
        let (events, inbox) = mpsc::unbounded_channel();
        let subscription = Box::new(Subscription(events.clone()));
        let subscribed = server.cast(NodeServerMessage::SubscribeToEvents { id: "transport".to_owned(), subscription });
        subscribed.map_err(|e| format!("the peers' node server: {e}"))?;
        let dialer = Dialer::new(me.node);
        let running = Running {
            start,
            server,
            events: events.clone(),
            dialer,
            open: HashMap::new(),
            tasks: JoinSet::new(),
            doors: Arc::new(Doors::default()),
            said: BTreeSet::new(),
            turned_away: BTreeMap::new(),
            look_at_files: Duration::ZERO,
        };
        let task = tokio::spawn(async move {
            let server = running.server.clone();
            running.run(inbox).await;
            for (actor, task) in [(server.get_cell(), server_task), (endpoint.get_cell(), endpoint_task)] {
                actor.stop(None);
                let _ = task.await;
            }
        });
        Ok(Self { events, task: tokio::sync::Mutex::new(Some(task)) })
    }

    pub fn set_targets(&self, targets: Vec<Target>) {
        let _ = self.events.send(Event::Targets(targets));
    }

    pub fn drop_session(&self, node: NodeId, boot: BootId) {
        let _ = self.events.send(Event::Drop { node, boot });
    }

    pub fn cluster_changed(&self) {
        let _ = self.events.send(Event::ClusterChanged);
    }

    pub async fn stop(&self) {
        let _ = self.events.send(Event::Stop);
        // A second caller waits for the first.
        let mut task = self.task.lock().await;
        if let Some(task) = task.take()
            && let Err(error) = task.await
        {
            tracing::warn!(%error, "the transport did not end cleanly");
        }
    }
}

/// A connection from the handshake to its end.
struct Open {
    peer: Hello,
    one_cluster: bool,
    since: Duration,
    actor: Option<ActorRef<NodeSessionMessage>>,
    ready: bool,
}

struct Running {
    start: Start,
    server: ActorRef<NodeServerMessage>,
    events: mpsc::UnboundedSender<Event>,
    dialer: Dialer,
    open: HashMap<u64, Open>,
    /// Handshakes, dials, bulk streams.
    tasks: JoinSet<()>,
    doors: Arc<Doors>,
    /// Addresses of which it was logged that they are not reached.
    said: BTreeSet<String>,
    turned_away: BTreeMap<(IpAddr, String), Duration>,
    /// When certificate files are looked at although nobody connects.
    look_at_files: Duration,
}

/// Addresses and reasons that are remembered as logged.
const SAID_MAX: usize = 256;
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Running {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let mut tick = tokio::time::interval(DIAL_TICK);
        loop {
            tokio::select! {
                biased;
                event = inbox.recv() => match event {
                    Some(Event::Stop) | None => break,
                    Some(event) => self.event(event),
                },
                accepted = self.start.listener.accept() => {
                    let failed = accepted.is_err();
                    self.accepted(accepted);
                    if failed {
                        // No file descriptors, most likely: at once it would fail again.
                        tokio::time::sleep(DIAL_TICK).await;
                    }
                }
                _ = tick.tick() => self.tick(),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
            }
        }
        for session in self.start.registry.sessions() {
            self.start.registry.gone(session.connection);
            session.end("shutdown");
        }
        self.tasks.shutdown().await;
    }

    fn now(&self) -> Duration {
        self.start.clock.monotonic()
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Opened(info) => self.opened(info),
            Event::Ready(info) => self.ready(info),
            Event::Ended(info) => self.ended(&info),
            Event::Connected { connected, is_server } => self.hand_over(connected, is_server),
            Event::NotAccepted { from, reason } => self.not_accepted(from, reason),
            Event::Dialled { address, result } => self.dialled(address, result),
            Event::Targets(targets) => {
                let now = self.now();
                self.start.registry.table.send_modify(|table| {
                    table.failed.retain(|address, _| targets.iter().any(|target| target.address == *address));
                });
                self.dialer.set_targets(targets, now);
            }
            Event::Drop { node, boot } => {
                if let Some(session) = self.start.registry.session(node).filter(|session| session.peer.boot == boot) {
                    tracing::warn!(%node, name = session.peer.name, "a peer is silent: its session ends");
                    self.end(session.connection, "silent");
                }
            }
            Event::ClusterChanged => {
                let open: Vec<u64> = self.open.keys().copied().collect();
                open.into_iter().for_each(|connection| self.end(connection, "this node's cluster changed"));
            }
            Event::Stop => {}
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        if now >= self.look_at_files
            && let Some(tls) = self.start.credentials.tls().cloned()
        {
            self.look_at_files = now + LOOK_AT_FILES_EVERY;
            self.tasks.spawn_blocking(move || drop(tls.look()));
        }
        let late: Vec<u64> = self.open.iter().filter(|(_, o)| !o.ready && now >= o.since + HANDSHAKE_TIME_MAX).map(|(c, _)| *c).collect();
        for connection in late {
            self.end(connection, "not ready in time");
        }
        let registry = self.start.registry.clone();
        for address in self.dialer.due(now, |node| registry.session(node).is_some()) {
            let (events, credentials, me) = (self.events.clone(), self.start.credentials.clone(), self.start.me.read().clone());
            self.tasks.spawn(async move {
                let result = dial(&address, &credentials, &me, Purpose::Session).await;
                let as_member_of = me.cluster_id;
                let result = result.map(|(stream, agreed)| Connected { stream, agreed, as_member_of });
                let _ = events.send(Event::Dialled { address, result });
            });
        }
    }

    fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection at the peer port could not be accepted");
                return;
            }
        };
        let door = match self.doors.open(from.ip()) {
            Ok(door) => door,
            Err(reason) => return self.not_accepted(from.ip(), reason),
        };
        let (events, credentials, me, bulk) =
            (self.events.clone(), self.start.credentials.clone(), self.start.me.read().clone(), self.start.bulk.clone());
        self.tasks.spawn(async move {
            let _ = stream.set_nodelay(true);
            let result = credentials.accept(stream, &me).await;
            drop(door);
            match result {
                Ok((stream, agreed)) if agreed.purpose == Purpose::Session => {
                    let connected = Connected { stream, agreed, as_member_of: me.cluster_id };
                    let _ = events.send(Event::Connected { connected, is_server: true });
                }
                Ok((stream, agreed)) => {
                    if let Some(bulk) = bulk {
                        bulk.serve(stream, &agreed.peer).await;
                    }
                }
                Err(HandshakeError::Refused(Refused::Itself)) => {}
                Err(error) => {
                    let _ = events.send(Event::NotAccepted { from: from.ip(), reason: error.to_string() });
                }
            }
        });
    }

    /// A peer that is refused comes again every few seconds: its reason is logged now and then.
    fn not_accepted(&mut self, from: IpAddr, reason: String) {
        let now = self.now();
        self.turned_away.retain(|_, at| now < *at + SAY_AGAIN_AFTER);
        if self.turned_away.len() < SAID_MAX && !self.turned_away.contains_key(&(from, reason.clone())) {
            tracing::warn!(%from, reason, "a connection at the peer port was refused");
            self.turned_away.insert((from, reason), now);
        }
    }

    fn dialled(&mut self, address: String, result: Result<Connected, HandshakeError>) {
        let now = self.now();
        let outcome = match result {
            // It ends, and the next one says it right.
            Ok(connected) if self.is_outdated(&connected) => Dialled::Failed,
            Ok(connected) => {
                let peer = &connected.agreed.peer;
                let node = peer.node;
                if self.said.remove(&address) {
                    tracing::info!(address, %node, name = peer.name, "a peer is reached again");
                }
                self.start.registry.table.send_modify(|table| {
                    table.failed.remove(&address);
                    table.at.insert(address.clone(), node);
                });
                let is_there = self.start.registry.session(node).is_some_and(|session| session.peer.boot == connected.agreed.peer.boot);
                if !is_there {
                    self.hand_over(connected, false);
                }
                Dialled::Reached(node)
            }
            Err(HandshakeError::Refused(Refused::Itself)) => {
                let me = self.start.me.read().node;
                self.start.registry.table.send_modify(|table| {
                    table.at.insert(address.clone(), me);
                });
                Dialled::Itself
            }
            Err(error) => {
                let reason = error.to_string();
                if self.said.len() >= SAID_MAX {
                    self.said.clear();
                }
                let known = self.start.registry.table.borrow().failed.get(&address) == Some(&reason);
                if !known {
                    self.said.insert(address.clone());
                    match &error {
                        HandshakeError::Refused(_) => tracing::error!(address, reason, "a peer cannot be connected to"),
                        HandshakeError::Io(_) | HandshakeError::TimedOut => tracing::info!(address, reason, "a peer is not reached yet"),
                    }
                    self.start.registry.table.send_modify(|table| {
                        table.failed.insert(address.clone(), reason);
                    });
                }
                Dialled::Failed
            }
        };
        self.dialer.dialled(&address, outcome, now);
    }

    /// Whether this node has found its cluster since it said who it is: the peer would take it for a stranger as long as the connection lasts.
    fn is_outdated(&self, connected: &Connected) -> bool {
        connected.as_member_of != self.start.me.read().cluster_id
    }

    /// Gives a connection to the library. A peer that dials has no session: one that is there is stale, and goes first.
    fn hand_over(&mut self, connected: Connected, is_server: bool) {
        if self.is_outdated(&connected) {
            return;
        }
        let peer = connected.agreed.peer.clone();
        if let Some(stale) = self.start.registry.session(peer.node) {
            if stale.peer.boot != peer.boot && stale.peer.address != peer.address {
                // A copied data directory, or a node that moved: which of the two is known when the former is silent. Until then it counts.
                let reason = format!("node {} ({}) is connected from {} already", peer.node, stale.peer.name, stale.peer.address);
                self.not_accepted(IpAddr::V4(Ipv4Addr::UNSPECIFIED), reason);
                return;
            }
            self.forget(stale.connection, "replaced");
            let (events, actor) = (self.events.clone(), self.open.get(&stale.connection).and_then(|open| open.actor.clone()));
            self.tasks.spawn(async move {
                if let Some(actor) = actor {
                    let _ = actor.stop_and_wait(Some("replaced".to_owned()), Some(LET_GO_TIME_MAX)).await;
                }
                let _ = events.send(Event::Connected { connected, is_server });
            });
            return;
        }
        let (number, me) = (connected.agreed.connection, self.start.me.read().clone());
        let one_cluster = me.cluster_id.is_some() && me.cluster_id == peer.cluster_id;
        let open = Open { peer, one_cluster, since: self.now(), actor: None, ready: false };
        self.open.insert(number, open);
        self.start.registry.opening(number);
        let opened = NodeServerMessage::ConnectionOpenedExternal { stream: Box::new(connected), is_server };
        if self.server.cast(opened).is_err() {
            tracing::error!("the peers' node server has ended");
        }
    }

    fn opened(&mut self, info: NodeServerSessionInformation) {
        match connection(&info).and_then(|connection| self.open.get_mut(&connection)) {
            Some(open) => open.actor = Some(info.actor),
            None => {
                tracing::warn!(from = info.peer_addr, "a session without a handshake is stopped");
                info.actor.stop(Some("no handshake".to_owned()));
            }
        }
    }

    fn ready(&mut self, info: NodeServerSessionInformation) {
        let Some((number, open)) = connection(&info).and_then(|number| self.open.get_mut(&number).map(|open| (number, open))) else {
            return;
        };
        let Some(endpoint) = endpoint_of(&info, open.peer.node, open.peer.boot) else {
            tracing::error!(node = %open.peer.node, "a peer shows no endpoint");
            self.end(number, "no endpoint");
            return;
        };
        open.ready = true;
        let session = Session::new(open.peer.clone(), number, open.one_cluster, info.actor, endpoint, self.start.handler.clone());
        tracing::info!(node = %session.peer.node, name = session.peer.name, address = session.peer.address, "a peer is connected");
        if let Some(replaced) = self.start.registry.ready(&session) {
            self.end(replaced.connection, "replaced");
        }
    }

    fn ended(&mut self, info: &NodeServerSessionInformation) {
        let Some(number) = connection(info) else { return };
        self.forget(number, "ended");
        self.open.remove(&number);
    }

    /// Ends a connection; what its library session still says about it is of no interest.
    fn end(&mut self, number: u64, reason: &str) {
        self.forget(number, reason);
        match self.open.get(&number).map(|open| open.actor.clone()) {
            Some(Some(actor)) => actor.stop(Some(reason.to_owned())),
            // The library never began with it, or is about to: then it is unknown by then, and stopped.
            _ => drop(self.open.remove(&number)),
        }
    }

    /// From here on nobody uses the connection; every call over it is settled.
    fn forget(&mut self, number: u64, reason: &str) {
        let now = self.now();
        let session = self.start.registry.gone(number);
        let Some(open) = self.open.get_mut(&number) else { return };
        open.ready = false;
        open.since = now;
        self.dialer.lost(open.peer.node, now);
        if let Some(session) = session {
            tracing::info!(node = %session.peer.node, name = session.peer.name, reason, "the session with a peer ended");
            session.end(reason);
        }
    }
}

/// The actor of a session that stands for the peer's endpoint: the peer's name says which it is.
fn endpoint_of(info: &NodeServerSessionInformation, node: NodeId, boot: BootId) -> Option<ActorCell> {
    let name = &info.peer_name.as_ref()?.name;
    let pid: u64 = name.split('@').next()?.strip_prefix(&format!("{node}.{boot}."))?.parse().ok()?;
    let is_it = |cell: &ActorCell| matches!(cell.get_id(), ActorId::Remote { pid: its, .. } if its == pid);
    info.actor.get_cell().get_children().into_iter().find(is_it)
}

/// Opens a connection to an address and makes this node known there.
pub async fn dial(
    address: &str,
    credentials: &Credentials,
    me: &Hello,
    purpose: Purpose,
) -> Result<(Box<dyn Stream>, Agreed), HandshakeError> {
    let connected = tokio::time::timeout(CONNECT_TIME_MAX, source::connect(address, credentials.source())).await;
    let stream = connected.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the address does not answer"))??;
    stream.set_nodelay(true)?;
    credentials.greet(stream, me, purpose).await
}
