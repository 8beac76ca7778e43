//! Replicas of a shard, each on a node of its own, over sessions on loopback.

use std::collections::BTreeMap;
use std::path::Path;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::ServerState;
use tallymesh_protocol::event::command::{encode_batches, encode_tick};
use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::{Disk, SimDisk};
use tallymesh_storage::wal::{Wal, WalOptions, WalThread};

use super::super::tests::open_state;
use super::super::{Blocking, DurableIndex, LogStore, OpenReplica, RaftReplica, SharedState, StopReason};
use super::*;
use crate::peer::{BootId, Handler, Hello, NodeId, PeerOptions, PeerTable, Refusal, Request, Target};
use crate::replicator::{Committed, Replicator, ReplicatorError};

const SHARD: ShardId = ShardId(2);
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a lease on a leader that is gone, which forbids votes.
const TURN: Duration = Duration::from_secs(2);

struct Answers(ReplicaServer);

impl Handler for Answers {
    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let server = self.0.clone();
        async move { server.handle(request).await }.boxed()
    }
}

struct Node {
    id: NodeId,
    peers: Peers,
    replica: RaftReplica,
    state: SharedState,
    _log: WalThread,
}

impl Node {
    async fn start(number: u64) -> Self {
        let id = NodeId::from_member(number, 0);
        let listen = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port").local_addr().expect("address");
        let hello = Hello {
            node: id,
            boot: BootId(1),
            name: format!("n{number}"),
            address: listen.to_string(),
            cluster_name: "main".to_owned(),
            cluster_id: Some("x".to_owned()),
        };
        let server = ReplicaServer::new(Arc::new(NoFetch));
        let options =
            PeerOptions { hello, cookie: "secret".to_owned(), listen, clock: Arc::new(SystemClock::new()), bulk: None, tls: None };
        let peers = Peers::start(options, Arc::new(Answers(server.clone()))).await.expect("started");

        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let opened = Wal::open(disk.clone(), Arc::new(SystemClock::new()), Path::new("/log"), WalOptions::default()).expect("log");
        let log_thread = WalThread::spawn(opened.writer).expect("thread");
        let (durable, covered) = DurableIndex::new(None);
        let stop = StopReason::new(SHARD);
        let log = LogStore::open(opened.wal, SHARD, covered, stop.clone()).expect("store");
        let state = open_state(disk, Path::new("/state"), durable, Blocking::Threads);
        let shared = state.shared();
        let networks = PeerNetworks::new(Arc::new(peers.clone()), SHARD);
        let open = OpenReplica { node: number, shard: SHARD, log, state, stop };
        let replica = RaftReplica::join(open, networks).await.expect("replica");
        // As of every replica of a fleet: whoever looks for a leader has one stand.
        replica.raft().runtime_config().elect(false);
        server.add(SHARD, replica.raft().clone());
        Self { id, peers, replica, state: shared, _log: log_thread }
    }

    async fn end(&self) {
        self.replica.shutdown().await;
        self.peers.shutdown().await;
    }

    fn applied(&self) -> u64 {
        self.replica.status().applied_index
    }
}

async fn fleet() -> Vec<Node> {
    fleet_of(3).await
}

async fn fleet_of(size: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 1..=size {
        nodes.push(Node::start(number).await);
    }
    meet(&nodes);
    for node in &nodes {
        let all = |table: &PeerTable| table.connected.len() as u64 == size - 1;
        tokio::time::timeout(PATIENCE, node.peers.watch().wait_for(all)).await.expect("in time").expect("table");
    }
    let member = |node: &Node| (node.id.member(), Peer { address: node.peers.me().address });
    nodes[0].replica.raft().initialize(nodes.iter().map(member).collect::<BTreeMap<_, _>>()).await.expect("made");
    nodes
}

