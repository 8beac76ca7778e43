//! From a data directory and addresses to a node that belongs to a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tallymesh_protocol::event::command::{FORMAT, ShardSettings};
use tallymesh_storage::wal::Wal;
use tokio::sync::watch as channel;

use super::clocks::Clocks;
use super::files::{LocalFiles, PeerFiles};
use super::handler::Door;
use super::meta::group::{META, MetaGroup, MetaStorage};
use super::meta::machine::MetaMachine;
use super::meta::{MetaCommand, MetaState};
use super::placement::{settle, steward};
use super::watch::leaders::Leaders;
use super::{ASK_TIME_MAX, Fleet, FleetOptions, Inner, watch};
use crate::founding::driver::FoundingService;
use crate::founding::{Config, Durable, Founder, Membership, store};
use crate::membership::gossip::{Gossip, GossipOptions, connect};
use crate::membership::{NodeInfo, NodeState};
use crate::mesh::{Inner as MeshInner, Mesh, MeshOptions, StartError};
use crate::peer::bulk::BulkServer;
use crate::peer::{BootId, Hello, NodeId, PeerOptions, Peers, load_or_make};
use crate::raft::peers::ReplicaServer;
use crate::raft::{Blocking, Peer};

/// A node that does not hear who it is in the cluster says so this often.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(10);

fn invalid(reason: impl Into<String>) -> StartError {
    StartError::Invalid(reason.into())
}

async fn resolve(address: &str) -> Result<SocketAddr, StartError> {
    let found = tokio::net::lookup_host(address).await.map_err(|e| invalid(format!("the peer address {address}: {e}")))?;
    found.into_iter().next().ok_or_else(|| invalid(format!("the peer address {address} is no address")))
}

/// A task that failed is begun again after this time.
const BEGIN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What founders must have in common, as text.
fn shape(options: &MeshOptions, fleet: &FleetOptions) -> String {
    let replication = fleet.replication.map_or_else(|| "auto".to_owned(), |copies| copies.to_string());
    let settings = serde_json::to_vec(&options.settings).unwrap_or_default();
    format!("shards = {}, replication = {replication}, settings and metrics {:08x}", options.shards, crc32fast::hash(&settings))
}

/// `alone_before` is the cluster of a directory whose node had no peers so far.
pub async fn start(
    options: &MeshOptions,
    fleet: FleetOptions,
    wal: Wal,
    alone_before: Option<String>,
    waiting: &channel::Sender<String>,
) -> Result<Fleet, StartError> {
    let (disk, dir, clock) = (options.disk.clone(), options.data_dir.clone(), options.clock.clone());
    let mut random = StdRng::from_os_rng();
    let mut durable = store::read(&*disk, &dir)?;
    if let Some(cluster_id) = alone_before.filter(|_| durable == Durable::default()) {
        durable.membership = Some(Membership::Joined { cluster_id });
        store::write(&*disk, &dir, &durable)?;
    }
    let was_alone = matches!(durable.membership, Some(Membership::Joined { .. })) && durable.accepted.is_none();
    let node = load_or_make(&*disk, &dir, was_alone.then_some(crate::mesh::ONLY_NODE), &mut random)?;
    let boot = BootId::new(clock.wall_ms(), &mut random);
    let advertised = resolve(&fleet.advertise).await?;
    let me = Founder { node, name: fleet.name.clone(), address: fleet.advertise.clone(), reads: FORMAT };
    let founding = FoundingService::open(
        Config { me: me.clone(), founders: fleet.founders.clone(), shape: shape(options, &fleet) },
        disk.clone(),
        dir.clone(),
        clock.clone(),
        Blocking::Threads,
    )?;
    let cluster_id = durable.membership.as_ref().map(|membership| membership.cluster_id().to_owned());
    let hello = Hello {
        node,
        boot,
        name: fleet.name.clone(),
        address: fleet.advertise.clone(),
        cluster_name: fleet.cluster_name.clone(),
        cluster_id: cluster_id.clone(),
    };
    let (door, files) = (Arc::new(Door::default()), PeerFiles::default());
    let source = LocalFiles { disk: disk.clone(), dir: dir.join("shards") };
    let bulk = Some(Arc::new(BulkServer::new(Arc::new(source), fleet.bulk_bytes_per_second)));
    let listen = fleet.listen;
    let peers = PeerOptions { hello, cookie: fleet.cookie.clone(), listen, clock: clock.clone(), bulk, tls: fleet.tls.clone() };
    let peers = Peers::start(peers, door.clone()).await.map_err(|e| invalid(e.to_string()))?;
    files.set_peers(peers.clone());

    let known = MetaMachine::peek(&*disk, &dir)?.unwrap_or_default();
    let mut seeds: Vec<String> = fleet.founders.iter().cloned().chain(known.present().map(|(_, member)| member.address.clone())).collect();
    seeds.sort();
    seeds.dedup();
    seeds.retain(|seed| *seed != fleet.advertise);
    let is_founder = fleet.founders.contains(&fleet.advertise);
    let info = NodeInfo {
        node,
        boot,
        name: fleet.name.clone(),
        peer: fleet.advertise.clone(),
        http: fleet.http.clone(),
        gossip: fleet.advertise.clone(),
        version: fleet.version.clone(),
        state: match (&cluster_id, is_founder) {
            (Some(_), _) => NodeState::Member,
            (None, true) => NodeState::Founder,
            (None, false) => NodeState::Empty,
        },
    };
    let gossip = GossipOptions {
        me: info.clone(),
        cluster_name: fleet.cluster_name.clone(),
        listen,
        advertise: advertised,
        seeds: seeds.clone(),
        cookie: fleet.cookie.clone(),
        clock: clock.clone(),
    };
    let dial = connect(peers.clone(), seeds.clone());
    peers.set_targets(seeds.iter().map(|seed| crate::peer::Target { node: None, address: seed.clone() }).collect());
    let gossip = Gossip::start(gossip, dial).await.map_err(invalid)?;
    let server = ReplicaServer::new(Arc::new(files.clone()));
    let inner = Inner {
        node,
        me: node.member(),
        options: fleet,
        clock,
        peers,
        view: gossip.view(),
        gossip_dropped: gossip.dropped(),
        gossip: tokio::sync::Mutex::new(Some(gossip)),
        founding,
        meta: OnceLock::new(),
        settings: options.settings.clone(),
        shards: options.shards,
        replicas: Default::default(),
        behind: Default::default(),
        server,
        files,
        leaders: Leaders::default(),
        clocks: Clocks::default(),
        leading: Default::default(),
        handed: Default::default(),
        failovers: Default::default(),
        removals: Default::default(),
        mesh: OnceLock::new(),
        leaving: AtomicBool::new(false),
        end: channel::Sender::new(false),
        tasks: Default::default(),
    };
    let this = Fleet { inner: Arc::new(inner) };
    let _ = door.0.set(Arc::downgrade(&this.inner));
    let joined = join(&this, options, wal, was_alone, info, waiting).await;
    if joined.is_err() {
        this.shutdown().await;
    }
    joined.map(|()| this)
}

