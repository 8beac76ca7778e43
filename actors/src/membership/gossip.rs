//! `chitchat`, as this fleet uses it: UDP, sealed ([`super::sealed`]), what a node says of itself under one key, and a detector that finds a silent node within about half a second.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState as GossipState, ProtocolVersion, spawn_chitchat,
};
use futures::StreamExt;
use tallymesh_storage::clock::Clock;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::sealed::{Dropped, Seal, SealedTransport};
use super::{Effect, NodeInfo, NodeState, Sighting, View};
use crate::peer::Peers;

const GOSSIP_INTERVAL: Duration = Duration::from_millis(100);
/// Intervals longer than this say nothing about how regular a node is.
const INTERVAL_MAX: Duration = Duration::from_secs(2);
/// What the detector assumes before it has seen anything: without it a new node counts as alive for many seconds.
const INTERVAL_ASSUMED: Duration = Duration::from_millis(200);
const PHI_THRESHOLD: f64 = 12.0;
const SAMPLES: usize = 100;
/// A dead node's gossip is kept this long; then the addresses of members come from where members are kept.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(600);
/// Values that were replaced are kept this long for nodes that lag.
const DELETION_GRACE: Duration = Duration::from_secs(600);
/// The one key: what the node says of itself, as JSON.
const KEY: &str = "node";

/// How to start.
pub struct GossipOptions {
    pub me: NodeInfo,
    /// Nodes of other names are not listened to.
    pub cluster_name: String,
    pub listen: SocketAddr,
    /// Where others send to; what [`NodeInfo::gossip`] says is for people.
    pub advertise: SocketAddr,
    /// Addresses to begin with; names are resolved, again and again.
    pub seeds: Vec<String>,
    /// Known to all nodes of the cluster and to nobody else: whoever lacks it is neither heard nor understood.
    pub cookie: String,
    pub clock: Arc<dyn Clock>,
}

/// Keeps a view of the fleet, and the peers connected accordingly.
pub struct Gossip {
    handle: ChitchatHandle,
    view: watch::Receiver<View>,
    dropped: Dropped,
    task: JoinHandle<()>,
}

impl Gossip {
    /// `follow` is told of every effect: [`connect`] for a process, something else for a test.
    ///
    /// # Errors
    /// The port's, or no cookie.
    pub async fn start(options: GossipOptions, mut follow: impl FnMut(&Effect) + Send + 'static) -> Result<Self, String> {
        let GossipOptions { me, cluster_name, listen, advertise, seeds, cookie, clock } = options;
        let seal = Seal::new(&cookie).ok_or("an empty cookie keeps nobody out of gossip: set one, the same at every node")?;
        let dropped = Dropped::default();
        let (node, boot) = (me.node, me.boot);
        let config = ChitchatConfig {
            // The run's number rises with every start, so that a later run is a later generation.
            chitchat_id: ChitchatId::new(node.to_string(), boot.0, advertise),
            cluster_id: cluster_name,
            gossip_interval: GOSSIP_INTERVAL,
            listen_addr: listen,
            seed_nodes: seeds,
            failure_detector_config: FailureDetectorConfig::new(PHI_THRESHOLD, SAMPLES, INTERVAL_MAX, INTERVAL_ASSUMED, DEAD_NODE_GRACE),
            marked_for_deletion_grace_period: DELETION_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V0,
        };
        let said = serde_json::to_string(&me).map_err(|e| e.to_string())?;
        let started =
            spawn_chitchat(config, vec![(KEY.to_owned(), said)], &SealedTransport { seal, dropped: dropped.clone(), clock: clock.clone() })
                .await;
        let handle = started.map_err(|e| format!("gossip at {listen}: {e:#}"))?;
        let mut seen = handle.with_chitchat(|chitchat| chitchat.live_nodes_watch_stream()).await;
        let (sender, view) = watch::channel(View::new(node));
        let task = tokio::spawn(async move {
            while let Some(alive) = seen.next().await {
                let sighting = sighting(&alive);
                let mut effects = Vec::new();
                sender.send_if_modified(|view| {
                    let before = view.clone();
                    effects = view.step(&sighting, clock.monotonic());
                    *view != before
                });
                effects.iter().for_each(&mut follow);
            }
        });
        Ok(Self { handle, view, dropped, task })
    }

    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Datagrams that nobody of the cluster has sealed.
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }

    /// What this node says of itself from now on.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub async fn say(&self, me: &NodeInfo) -> Result<(), String> {
        let said = serde_json::to_string(me).map_err(|e| e.to_string())?;
        self.handle.with_chitchat(|chitchat| chitchat.self_node_state().set(KEY, &said)).await;
        Ok(())
    }

    /// Stops talking; others find this node silent.
    pub async fn shutdown(self) {
        if let Err(error) = self.handle.shutdown().await {
            tracing::warn!(%error, "gossip did not end cleanly");
        }
        self.task.abort();
        // It was told to end.
        let _ = self.task.await;
    }
}

/// Nodes of which only a heartbeat was seen, or whose words do not read, are not there yet.
fn sighting(alive: &BTreeMap<ChitchatId, GossipState>) -> Sighting {
    let read = |(id, state): (&ChitchatId, &GossipState)| {
        let info: NodeInfo = serde_json::from_str(state.get(KEY)?).ok()?;
        (*info.node.to_string() == *id.node_id && info.boot.0 == id.generation_id).then_some(info)
    };
    Sighting { alive: alive.iter().filter_map(read).collect() }
}

