//! The network between nodes: it delays, drops, doubles and reorders, and cuts one way or both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tallymesh_actors::peer::{NodeId, PeerError, Request, Rpc, RpcKind};
use tallymesh_actors::raft::peers::ReplicaChannel;
use tallymesh_protocol::hash::ShardId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::faults::Order;
use super::plan::Plan;
use super::random::Random;
use super::world::{OUTSIDE, World};

/// How the network is at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of 1 000.
    pub dropped: u64,
    pub doubled: u64,
    pub delay_us: (u64, u64),
}

pub struct Net {
    state: Mutex<State>,
}

struct State {
    random: Random,
    weather: Weather,
    /// Pairs (from, to) between which nothing passes, by the fault that cut them.
    cuts: BTreeMap<u64, Vec<(u64, u64)>>,
    next_cut: u64,
}

/// One in so many messages is very late.
const LATE_PER_MILLE: u64 = 4;
const LATE_MS: (u64, u64) = (50, 2_500);

impl Net {
    pub fn new(seed: u64, plan: &Plan) -> Self {
        let weather = Weather { dropped: plan.dropped, doubled: plan.doubled, delay_us: plan.delay_us };
        Self { state: Mutex::new(State { random: Random::new(seed, "network"), weather, cuts: BTreeMap::new(), next_cut: 0 }) }
    }

    pub fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    pub fn cut(&self, pairs: Vec<(u64, u64)>) -> u64 {
        let mut state = self.state.lock();
        state.next_cut += 1;
        let number = state.next_cut;
        state.cuts.insert(number, pairs);
        number
    }

    pub fn mend(&self, cut: u64) {
        self.state.lock().cuts.remove(&cut);
    }

    pub fn mend_all(&self) {
        self.state.lock().cuts.clear();
    }

    pub fn passes(&self, from: u64, to: u64) -> bool {
        !self.state.lock().cuts.values().flatten().any(|pair| *pair == (from, to))
    }

    pub fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.state.lock().random)
    }

    /// When each copy of a message arrives; none if it is lost.
    pub fn copies(&self, is_calm: bool) -> Vec<Duration> {
        let mut state = self.state.lock();
        let State { random, weather, .. } = &mut *state;
        if is_calm {
            return vec![random.micros(100, 1_000)];
        }
        if random.per_mille(weather.dropped) {
            return Vec::new();
        }
        let copies = if random.per_mille(weather.doubled) { 2 } else { 1 };
        let delay = |random: &mut Random| {
            let late = random.per_mille(LATE_PER_MILLE);
            if late { random.millis(LATE_MS.0, LATE_MS.1) } else { random.micros(weather.delay_us.0, weather.delay_us.1) }
        };
        (0..copies).map(|_| delay(random)).collect()
    }
}

/// The way from one node to all others.
pub struct Channel {
    world: Arc<World>,
    from: u64,
}

type Answer = Result<Bytes, PeerError>;
/// Kept until the asker gives up, so that a lost message does not tell it so.
type Reply = Arc<Mutex<Option<oneshot::Sender<Answer>>>>;

impl Channel {
    pub fn new(world: Arc<World>, from: u64) -> Self {
        Self { world, from }
    }
}

fn tell(reply: &Reply, answer: Answer) {
    if let Some(reply) = reply.lock().take() {
        // The asker may have given up.
        let _ = reply.send(answer);
    }
}