/// Waits until this node belongs to a cluster and knows what all have agreed on.
async fn join(
    fleet: &Fleet,
    options: &MeshOptions,
    wal: Wal,
    was_alone: bool,
    info: NodeInfo,
    waiting: &channel::Sender<String>,
) -> Result<(), StartError> {
    let inner = &fleet.inner;
    let mut standing = inner.founding.watch();
    let run = inner.founding.clone().run(inner.peers.clone());
    tokio::pin!(run);
    let membership = loop {
        tokio::select! {
            biased;
            member = &mut run => break member.map_err(|e| invalid(format!("founding: {e}")))?,
            Ok(()) = standing.changed() => {
                if let Some(why) = &standing.borrow_and_update().waiting {
                    waiting.send_replace(why.to_string());
                }
            }
        }
    };
    if inner.peers.me().cluster_id.is_none() {
        inner.peers.set_cluster(membership.cluster_id().to_owned());
        if let Some(gossip) = &*inner.gossip.lock().await {
            gossip.say(&NodeInfo { state: NodeState::Member, ..info }).await.map_err(invalid)?;
        }
    }
    let storage = MetaStorage { disk: options.disk.clone(), dir: options.data_dir.clone(), wal, blocking: Blocking::Threads };
    let meta =
        MetaGroup::open(inner.me, storage, fleet.networks(META)).await.map_err(|detail| StartError::Shard { shard: META, detail })?;
    inner.server.add(META, meta.raft());
    let founders: Vec<Founder> = match &membership {
        Membership::Founded(accepted) => accepted.seed.founders.clone(),
        Membership::Joined { .. } if was_alone => vec![fleet.founder()],
        Membership::Joined { .. } => Vec::new(),
    };
    let peer = |founder: Founder| (founder.node.member(), Peer { address: founder.address });
    let members: BTreeMap<u64, Peer> = founders.into_iter().map(peer).collect();
    if !members.is_empty() {
        meta.found(members).await.map_err(|detail| StartError::Shard { shard: META, detail })?;
    }
    let mut state = meta.watch();
    let _ = inner.meta.set(meta);
    let mut tasks = inner.tasks.lock().await;
    let end = || inner.end.subscribe();
    tasks.push(tokio::spawn(keep(fleet.clone(), "beats", end(), watch::beats)));
    tasks.push(tokio::spawn(keep(fleet.clone(), "guard", end(), watch::guard)));
    tasks.push(tokio::spawn(keep(fleet.clone(), "steward", end(), steward::tend)));
    drop(tasks);
    waiting.send_replace("waiting for a majority of the cluster's nodes".to_owned());
    loop {
        let known = tokio::time::timeout(SAY_AGAIN_AFTER, state.wait_for(|state| state.is_founded())).await;
        match known {
            Ok(Ok(state)) => return check(fleet, &state),
            Ok(Err(_)) => return Err(invalid("the metadata group ended")),
            Err(_) => tracing::warn!("still waiting for a majority of the cluster's nodes"),
        }
    }
}