/// What effects mean for connections and for the operator. `seeds` are dialled besides, as long as they are nobody known.
pub fn connect(peers: Peers, seeds: Vec<String>) -> impl FnMut(&Effect) + Send + 'static {
    move |effect| match effect {
        Effect::Dial(targets) => {
            let known: Vec<&str> = targets.iter().map(|target| target.address.as_str()).collect();
            let others = seeds.iter().filter(|seed| !known.contains(&seed.as_str()));
            let others = others.map(|seed| crate::peer::Target { node: None, address: seed.clone() });
            peers.set_targets(targets.iter().cloned().chain(others).collect());
        }
        Effect::DropSession { node, boot } => peers.drop_session(*node, *boot),
        Effect::Alive(node) => tracing::info!(%node, "a node lives"),
        Effect::Dead(node) => tracing::warn!(%node, "a node is silent"),
        Effect::SameName { name, nodes: [a, b] } => {
            tracing::error!(name, %a, %b, "two living nodes bear one name: give one of them another --node");
        }
        Effect::SameNode { node, at: [a, b] } => {
            tracing::error!(%node, a, b, "one node id at two addresses: a data directory was copied; start one of the two with an empty directory");
        }
    }
}

impl NodeInfo {
    /// Whether it belongs to the cluster.
    pub fn is_member(&self) -> bool {
        matches!(self.state, NodeState::Member | NodeState::Draining)
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_storage::clock::SystemClock;
    use tokio::time::timeout;

    use super::super::*;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn start(node: u128, boot: u64, port: SocketAddr, seed: SocketAddr) -> Gossip {
        start_with("the cookie", node, boot, port, seed).await
    }

    async fn start_with(cookie: &str, node: u128, boot: u64, port: SocketAddr, seed: SocketAddr) -> Gossip {
        let me = NodeInfo {
            node: NodeId::from_u128(node),
            boot: BootId(boot),
            name: format!("n{node}"),
            peer: format!("127.0.0.1:{node}"),
            http: String::new(),
            gossip: port.to_string(),
            version: "1".to_owned(),
            state: NodeState::Empty,
        };
        let (cluster_name, seeds, clock) = ("main".to_owned(), vec![seed.to_string()], Arc::new(SystemClock::new()));
        let cookie = cookie.to_owned();
        let options = GossipOptions { me, cluster_name, listen: port, advertise: port, seeds, cookie, clock };
        Gossip::start(options, |_| {}).await.expect("started")
    }

    /// Free a moment ago, on a loopback address that nobody else looks for a port on.
    async fn ports(host: u8) -> [SocketAddr; 3] {
        let mut sockets = Vec::new();
        for _ in 0..3 {
            sockets.push(tokio::net::UdpSocket::bind(format!("127.0.77.{host}:0")).await.expect("port"));
        }
        [0, 1, 2].map(|at: usize| sockets[at].local_addr().expect("address"))
    }

    async fn sees(gossip: &Gossip, what: impl FnMut(&View) -> bool) {
        timeout(PATIENCE, gossip.view().wait_for(what)).await.expect("seen in time").expect("view");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nodes_find_each_other_and_see_changes_restarts_and_silence() {
        let ports = ports(1).await;
        let [a, b] = [start(1, 1, ports[0], ports[0]).await, start(2, 1, ports[1], ports[0]).await];
        let c = start(3, 1, ports[2], ports[0]).await;
        for gossip in [&a, &b, &c] {
            sees(gossip, |view| view.alive().count() == 3).await;
        }
        let node = NodeId::from_u128(2);
        let mut said = a.view().borrow().nodes[&node].info.clone();
        said.state = NodeState::Member;
        b.say(&said).await.expect("said");
        sees(&c, |view| view.nodes[&node].info.is_member()).await;

        b.shutdown().await;
        sees(&a, |view| !view.is_alive(node)).await;
        sees(&c, |view| !view.is_alive(node)).await;
        let b = start(2, 2, ports[1], ports[0]).await;
        sees(&c, |view| view.is_alive(node) && view.nodes[&node].info.boot == BootId(2)).await;
        for gossip in [a, b, c] {
            gossip.shutdown().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn node_with_another_cookie_is_neither_seen_nor_sees_anybody() {
        let ports = ports(2).await;
        let [a, stranger] = [start(1, 1, ports[0], ports[1]).await, start_with("another", 2, 1, ports[1], ports[0]).await];
        let b = start(3, 1, ports[2], ports[0]).await;
        // It answers nothing that it could be told by; that it was heard and dropped is what there is to wait for.
        let heard_of_each_other = async {
            while a.dropped().count() < 3 || stranger.dropped().count() < 3 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, heard_of_each_other).await.expect("they send to each other");
        for gossip in [&a, &b] {
            sees(gossip, |view| view.alive().count() == 2).await;
            assert!(!gossip.view().borrow().nodes.contains_key(&NodeId::from_u128(2)));
        }
        assert!(stranger.view().borrow().alive().all(|info| info.node == NodeId::from_u128(2)));
        for gossip in [a, b, stranger] {
            gossip.shutdown().await;
        }
    }
}