/// Every session of one node ends and none is made again; it runs on. The others, who keep theirs.
fn cut_off<'a>(nodes: &'a [Node], lonely: &Node) -> Vec<&'a Node> {
    let rest: Vec<&Node> = nodes.iter().filter(|node| node.id != lonely.id).collect();
    let target = |node: &Node| Target { node: Some(node.id), address: node.peers.me().address };
    lonely.peers.set_targets(Vec::new());
    for node in &rest {
        node.peers.set_targets(rest.iter().map(|other| target(other)).collect());
        lonely.peers.drop_session(node.id, BootId(1));
        node.peers.drop_session(lonely.id, BootId(1));
    }
    rest
}

fn meet(nodes: &[Node]) {
    let targets: Vec<Target> = nodes.iter().map(|n| Target { node: Some(n.id), address: n.peers.me().address }).collect();
    nodes.iter().for_each(|node| node.peers.set_targets(targets.clone()));
}

/// Whoever leads. Where nobody does, one node stands, as in a fleet: openraft draws a replica's election time-out once and for all, and two that drew nearly the
/// same stand at the same time in every term and split the votes for ever. It is the one with the most of the log, which no other refuses.
async fn leader<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> &'a Node {
    let nodes: Vec<&Node> = nodes.into_iter().collect();
    let found = async {
        loop {
            let leads = nodes.iter().map(|node| {
                let wait = node.replica.raft().wait(Some(TURN));
                async move { wait.metrics(|m| m.state == ServerState::Leader, "leads").await.map(|_| *node) }.boxed()
            });
            if let Ok((leader, _)) = futures::future::select_ok(leads).await {
                return leader;
            }
            let heir = nodes.iter().max_by_key(|node| node.replica.group().last_log_index).expect("there are nodes");
            heir.replica.stand().await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("somebody leads")
}

/// Writes where somebody leads, until it is acked: what a client does.
async fn write(nodes: &[&Node], command: &Bytes) -> Committed {
    let writes = async {
        loop {
            let node = leader(nodes.iter().copied()).await;
            match tokio::time::timeout(Duration::from_secs(3), node.replica.propose(command.clone())).await {
                Ok(Ok(committed)) => return committed,
                Ok(Err(ReplicatorError::Stopped(why))) => panic!("{why}"),
                Ok(Err(_)) | Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, writes).await.expect("acked in time")
}

async fn reach(node: &Node, index: u64) {
    node.replica.raft().wait(Some(PATIENCE)).applied_index_at_least(Some(index), "applied").await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_under_a_new_leader_when_the_old_one_is_cut_off_and_it_follows_when_it_is_back() {
    let nodes = fleet().await;
    let all: Vec<&Node> = nodes.iter().collect();
    for at in 1..=20 {
        write(&all, &encode_tick(at)).await;
    }
    let old = leader(all.iter().copied()).await;
    let rest = cut_off(&nodes, old);
    let deposed = old.replica.propose(encode_tick(1_000));
    let mut last = 0;
    for at in 21..=40 {
        last = write(&rest, &encode_tick(at)).await.index;
    }
    assert!(tokio::time::timeout(Duration::from_millis(1), deposed).await.map_or(true, |result| result.is_err()), "it acks nothing");
    assert!(old.applied() < last);
    meet(&nodes);
    for node in &nodes {
        reach(node, last).await;
    }
    let stamps: Vec<i64> = nodes.iter().map(|node| node.state.read().state.stamp_ms()).collect();
    assert!(stamps.iter().all(|stamp| *stamp == stamps[0] && *stamp >= 40), "{stamps:?}");
    for node in &nodes {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follower_that_lacks_what_the_log_lost_gets_a_snapshot() {
    let nodes = fleet().await;
    let all: Vec<&Node> = nodes.iter().collect();
    write(&all, &encode_tick(1)).await;
    let led_by = leader(all.iter().copied()).await.id;
    let behind = nodes.iter().find(|node| node.id != led_by).expect("a follower");
    let rest = cut_off(&nodes, behind);
    let mut last = 0;
    for at in 2..=10 {
        last = write(&rest, &encode_tick(at)).await.index;
    }
    for node in &rest {
        reach(node, last).await;
        node.replica.trigger_snapshot();
        tokio::time::timeout(PATIENCE, node.replica.snapshot_of_now()).await.expect("written in time");
        node.replica.raft().wait(Some(PATIENCE)).metrics(|m| m.purged.is_some_and(|id| id.index >= last), "purged").await.expect("in time");
    }
    assert!(behind.applied() < last);
    meet(&nodes);
    reach(behind, last).await;
    assert!(behind.replica.status().snapshot_index >= last, "not by entries: there are none left");
    assert_eq!(behind.state.read().state.stamp_ms(), 10);
    for node in &nodes {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entry_far_larger_than_a_frame_is_replicated_without_an_election() {
    let nodes = fleet().await;
    let all: Vec<&Node> = nodes.iter().collect();
    write(&all, &encode_tick(1)).await;
    let term = leader(all.iter().copied()).await.replica.status().term;
    // No batch: every replica refuses its content alike, after it has it.
    let part = vec![7_u8; 12 << 20];
    let committed = write(&all, &encode_batches(2, &[&part[..]])).await;
    assert!(committed.parts[0].refused.is_some());
    for node in &nodes {
        reach(node, committed.index).await;
        assert_eq!(node.replica.status().term, term);
        assert_eq!(node.state.read().state.stamp_ms(), 2);
    }
    for node in &nodes {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heir_of_five_leads_the_next_term_once_the_voters_have_let_go_of_their_leader() {
    let nodes = fleet_of(5).await;
    let all: Vec<&Node> = nodes.iter().collect();
    let last = write(&all, &encode_tick(1)).await.index;
    let old = leader(all.iter().copied()).await;
    for node in &nodes {
        reach(node, last).await;
    }
    let term = old.replica.leadership().term;
    let mut followers = nodes.iter().filter(|node| node.id != old.id);
    let heir = followers.next().expect("a follower");
    let others: Vec<&Node> = followers.collect();

    // They hear the leader, so they vote for nobody, whatever they are asked.
    let ask = VoteRequest { vote: Vote::new(term + 1, heir.id.member()), last_log_id: Some(super::super::codec::log_id(term, last)) };
    assert!(!others[0].replica.raft().vote(ask.clone()).await.expect("answers").vote_granted, "the lease");
    for node in &others {
        assert!(node.replica.let_go(term, heir.id.member()).await);
    }
    // One that lacks what they have gets no vote all the same.
    let short = VoteRequest { last_log_id: Some(super::super::codec::log_id(term, last - 1)), ..ask };
    assert!(!others[0].replica.raft().vote(short).await.expect("answers").vote_granted, "the log");
    heir.replica.stand().await;
    let leads = heir.replica.raft().wait(Some(PATIENCE)).metrics(|m| m.state == ServerState::Leader, "leads").await.expect("in time");
    assert_eq!(leads.current_term, term + 1, "at the first attempt");
    let next = write(&all, &encode_tick(2)).await.index;
    for node in &nodes {
        reach(node, next).await;
    }
    // What comes late deposes nobody.
    assert!(!others[0].replica.let_go(term, others[1].id.member()).await);
    assert_eq!(leader(all.iter().copied()).await.id, heir.id);
    for node in &nodes {
        node.end().await;
    }
}

/// Answers appends when told to, everything else at once.
struct Slow {
    appends: parking_lot::Mutex<Vec<tokio::sync::oneshot::Sender<()>>>,
    sent: parking_lot::Mutex<Vec<(Lane, usize)>>,
}

impl ReplicaChannel for Slow {
    fn call(&self, _member: u64, rpc: Rpc, _deadline: Instant) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        self.sent.lock().push((rpc.lane, rpc.body.len()));
        let (answered, wait) = tokio::sync::oneshot::channel();
        if rpc.lane == Lane::Normal {
            self.appends.lock().push(answered);
        } else {
            let _ = answered.send(());
        }
        async move {
            let _ = wait.await;
            Ok(message::encode_append_answer(&AppendEntriesResponse::Success).expect("encodes"))
        }
        .boxed()
    }

    fn given_bytes(&self, _member: u64, _shard: ShardId) -> u64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn append_that_takes_longer_than_a_heartbeat_is_sent_once_and_beats_meanwhile() {
    use openraft::{Entry, EntryPayload};

    let slow = Arc::new(Slow { appends: Default::default(), sent: Default::default() });
    let mut network = PeerNetworks::new(slow.clone(), SHARD).new_client(2, &Peer::default()).await;
    let rpc = |index: u64| AppendEntriesRequest::<ShardRaft> {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(super::super::codec::log_id(1, index - 1)),
        entries: vec![Entry { log_id: super::super::codec::log_id(1, index), payload: EntryPayload::Blank }],
        leader_commit: None,
    };
    let ttl = Duration::from_millis(250);
    for _ in 0..4 {
        // As openraft does: the future is dropped at its deadline.
        let attempt = tokio::time::timeout(ttl, network.append_entries(rpc(5), RPCOption::new(ttl))).await;
        assert!(attempt.is_err());
    }
    let lanes: Vec<Lane> = slow.sent.lock().iter().map(|(lane, _)| *lane).collect();
    assert_eq!(lanes, [Lane::Normal, Lane::Urgent, Lane::Urgent, Lane::Urgent]);
    slow.appends.lock().pop().expect("one").send(()).expect("it is waited for");
    assert_eq!(network.append_entries(rpc(5), RPCOption::new(ttl)).await.expect("answered"), AppendEntriesResponse::Success);
    let next = tokio::time::timeout(ttl, network.append_entries(rpc(6), RPCOption::new(ttl))).await;
    assert!(next.is_err() && slow.appends.lock().len() == 1, "another append is sent");
}

/// Takes a snapshot's notice and fetches a byte of its files every so often, as long as it is asked; answers after `answers_after`, if at all.
struct Receiver {
    began: Instant,
    byte_every: Duration,
    answers_after: Option<Duration>,
    deadlines: parking_lot::Mutex<Vec<Duration>>,
}

impl ReplicaChannel for Receiver {
    fn call(&self, _member: u64, rpc: Rpc, deadline: Instant) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        assert_eq!(rpc.kind, RpcKind::InstallSnapshot);
        self.deadlines.lock().push(deadline - Instant::now());
        let answers_after = self.answers_after;
        async move {
            match answers_after {
                Some(after) => tokio::time::sleep(after).await,
                None => futures::future::pending().await,
            }
            Ok(message::encode_snapshot_answer(&SnapshotResponse { vote: Vote::new_committed(1, 1) }).expect("encodes"))
        }
        .boxed()
    }

    fn given_bytes(&self, _member: u64, _shard: ShardId) -> u64 {
        (self.began.elapsed().as_millis() / self.byte_every.as_millis()) as u64
    }
}

/// How a snapshot's transfer to it ends, and after how long.
async fn send_snapshot(byte_every: Duration, answers_after: Option<Duration>) -> (bool, Duration) {
    let receiver = Arc::new(Receiver { began: Instant::now(), byte_every, answers_after, deadlines: Default::default() });
    let mut network = PeerNetworks::new(receiver.clone(), SHARD).new_client(2, &Peer::default()).await;
    let snapshot = Snapshot { meta: Default::default(), snapshot: Box::default() };
    let ttl = RPCOption::new(Duration::from_millis(250));
    let sent = network.full_snapshot(Vote::new_committed(1, 1), snapshot, futures::future::pending(), ttl).await;
    assert_eq!(*receiver.deadlines.lock(), [SNAPSHOT_TIME_MAX], "asked once, for as long as it may take at all");
    (sent.is_ok(), receiver.began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn receiver_of_a_snapshot_that_hangs_is_given_up_and_one_that_moves_is_not() {
    let second = Duration::from_secs(1);
    let never = 10 * SNAPSHOT_TIME_MAX;
    let (is_done, took) = send_snapshot(never, None).await;
    assert!(!is_done && took >= SNAPSHOT_STALL_MAX && took <= SNAPSHOT_STALL_MAX + 2 * SNAPSHOT_LOOK_INTERVAL, "{took:?}");
    assert!(took < 60 * second, "a fleet has other followers to lose meanwhile");
    let (is_done, took) = send_snapshot(SNAPSHOT_STALL_MAX - second, Some(1_800 * second)).await;
    assert!(is_done && took == 1_800 * second, "slow as it is, it moves: {took:?}");
    let (is_done, _) = send_snapshot(never, Some(SNAPSHOT_STALL_MAX - second)).await;
    assert!(is_done, "installing takes time too");
}

/// Asks a server what another replica asks.
async fn asked(server: &ReplicaServer, kind: RpcKind, body: Bytes) -> Result<Bytes, Refusal> {
    let request = Request { from: NodeId::from_member(7, 0), kind, shard: SHARD, deadline: Instant::now() + PATIENCE, body };
    server.handle(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_lost_what_it_had_neither_votes_nor_stands_before_it_has_it_again() {
    use openraft::raft::VoteRequest;
    use openraft::{Entry, EntryPayload, Membership};

    use super::super::codec;
    use super::super::given_up::GivenUp;

    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let opened = Wal::open(disk.clone(), Arc::new(SystemClock::new()), Path::new("/log"), WalOptions::default()).expect("log");
    let _log = WalThread::spawn(opened.writer).expect("thread");
    // It had three entries of the fifth term, in a group of its own and 7 and 8.
    let given_up = GivenUp { is_removed: true, last: Some(codec::log_id(5, 2)) };
    opened.wal.meta(SHARD.0, codec::encode_given_up(&given_up).expect("encodes"), Box::new(drop));
    let (durable, covered) = DurableIndex::new(None);
    let stop = StopReason::new(SHARD);
    let log = LogStore::open(opened.wal, SHARD, covered, stop.clone()).expect("store");
    let state = open_state(disk, Path::new("/state"), durable, Blocking::Threads);
    let slow = Arc::new(Slow { appends: Default::default(), sent: Default::default() });
    let open = OpenReplica { node: 9, shard: SHARD, log, state, stop };
    let replica = RaftReplica::join_fleet(open, PeerNetworks::new(slow.clone(), SHARD)).await.expect("replica");
    let server = ReplicaServer::new(Arc::new(NoFetch));
    server.add_with_floor(SHARD, replica.raft().clone(), replica.floor());

    // 8 lagged behind and never heard that the group has others.
    let candidate = VoteRequest::new(Vote::new(8, 8), Some(codec::log_id(4, 1)));
    let candidate = message::encode_vote(&candidate).expect("encodes");
    let refused = asked(&server, RpcKind::Vote, candidate.clone()).await.expect_err("it does not vote");
    assert!(refused.detail.contains("does not vote"), "{refused}");

    let nodes: BTreeMap<u64, Peer> = [7, 8, 9].map(|member| (member, Peer::default())).into();
    let members = Membership::new(vec![[7, 8, 9].into()], nodes);
    let entry = |index: u64| Entry {
        log_id: codec::log_id(if index == 0 { 0 } else { 5 }, index),
        payload: if index == 0 { EntryPayload::Membership(members.clone()) } else { EntryPayload::Blank },
    };
    let append = |indexes: std::ops::Range<u64>| {
        let prev = indexes.start.checked_sub(1).map(|index| entry(index).log_id);
        let entries = indexes.map(entry).collect();
        message::encode_append(AppendEntriesRequest { vote: Vote::new_committed(6, 7), prev_log_id: prev, entries, leader_commit: None })
            .expect("encodes")
    };
    asked(&server, RpcKind::AppendEntries, append(0..2)).await.expect("taken");
    // What a replica shows of itself comes a little after what it answers.
    let knows = |metrics: &openraft::RaftMetrics<u64, Peer>| metrics.membership_config.voter_ids().any(|member| member == 9);
    replica.raft().wait(Some(PATIENCE)).metrics(knows, "it is a voter of the group that it knows of").await.expect("in time");
    assert!(asked(&server, RpcKind::Vote, candidate.clone()).await.is_err(), "and has less than it had");
    replica.stand().await;
    assert_eq!(replica.status().term, 6, "nor does it stand");

    asked(&server, RpcKind::AppendEntries, append(2..3)).await.expect("taken");
    let answer = asked(&server, RpcKind::Vote, candidate).await.expect("it votes");
    assert!(!message::decode_vote_answer(&answer).expect("an answer").vote_granted, "by what it has");
    assert!(replica.may_stand());
    replica.shutdown().await;
}

/// Counts how often files were to be fetched.
struct Counts(tokio::sync::watch::Sender<u32>);

impl SnapshotFetch for Counts {
    fn fetch(&self, _from: NodeId, _shard: ShardId, _manifest: Bytes) -> BoxFuture<'static, Result<(), String>> {
        self.0.send_modify(|count| *count += 1);
        async { Ok(()) }.boxed()
    }
}

/// Long enough for what must not happen.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn installation_goes_on_when_its_asker_has_gone_and_the_next_one_waits_for_it() {
    let (leader_node, node) = (Node::start(1).await, Node::start(2).await);
    leader_node.replica.found(BTreeMap::from([(1, Peer::default())])).await.expect("founded");
    let last = write(&[&leader_node], &encode_tick(7)).await.index;
    reach(&leader_node, last).await;
    leader_node.replica.trigger_snapshot();
    tokio::time::timeout(PATIENCE, leader_node.replica.snapshot_of_now()).await.expect("written in time");
    let snapshot = leader_node.replica.raft().get_snapshot().await.expect("runs").expect("a snapshot");
    let vote = leader_node.replica.raft().metrics().borrow().vote;
    let notice = message::encode_snapshot(vote, &snapshot).expect("encodes");

    let (fetches, mut fetched) = tokio::sync::watch::channel(0);
    let server = ReplicaServer::new(Arc::new(Counts(fetches)));
    server.add(SHARD, node.replica.raft().clone());
    // Whoever looks at the state keeps the snapshot from being installed.
    let (state, (looks, looking), (end, ended)) = (node.state.clone(), std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let looker = std::thread::spawn(move || {
        let _state = state.read();
        looks.send(()).expect("awaited");
        // An error is an end too.
        let _ = ended.recv();
    });
    looking.recv().expect("it looks");
    let first = tokio::spawn({
        let (server, notice) = (server.clone(), notice.clone());
        async move { asked(&server, RpcKind::InstallSnapshot, notice).await }
    });
    tokio::time::timeout(PATIENCE, fetched.wait_for(|count| *count == 1)).await.expect("in time").expect("runs");
    first.abort();
    assert!(first.await.is_err_and(|e| e.is_cancelled()), "its asker has gone");

    let second = asked(&server, RpcKind::InstallSnapshot, notice);
    tokio::pin!(second);
    assert!(tokio::time::timeout(A_WHILE, &mut second).await.is_err(), "nothing is installed yet");
    assert_eq!(*fetched.borrow(), 1, "another snapshot's files do not come in between");
    end.send(()).expect("it waits");
    looker.join().expect("ended");
    tokio::time::timeout(PATIENCE, second).await.expect("in time").expect("installed");
    assert_eq!(*fetched.borrow(), 2);
    let applied = node.state.read().last_log_id.map(|id| id.index);
    assert_eq!(applied, Some(last), "when it is answered it is done");
    leader_node.end().await;
    node.end().await;
}
