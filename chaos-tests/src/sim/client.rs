//! Clients: some write and try again until they know, some read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use tallymesh_actors::replicator::Replicator;
use tallymesh_actors::{AppendError, PartOutcome};
use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::question::answer::PartialAnswer;
use tallymesh_protocol::question::query::ShardQuery;
use tallymesh_storage::clock::Clock;
use tallymesh_storage::planted::{self, Bug};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::clock::BEGAN_MS;
use super::events::{Event, NAMES, query};
use super::node::Running;
use super::random::Random;
use super::world::{OUTSIDE, World};

/// A part that a client sends until it is acked.
#[derive(Clone)]
pub struct Write {
    pub shard: ShardId,
    /// One number for all attempts until it is acked or given up.
    pub request: u64,
    pub events: Arc<Vec<Event>>,
    pub bytes: Bytes,
}

/// Has a node do something; nothing when the question or the answer is lost, or not in time.
async fn ask<T: Send + 'static>(
    world: &Arc<World>,
    to: u64,
    patience: Duration,
    work: impl FnOnce(Running) -> BoxFuture<'static, T> + Send + 'static,
) -> Option<T> {
    let (there, back) = (world.net.copies(world.is_healing()), world.net.copies(world.is_healing()));
    let (Some(there), back) = (there.first().copied(), back.first().copied()) else {
        sleep(patience).await;
        return None;
    };
    sleep(there).await;
    let Some(running) = world.node(to).and_then(|node| node.running()) else {
        sleep(Duration::from_millis(5)).await;
        return None;
    };
    let (sender, answer) = oneshot::channel();
    world.spawn(to, async move {
        let _ = sender.send(work(running).await);
    });
    let answer = timeout(patience, answer).await.ok()?.ok()?;
    let Some(back) = back else {
        sleep(patience).await;
        return None;
    };
    sleep(back).await;
    Some(answer)
}

/// Where the leader may be: one in so many times anywhere, else where somebody says that it is.
fn guess(world: &World, shard: ShardId, random: &mut Random) -> Option<u64> {
    let nodes = world.all_nodes();
    let ids: Vec<u64> = nodes.iter().map(|node| node.id).collect();
    if random.per_mille(200) {
        return random.pick(&ids).copied();
    }
    let leads = |node: &Arc<super::node::Node>| {
        let running = node.running()?;
        running.replicas.get(&shard)?.raft.status().is_leader.then_some(node.id)
    };
    let leaders: Vec<u64> = nodes.iter().filter_map(leads).collect();
    random.pick(&leaders).or_else(|| random.pick(&ids)).copied()
}

async fn append(world: &Arc<World>, to: u64, write: &Write, patience: Duration) -> Option<Result<PartOutcome, AppendError>> {
    let (shard, request, bytes) = (write.shard, write.request, write.bytes.clone());
    let node = world.node(to)?;
    let work = move |running: Running| {
        async move {
            let replica = running.replicas.get(&shard)?;
            let room = replica.owner.reserve(bytes.len(), running.enter(bytes.len())?).ok()?;
            let arrived = node.clock.monotonic();
            replica.owner.append(room, request, bytes, arrived, arrived + patience).await.ok()
        }
        .boxed()
    };
    ask(world, to, patience, work).await?
}

/// One attempt; whether it was acked.
async fn attempt(world: &Arc<World>, write: &Write, random: &mut Random) -> bool {
    let Some(to) = guess(world, write.shard, random) else {
        sleep(Duration::from_millis(50)).await;
        return false;
    };
    let patience = random.millis(300, 3_000);
    let outcome = append(world, to, write, patience).await;
    world.note(format_args!("write to s{} of n{to}: {outcome:?}", write.shard));
    match outcome {
        Some(Ok(outcome)) => {
            world.judge.lock().acked(write, &outcome);
            true
        }
        Some(Err(error @ AppendError::Refused { .. })) => {
            world.judge.lock().fail("acked survives", format!("a good batch was refused by n{to}: {error}"));
            false
        }
        Some(Err(_)) | None => false,
    }
}

