//! What everything in a simulation shares: virtual time, the trace, the nodes and who judges.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_actors::raft::runtime::{Hooks, Scope, scoped, set_hooks};
use tallymesh_protocol::hash::ShardId;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::faults::Order;
use super::invariants::Judge;
use super::net::Net;
use super::node::Node;
use super::plan::Plan;
use super::random::Random;

/// The scope of clients, faults and the network itself.
pub const OUTSIDE: Scope = 0;

/// A hash of everything that happened, in order, with its virtual time.
#[derive(Default)]
struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub began: Instant,
    pub net: Net,
    pub judge: Mutex<Judge>,
    pub nodes: Mutex<BTreeMap<u64, Arc<Node>>>,
    pub orders: mpsc::UnboundedSender<Order>,
    /// Nothing goes wrong any more.
    pub is_healing: AtomicBool,
    /// Writers that have not ended.
    pub writing: AtomicU64,
    /// Bytes of snapshots' files by (from, to, shard).
    pub given: Mutex<BTreeMap<(u64, u64, ShardId), u64>>,
    trace: Mutex<Trace>,
    tasks: Mutex<BTreeMap<Scope, Vec<AbortHandle>>>,
    /// Scopes that are stopped, with the tasks that would like to run.
    held: Mutex<BTreeMap<Scope, Vec<Waker>>>,
    randoms: Mutex<BTreeMap<Scope, Random>>,
}

impl World {
    pub fn new(seed: u64, plan: Plan, is_traced: bool, orders: mpsc::UnboundedSender<Order>) -> Arc<Self> {
        let world = Arc::new(Self {
            seed,
            net: Net::new(seed, &plan),
            judge: Mutex::new(Judge::new(plan.shards)),
            plan,
            began: Instant::now(),
            nodes: Mutex::default(),
            orders,
            is_healing: AtomicBool::new(false),
            writing: AtomicU64::new(0),
            given: Mutex::default(),
            trace: Mutex::new(Trace { lines: is_traced.then(Vec::new), ..Trace::default() }),
            tasks: Mutex::default(),
            held: Mutex::default(),
            randoms: Mutex::default(),
        });
        world.hook_in();
        world
    }

    fn hook_in(self: &Arc<Self>) {
        let (spawns, numbers, pauses, gate, changes) = (self.clone(), self.clone(), self.clone(), self.clone(), self.clone());
        set_hooks(Some(Hooks {
            spawned: Box::new(move |scope, task| spawns.own(scope, task)),
            random: Box::new(move |scope| numbers.random(scope, Random::next)),
            pause: Box::new(move |scope| {
                let (from, to) = pauses.plan.blocking_us;
                pauses.random(scope, |random| random.micros(from, to))
            }),
            may_run: Box::new(move |scope, waker| match gate.held.lock().get_mut(&scope) {
                None => true,
                Some(waiting) => {
                    waiting.push(waker.clone());
                    false
                }
            }),
            changed: Box::new(move |scope, change| {
                changes.note(format_args!("n{scope} s{} at {}", change.shard, change.log_id));
                changes.judge.lock().changed(scope, &change);
            }),
        }));
    }

    /// A number of the node's own stream.
    pub fn random<T>(&self, scope: Scope, draw: impl FnOnce(&mut Random) -> T) -> T {
        let mut randoms = self.randoms.lock();
        draw(randoms.entry(scope).or_insert_with(|| Random::new(self.seed.wrapping_add(scope << 32), "node")))
    }

    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn is_healing(&self) -> bool {
        self.is_healing.load(Ordering::Relaxed)
    }

    pub fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>12} {what}", self.now().as_micros());
        let mut trace = self.trace.lock();
        trace.hash = line.bytes().fold(trace.hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        trace.events += 1;
        if let Some(lines) = &mut trace.lines {
            lines.push(line);
        }
    }

    pub fn trace(&self) -> (u64, u64, Vec<String>) {
        let mut trace = self.trace.lock();
        (trace.hash, trace.events, trace.lines.take().unwrap_or_default())
    }

    pub fn node(&self, id: u64) -> Option<Arc<Node>> {
        self.nodes.lock().get(&id).cloned()
    }

    pub fn all_nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().values().cloned().collect()
    }

    fn own(&self, scope: Scope, task: AbortHandle) {
        let mut tasks = self.tasks.lock();
        let own = tasks.entry(scope).or_default();
        if own.len().is_multiple_of(64) {
            own.retain(|task| !task.is_finished());
        }
        own.push(task);
    }

    /// Runs a task that ends with its node.
    pub fn spawn(&self, scope: Scope, future: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(scoped(scope, future));
        self.own(scope, task.abort_handle());
    }

    /// Makes a task that was spawned elsewhere end with its node.
    pub fn adopt(&self, scope: Scope, task: AbortHandle) {
        self.own(scope, task);
    }

    /// No task of the node runs until [`Self::go_on`]: a stopped process.
    pub fn hold(&self, scope: Scope) {
        self.held.lock().entry(scope).or_default();
    }

    pub fn is_held(&self, scope: Scope) -> bool {
        self.held.lock().contains_key(&scope)
    }

    pub fn go_on(&self, scope: Scope) {
        let waiting = self.held.lock().remove(&scope);
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Ends every task of the node and waits until they have.
    pub async fn end_tasks(&self, scope: Scope) {
        let tasks = self.tasks.lock().remove(&scope).unwrap_or_default();
        tasks.iter().for_each(AbortHandle::abort);
        self.go_on(scope);
        while !tasks.iter().all(AbortHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        // What they dropped may have woken others of the node.
        let late = self.tasks.lock().remove(&scope).unwrap_or_default();
        late.iter().for_each(AbortHandle::abort);
    }
}