impl ReplicaChannel for Channel {
    fn call(&self, to: u64, rpc: Rpc, deadline: Instant) -> BoxFuture<'static, Answer> {
        let (world, from) = (self.world.clone(), self.from);
        let (reply, answer) = oneshot::channel();
        let reply: Reply = Arc::new(Mutex::new(Some(reply)));
        let copies = world.net.copies(world.is_healing());
        world.note(format_args!("n{from}>n{to} s{} {:?} {} bytes, {} copies", rpc.shard, rpc.kind, rpc.body.len(), copies.len()));
        if copies.is_empty() {
            lose(&world, &reply, to);
        }
        for delay in copies {
            let (its_world, rpc, reply) = (world.clone(), rpc.clone(), reply.clone());
            // Not the sender's task: what was sent arrives also when the sender dies.
            world.spawn(OUTSIDE, async move {
                sleep(delay).await;
                deliver(its_world, (from, to), rpc, deadline, reply);
            });
        }
        async move {
            let _kept = reply;
            match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Err(PeerError::Timeout(NodeId::from_member(to, 0))),
            }
        }
        .boxed()
    }

    fn given_bytes(&self, to: u64, shard: ShardId) -> u64 {
        self.world.given.lock().get(&(self.from, to, shard)).copied().unwrap_or(0)
    }
}

/// Whoever asks a node that dies over the question loses the connection to it.
struct Asked {
    world: Arc<World>,
    to: u64,
    reply: Option<Reply>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            lose(&self.world, &reply, self.to);
        }
    }
}

/// A connection that loses something ends, and the asker learns it, mostly soon.
fn lose(world: &Arc<World>, reply: &Reply, to: u64) {
    let after = world.net.draw(|random| if random.per_mille(900) { random.millis(20, 1_500) } else { random.millis(1_500, 15_000) });
    let reply = reply.clone();
    world.spawn(OUTSIDE, async move {
        sleep(after).await;
        tell(&reply, Err(PeerError::Lost(NodeId::from_member(to, 0))));
    });
}

fn deliver(world: Arc<World>, (from, to): (u64, u64), rpc: Rpc, deadline: Instant, reply: Reply) {
    if !world.net.passes(from, to) {
        return lose(&world, &reply, to);
    }
    let Some(server) = world.node(to).and_then(|node| node.server()) else {
        return tell(&reply, Err(PeerError::Unreachable(NodeId::from_member(to, 0))));
    };
    let kind = rpc.kind;
    let mut asked = Asked { world: world.clone(), to, reply: Some(reply) };
    if kind == RpcKind::InstallSnapshot && !world.is_healing() && world.net.draw(|r| r.per_mille(world.plan.cut_at_install)) {
        let (orders, wait) = (world.orders.clone(), world.net.draw(|random| random.millis(0, 400)));
        world.spawn(OUTSIDE, async move {
            sleep(wait).await;
            let _ = orders.send(Order::PowerCut(to));
        });
    }
    world.spawn(to, async move {
        let request = Request { from: NodeId::from_member(from, 0), kind, shard: rpc.shard, deadline, body: rpc.body };
        let answer = server.handle(request).await;
        let answer = answer.map_err(|refusal| PeerError::Refused { node: NodeId::from_member(to, 0), refusal });
        if let Some(reply) = asked.reply.take() {
            send_back(&asked.world, (from, to), kind, answer, reply);
        }
    });
}

fn send_back(world: &Arc<World>, (from, to): (u64, u64), kind: RpcKind, answer: Answer, reply: Reply) {
    let often = match kind {
        RpcKind::Vote => world.plan.cut_after_vote,
        RpcKind::AppendEntries => world.plan.cut_after_append,
        _ => 0,
    };
    if !world.is_healing() && world.net.draw(|random| random.per_mille(often)) {
        // The answer is on its way, and the power goes behind it.
        let _ = world.orders.send(Order::PowerCut(to));
    }
    let mute = if kind == RpcKind::InstallSnapshot { world.plan.mute_install } else { 0 };
    if mute > 0 && !world.is_healing() && world.net.draw(|random| random.per_mille(mute)) {
        world.note(format_args!("n{to} says nothing to n{from} about the snapshot"));
        return;
    }
    let Some(delay) = world.net.copies(world.is_healing()).first().copied() else { return lose(world, &reply, to) };
    let its_world = world.clone();
    world.spawn(OUTSIDE, async move {
        sleep(delay).await;
        if its_world.net.passes(to, from) {
            tell(&reply, answer);
        } else {
            lose(&its_world, &reply, to);
        }
    });
}