/// Runs what has to happen as long as the node runs; it is begun again if it panics.
async fn keep<F>(fleet: Fleet, what: &'static str, end: channel::Receiver<bool>, run: fn(Fleet, channel::Receiver<bool>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(error) = tokio::spawn(run(fleet.clone(), end.clone())).await {
        tracing::error!(%error, what, "a task of the fleet failed; it is begun again");
        tokio::time::sleep(BEGIN_AGAIN_AFTER).await;
    }
}

/// Settings that `mine` has otherwise than `theirs`, by their names in the configuration. A node without `[[metrics]]` follows the cluster's.
pub(super) fn deviations(mine: &ShardSettings, theirs: &ShardSettings) -> Vec<&'static str> {
    let differ = [
        ("windows.lateness", mine.lateness_ms != theirs.lateness_ms),
        ("dedup.horizon", mine.dedup_horizon_ms != theirs.dedup_horizon_ms),
        ("retention.minute", mine.retention_minute_ms != theirs.retention_minute_ms),
        ("retention.hour", mine.retention_hour_ms != theirs.retention_hour_ms),
        ("retention.day", mine.retention_day_ms != theirs.retention_day_ms),
        ("cardinality", mine.cardinality != theirs.cardinality),
        ("metrics", !mine.definitions.is_empty() && mine.definitions != theirs.definitions),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Whether what this node was configured with fits what the cluster agreed on.
fn check(fleet: &Fleet, state: &MetaState) -> Result<(), StartError> {
    let (mine, theirs) = (&fleet.inner.settings, state.settings.as_ref());
    let Some(theirs) = theirs else { return Ok(()) };
    if !mine.definitions.is_empty() && mine.definitions != theirs.definitions {
        if theirs.definitions_version <= mine.definitions_version {
            return Err(invalid(crate::mesh::definitions_differ("the cluster", theirs, mine)));
        }
        tracing::warn!("[[metrics]] of the configuration is not what the cluster has by now (/v1/definitions); the cluster's counts");
    }
    let otherwise = deviations(mine, theirs);
    if !otherwise.is_empty() {
        tracing::warn!(settings = otherwise.join(", "), "the configuration differs from what the cluster was founded with, which counts");
    }
    Ok(())
}

impl Fleet {
    pub(super) fn founder(&self) -> Founder {
        let FleetOptions { name, advertise, .. } = &self.inner.options;
        Founder { node: self.inner.node, name: name.clone(), address: advertise.clone(), reads: FORMAT }
    }

    /// What tells this run's files from all others.
    pub(crate) fn run_number(&self) -> u64 {
        let hello = self.inner.peers.me();
        hello.node.member() ^ hello.boot.0.rotate_left(24)
    }

    /// From here on replicas are opened and closed as they are placed; when it returns, those that are placed here are open.
    pub(crate) async fn attach(&self, mesh: &Arc<MeshInner>) {
        let _ = self.inner.mesh.set(Arc::downgrade(mesh));
        settle::open_missing(self, &Mesh::from_inner(mesh.clone()), &self.state()).await;
        let fleet = self.clone();
        let mut tasks = self.inner.tasks.lock().await;
        tasks.push(tokio::spawn(keep(fleet.clone(), "settle", self.inner.end.subscribe(), settle::settle)));
        tasks.push(tokio::spawn(async move { fleet.introduce().await }));
    }

    /// Tells the cluster this node's name, address and what its build reads, if they are new.
    async fn introduce(&self) {
        let mut end = self.inner.end.subscribe();
        let me = self.founder();
        loop {
            let state = self.state();
            let known = state.members.get(&self.inner.me);
            if known.is_some_and(|known| known.name == me.name && known.address == me.address && known.reads == me.reads) {
                return;
            }
            match self.propose(MetaCommand::Describe { member: me.clone() }, ASK_TIME_MAX).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "the cluster does not take this node's name and address"),
            }
            tokio::select! {
                biased;
                _ = end.wait_for(|end| *end) => return,
                () = tokio::time::sleep(SAY_AGAIN_AFTER) => {}
            }
        }
    }

    /// From here on this node gets no leaders.
    pub(crate) fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Release);
    }

    /// Ends what happens by itself: nobody is asked and nothing is opened any more.
    pub(crate) async fn quiet(&self) {
        self.inner.end.send_replace(true);
        for task in self.inner.tasks.lock().await.drain(..) {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a task of the fleet did not end cleanly");
            }
        }
    }

    /// Ends all that is not a shard. Idempotent.
    pub(crate) async fn shutdown(&self) {
        self.quiet().await;
        if let Some(gossip) = self.inner.gossip.lock().await.take() {
            gossip.shutdown().await;
        }
        if let Some(meta) = self.meta() {
            meta.shutdown().await;
        }
        self.inner.peers.shutdown().await;
    }

    pub fn node(&self) -> NodeId {
        self.inner.node
    }
}
