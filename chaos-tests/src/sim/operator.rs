//! Who runs the fleet: starts what is down, founds the groups, brings members in and lets them go, one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tallymesh_actors::fleet::watch::{LEFT_TO_OTHERS, Losses, Seen};
use tallymesh_actors::raft::runtime::scoped;
use tallymesh_actors::raft::{Peer, RaftReplica};
use tallymesh_actors::replicator::Replicator;
use tallymesh_protocol::event::command::encode_configure;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::disk::{PowerCut, Unsynced};
use tokio::time::{Instant, sleep, timeout};

use super::events::settings;
use super::node::{End, Node, Running};
use super::random::Random;
use super::world::{OUTSIDE, World};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A step of a membership change is given up, to be tried again, after this time.
const STEP_TIME: Duration = Duration::from_secs(3);
/// A new member votes when it lacks fewer entries than this.
const CAUGHT_UP: u64 = 20;

/// Who is to be in the groups, and when what is down comes back.
pub struct Fleet {
    state: Mutex<State>,
}

struct State {
    wanted: BTreeSet<u64>,
    /// A node on its way out: it ends when it is a member of nothing.
    leaving: Option<u64>,
    /// A node that may have to be replaced because its disk is damaged: no other may be lost before it has been, or a majority would be.
    in_doubt: Option<u64>,
    back_at: BTreeMap<u64, Instant>,
    next_id: u64,
}

impl Fleet {
    /// Starts the nodes and founds the groups with them.
    pub async fn found(world: &Arc<World>) -> Arc<Self> {
        let wanted: BTreeSet<u64> = (1..=world.plan.nodes).collect();
        for id in &wanted {
            let node = Node::new(world, *id);
            world.nodes.lock().insert(*id, node.clone());
            world.judge.lock().stats.boots += 1;
            node.boot(world).await.expect("a first start");
        }
        let members: BTreeMap<u64, Peer> = wanted.iter().map(|id| (*id, peer(*id))).collect();
        let first = world.node(1).and_then(|node| node.running()).expect("it has started");
        for replica in first.replicas.values() {
            scoped(1, replica.raft.raft().initialize(members.clone())).await.expect("a new group");
        }
        world.spawn(OUTSIDE, guard(world.clone()));
        let state = State { next_id: world.plan.nodes + 1, wanted, leaving: None, in_doubt: None, back_at: BTreeMap::new() };
        let fleet = Arc::new(Self { state: Mutex::new(state) });
        for shard in (0..world.plan.shards).map(ShardId) {
            configure(world, shard).await;
        }
        world.spawn(OUTSIDE, starts(world.clone(), fleet.clone()));
        world.spawn(OUTSIDE, members_of_all(world.clone(), fleet.clone()));
        world.spawn(OUTSIDE, ticks(world.clone()));
        fleet
    }

    pub fn wanted(&self) -> Vec<u64> {
        self.state.lock().wanted.iter().copied().collect()
    }

    /// Nothing is on its way in or out.
    pub fn is_settled(&self) -> bool {
        self.state.lock().leaving.is_none()
    }

    /// The disk of this node is about to be damaged; false if it must not be.
    pub fn doubt(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let may = state.leaving.is_none() && state.in_doubt.is_none_or(|known| known == id);
        if may {
            state.in_doubt = Some(id);
        }
        may
    }

    /// When a node that is about to go down comes back.
    pub fn comes_back(&self, id: u64, after: Duration) {
        self.state.lock().back_at.insert(id, Instant::now() + after);
    }

    /// A new, empty node takes the place of `old`. Nothing happens while another replacement is on its way.
    pub fn replace(&self, world: &Arc<World>, old: u64) -> Option<u64> {
        let mut state = self.state.lock();
        if state.leaving.is_some() || state.in_doubt.is_some_and(|id| id != old) || !state.wanted.remove(&old) {
            return None;
        }
        let new = state.next_id;
        state.next_id += 1;
        state.wanted.insert(new);
        state.leaving = Some(old);
        world.nodes.lock().insert(new, Node::new(world, new));
        world.note(format_args!("n{new} is to replace n{old}"));
        state.back_at.insert(new, Instant::now());
        Some(new)
    }

    /// The node's disk is gone: it never comes back under its number.
    pub fn forget(&self, id: u64) {
        self.state.lock().back_at.remove(&id);
    }

    fn is_wanted(&self, id: u64) -> bool {
        let state = self.state.lock();
        state.wanted.contains(&id) || state.leaving == Some(id)
    }
}

fn peer(id: u64) -> Peer {
    Peer { address: format!("n{id}") }
}