pub async fn writer(world: Arc<World>, number: u64) {
    let mut random = Random::new(world.seed.wrapping_add(number << 20), "writer");
    while !world.is_healing() {
        let shard = ShardId(random.range(0, u64::from(world.plan.shards)) as u16);
        let now_ms = BEGAN_MS + world.now().as_millis() as i64;
        let mut write = world.judge.lock().new_write(shard, now_ms, &mut random);
        let attempts = random.range(1, 8);
        let mut is_acked = false;
        for nth in 0..attempts {
            if attempt(&world, &write, &mut random).await {
                is_acked = true;
                break;
            }
            if nth == 0 && planted::has(Bug::RetryToAnotherShard) {
                write.shard = ShardId((write.shard.0 + 1) % world.plan.shards);
            }
            sleep(random.millis(1, 200)).await;
            if world.is_healing() {
                break;
            }
        }
        if !is_acked {
            world.judge.lock().unknown(write);
        } else if random.per_mille(50) {
            // Its client did not get the answer.
            world.judge.lock().unknown(write);
        }
        sleep(random.millis(1, 60)).await;
    }
}

/// Sends again what is not known to be in, until it is.
pub async fn resend(world: &Arc<World>) {
    let mut random = Random::new(world.seed, "resend");
    loop {
        let Some(write) = world.judge.lock().next_unknown() else { return };
        while !attempt(world, &write, &mut random).await {
            sleep(random.millis(20, 100)).await;
        }
    }
}

type Answered = Result<(u64, PartialAnswer), String>;

/// Reads behind a barrier; the log index of the barrier.
async fn read(running: Running, shard: ShardId, query: Arc<ShardQuery>) -> Answered {
    let replica = running.replicas.get(&shard).ok_or("no such shard")?;
    let barrier = replica.raft.read_barrier().map_err(|e| e.to_string()).await?;
    let prepared = replica.state.read().state.prepare(&query);
    let answer = prepared.run(&|| false).map_err(|e| e.to_string())?;
    Ok((barrier, answer))
}

/// Reads as soon as the state has the index.
async fn read_with_token(running: Running, shard: ShardId, index: u64, query: Arc<ShardQuery>) -> Answered {
    let replica = running.replicas.get(&shard).ok_or("no such shard")?;
    loop {
        let answer = replica.state.read().state.query(&query).map_err(|e| e.to_string())?;
        if answer.applied_index >= index {
            return Ok((index, answer));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

pub async fn reader(world: Arc<World>, number: u64) {
    let mut random = Random::new(world.seed.wrapping_add(number << 20), "reader");
    while !world.is_healing() {
        let shard = ShardId(random.range(0, u64::from(world.plan.shards)) as u16);
        let asked = Arc::new(query(random.range(0, NAMES.len() as u64) as usize, &mut random));
        if random.per_mille(600) {
            linearizable(&world, shard, asked, &mut random).await;
        } else {
            by_token(&world, shard, asked, &mut random).await;
        }
        sleep(random.millis(1, 150)).await;
    }
}

/// A read that must see every write that was acked before it.
pub async fn linearizable(world: &Arc<World>, shard: ShardId, asked: Arc<ShardQuery>, random: &mut Random) -> bool {
    let floor = world.judge.lock().newest_ack(shard);
    let Some(to) = guess(world, shard, random) else { return false };
    let patience = random.millis(300, 2_000);
    let question = asked.clone();
    let answer = ask(world, to, patience, move |running| read(running, shard, question).boxed()).await;
    let Some(Ok((_, answer))) = answer else { return false };
    world.note(format_args!("read s{shard} of n{to}: at {}", answer.applied_index));
    let mut judge = world.judge.lock();
    judge.read(to, shard, floor, &answer);
    judge.answer(to, shard, &asked, &answer);
    true
}

async fn by_token(world: &Arc<World>, shard: ShardId, asked: Arc<ShardQuery>, random: &mut Random) {
    let Some(index) = world.judge.lock().newest_ack(shard) else { return };
    let ids: Vec<u64> = world.all_nodes().iter().map(|node| node.id).collect();
    let Some(to) = random.pick(&ids).copied() else { return };
    let question = asked.clone();
    let answer = ask(world, to, random.millis(100, 1_500), move |running| read_with_token(running, shard, index, question).boxed()).await;
    let Some(Ok((_, answer))) = answer else { return };
    let mut judge = world.judge.lock();
    judge.read(to, shard, Some(index), &answer);
    judge.answer(to, shard, &asked, &answer);
}

/// Starts them.
pub fn spawn_all(world: &Arc<World>) {
    world.writing.store(world.plan.writers, Ordering::Relaxed);
    for number in 0..world.plan.writers {
        let world = world.clone();
        let its_world = world.clone();
        world.spawn(OUTSIDE, async move {
            writer(its_world.clone(), number).await;
            its_world.writing.fetch_sub(1, Ordering::Relaxed);
        });
    }
    for number in 0..world.plan.readers {
        world.spawn(OUTSIDE, reader(world.clone(), number));
    }
}