/// The replica that leads, as far as it knows.
pub fn leader_of(world: &World, shard: ShardId) -> Option<(u64, Arc<RaftReplica>)> {
    world.all_nodes().iter().find_map(|node| {
        if world.is_held(node.id) {
            return None;
        }
        let running = node.running()?;
        let raft = running.replicas.get(&shard)?.raft.clone();
        let status = raft.status();
        (status.is_leader && status.leader == Some(node.id)).then_some((node.id, raft))
    })
}

async fn configure(world: &Arc<World>, shard: ShardId) {
    let wanted = settings(&world.plan);
    loop {
        if let Some((id, raft)) = leader_of(world, shard)
            && let Some(node) = world.node(id)
        {
            let command = encode_configure(node.clock.wall_ms(), &wanted);
            if let Ok(Ok(_)) = timeout(STEP_TIME, scoped(id, raft.propose(command))).await {
                return;
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// How `node` sees the leader that its replica knows.
fn seen(world: &World, node: u64, shard: ShardId, leader: Option<u64>) -> Seen {
    let Some(leader) = leader else { return Seen::Gone };
    let is_reached = world.net.passes(node, leader) && world.net.passes(leader, node);
    let running = world.node(leader).and_then(|node| node.running()).filter(|_| is_reached);
    let leads = |running: &Running| running.replicas.get(&shard).is_some_and(|replica| replica.raft.group().leads);
    match running {
        _ if leader == node => Seen::Leads,
        None => Seen::Gone,
        Some(running) if leads(&running) => Seen::Leads,
        Some(_) => Seen::Mute,
    }
}

/// Has followers that have lost their leader stand for election, by the product's own rule ([`Losses`]): openraft's elections are off, as they are in a fleet.
async fn guard(world: Arc<World>) {
    let mut losses: BTreeMap<u64, Losses> = BTreeMap::new();
    loop {
        sleep(Duration::from_millis(40)).await;
        let nodes = world.all_nodes();
        for node in nodes.iter().filter(|node| !world.is_held(node.id)) {
            let Some(running) = node.running() else { continue };
            let reaches = |other: u64| world.net.passes(node.id, other) && world.net.passes(other, node.id);
            let is_there = |other: &u64| world.node(*other).is_some_and(|other| other.running().is_some()) && reaches(*other);
            for (shard, replica) in running.replicas.iter() {
                let group = replica.raft.group();
                let connected: BTreeSet<u64> = group.voters.iter().copied().filter(|id| *id == node.id || is_there(id)).collect();
                let order: Vec<u64> = group.voters.iter().copied().collect();
                let its = losses.entry(node.id).or_default();
                let sees = seen(&world, node.id, *shard, group.leader);
                if !its.look(*shard, &group, sees, node.id, &connected, &order, world.now()) {
                    continue;
                }
                if group.leader.is_none() && replica.behind.within(LEFT_TO_OTHERS) {
                    continue;
                }
                // The others have to think so too.
                let agrees = |other: &&u64| {
                    let running = world.node(**other).and_then(|other| other.running());
                    let known = running.and_then(|running| running.replicas.get(shard).map(|replica| replica.raft.group()));
                    known.is_none_or(|group| !group.leads && seen(&world, **other, *shard, group.leader) != Seen::Leads)
                };
                let others = connected.iter().filter(|other| **other != node.id && Some(**other) != group.leader);
                if 2 * (1 + others.filter(agrees).count()) > group.voters.len() {
                    scoped(node.id, replica.raft.stand()).await;
                }
            }
        }
    }
}

/// Tells the shards the time, as a node's upkeep does.
async fn ticks(world: Arc<World>) {
    loop {
        sleep(Duration::from_secs(1)).await;
        for node in world.all_nodes().iter().filter(|node| !world.is_held(node.id)) {
            if let Some(running) = node.running() {
                running.replicas.values().for_each(|replica| replica.owner.time());
            }
        }
    }
}

/// Starts what is due, and ends what has stopped, to start it again.
async fn starts(world: Arc<World>, fleet: Arc<Fleet>) {
    loop {
        for node in world.all_nodes().iter().filter(|node| !world.is_held(node.id)) {
            match node.running() {
                Some(running) => {
                    let stopped = running.stopped();
                    if let Some((shard, why)) = stopped.first() {
                        world.note(format_args!("n{} s{shard} has stopped: {why}", node.id));
                        restart(&world, &fleet, node, why).await;
                    }
                }
                None => start(&world, &fleet, node).await,
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn start(world: &Arc<World>, fleet: &Arc<Fleet>, node: &Arc<Node>) {
    let is_due = fleet.state.lock().back_at.get(&node.id).is_some_and(|at| *at <= Instant::now());
    if !is_due || !fleet.is_wanted(node.id) {
        return;
    }
    fleet.forget(node.id);
    world.note(format_args!("n{} starts", node.id));
    world.judge.lock().stats.boots += 1;
    // A start that waits for ever is one that does not start.
    let started = timeout(Duration::from_secs(10), node.boot(world)).await.unwrap_or_else(|_| Err("it does not start in time".to_owned()));
    if let Err(why) = started {
        world.note(format_args!("n{} does not start: {why}", node.id));
        restart(world, fleet, node, &why).await;
    }
}

async fn restart(world: &Arc<World>, fleet: &Arc<Fleet>, node: &Arc<Node>, why: &str) {
    let is_damaged = world.judge.lock().disks.is_flipped(node.id);
    world.judge.lock().disks.stopped(node.id, why);
    let how = if node.disk.is_cut() { End::Power(world.random(node.id, any_cut)) } else { End::Kill };
    node.end(world, how).await;
    // What is damaged is replaced, not mended. While another replacement is on its way it is tried again.
    if is_damaged && fleet.replace(world, node.id).is_some() {
        return;
    }
    fleet.comes_back(node.id, world.random(node.id, |random| random.millis(50, 1_500)));
}

/// Any way in which the power can go.
pub fn any_cut(random: &mut Random) -> PowerCut {
    let unsynced = [Unsynced::Drop, Unsynced::Tear, Unsynced::Zero][random.range(0, 3) as usize];
    PowerCut { unsynced, seed: random.next() }
}

/// Brings the members of every group to what is wanted.
async fn members_of_all(world: Arc<World>, fleet: Arc<Fleet>) {
    loop {
        sleep(LOOK_EVERY).await;
        let mut done = true;
        for shard in (0..world.plan.shards).map(ShardId) {
            let step = timeout(STEP_TIME, members_of(&world, &fleet, shard)).await;
            done &= step.unwrap_or(false);
        }
        let leaving = fleet.state.lock().leaving;
        if let Some(old) = leaving.filter(|_| done) {
            world.note(format_args!("n{old} has left"));
            world.judge.lock().stats.replaced += 1;
            let node = world.nodes.lock().remove(&old);
            if let Some(node) = node {
                node.end(&world, End::Kill).await;
            }
            fleet.forget(old);
            let mut state = fleet.state.lock();
            state.leaving = None;
            state.in_doubt = state.in_doubt.filter(|id| *id != old);
        }
    }
}

/// One step; whether nothing was left to do.
async fn members_of(world: &Arc<World>, fleet: &Arc<Fleet>, shard: ShardId) -> bool {
    let Some((id, raft)) = leader_of(world, shard) else { return false };
    let wanted: BTreeSet<u64> = fleet.wanted().into_iter().collect();
    let (voters, learners, applied, last, matching) = {
        let metrics = raft.raft().metrics();
        let metrics = metrics.borrow();
        let members = &metrics.membership_config;
        let voters: Vec<BTreeSet<u64>> = members.membership().get_joint_config().clone();
        let learners: BTreeSet<u64> = members.membership().learner_ids().collect();
        let applied = *members.log_id() <= metrics.last_applied;
        let matching = metrics.replication.clone().unwrap_or_default();
        (voters, learners, applied, metrics.last_log_index.unwrap_or(0), matching)
    };
    if !applied || voters.is_empty() {
        return false;
    }
    if voters == [wanted.clone()] {
        return learners.is_empty();
    }
    let known: BTreeSet<u64> = voters.iter().flatten().chain(&learners).copied().collect();
    let step = match wanted.difference(&known).next() {
        Some(new) => {
            world.note(format_args!("s{shard}: n{new} learns of n{id}"));
            scoped(id, raft.raft().add_learner(*new, peer(*new), false)).map(|r| r.map(drop).map_err(|e| e.to_string())).boxed()
        }
        None => {
            let lacks = |new: &u64| matching.get(new).copied().flatten().map_or(last, |id| last.saturating_sub(id.index)) > CAUGHT_UP;
            if !world.plan.hasty && wanted.intersection(&learners).any(lacks) {
                return false;
            }
            world.note(format_args!("s{shard}: {wanted:?} vote, says n{id}"));
            scoped(id, raft.raft().change_membership(wanted.clone(), false)).map(|r| r.map(drop).map_err(|e| e.to_string())).boxed()
        }
    };
    let done = step.await;
    world.note(format_args!("s{shard}: {done:?}"));
    false
}
