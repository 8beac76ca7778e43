//! Replicas of shards on a simulated network, clock and disk, in one thread and in virtual time: the same seed is the same run.
//!
//! What runs is the product: log, state machine, replicas and their messages, group commit, stamps, snapshots. What is simulated is the world around it, through
//! the parameters that the product takes anyway: [`tallymesh_storage::disk::SimDisk`], a clock, a channel between replicas, a source of random numbers. See
//! `chaos-tests/README.md`.

mod client;
mod clock;
mod events;
mod faults;
mod fetch;
mod invariants;
mod net;
mod node;
mod operator;
mod plan;
mod random;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};
use std::time::Duration;

use tallymesh_actors::raft::runtime::set_hooks;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::disk::{PowerCut, Unsynced};
use tallymesh_storage::planted::Bug;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

pub use invariants::Stats;
use invariants::liveness::{HEALED_WITHIN, describe, is_level};
use node::End;
use operator::Fleet;
pub use plan::{Plan, Weights};
use random::Random;
use world::{OUTSIDE, World};

/// How a seed is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A bug to plant; needs the feature `planted-bugs`.
    pub bug: Option<Bug>,
    /// Changes what the seed has drawn.
    pub plan: Option<fn(&mut Plan)>,
    /// Keep every line of the trace.
    pub is_traced: bool,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    /// Of everything that happened, in order, with its virtual time.
    pub trace_hash: u64,
    pub trace_events: u64,
    pub trace: Vec<String>,
    pub violations: Vec<String>,
    /// The run ended early, with what openraft's debug assertions are known to say; see [`KNOWN`].
    pub is_cut_short: bool,
    pub stats: Stats,
    pub virtual_time: Duration,
}

/// A follower that has forgotten in a restart what was committed lets go of all of its log behind that before it installs a snapshot, and openraft asserts that
/// no membership was in it. Builds without debug assertions go on, and the snapshot has it all.
const KNOWN: [&str; 1] = ["committed membership can not conflict with the leader"];

impl Report {
    /// What a failing seed prints.
    pub fn failure(&self) -> String {
        let violations = self.violations.join("\n  ");
        format!("seed {} fails:\n  {violations}\nreplay: make sim FROM={} SEEDS=1 TRACE=1", self.seed, self.seed)
    }
}

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A panic in a simulation is a finding of its seed and not told on the terminal.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_ours = PANICS.with_borrow_mut(|panics| panics.as_mut().map(|panics| panics.push(info.to_string())).is_some());
            if !is_ours {
                usual(info);
            }
        }));
    });
}

/// Runs a seed in a thread of its own.
///
/// # Panics
/// When no thread is to be had.
pub fn run(seed: u64, options: &Options) -> Report {
    catch_panics();
    let options = options.clone();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).spawn(move || run_here(seed, &options));
    match thread.expect("a thread").join() {
        Ok(report) => report,
        Err(_) => Report {
            seed,
            trace_hash: 0,
            trace_events: 0,
            trace: Vec::new(),
            violations: vec!["the simulation itself panicked".to_owned()],
            is_cut_short: false,
            stats: Stats::default(),
            virtual_time: Duration::ZERO,
        },
    }
}

fn run_here(seed: u64, options: &Options) -> Report {
    PANICS.set(Some(Vec::new()));
    plant(options.bug);
    let mut plan = Plan::draw(seed);
    if let Some(change) = options.plan {
        change(&mut plan);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("runtime");
    let is_traced = options.is_traced;
    let (world, virtual_time) = runtime.block_on(async move {
        let (orders, received) = mpsc::unbounded_channel();
        let world = World::new(seed, plan, is_traced, orders);
        play(&world, received).await;
        let time = world.now();
        for node in world.all_nodes() {
            node.end(&world, End::Kill).await;
        }
        world.end_tasks(OUTSIDE).await;
        (world, time)
    });
    drop(runtime);
    set_hooks(None);
    plant(None);
    let (trace_hash, trace_events, trace) = world.trace();
    let mut judge = world.judge.lock();
    let mut violations = std::mem::take(&mut judge.violations);
    violations.extend(judge.disks.found.iter().map(|found| format!("no damage without a cause: {found}")));
    let panics = PANICS.take().unwrap_or_default();
    let is_known = |panic: &String| KNOWN.iter().any(|known| panic.contains(known));
    let is_cut_short = panics.iter().any(is_known);
    violations.extend(panics.iter().filter(|panic| !is_known(panic)).map(|panic| format!("nothing panics: {panic}")));
    Report { seed, trace_hash, trace_events, trace, violations, is_cut_short, stats: judge.stats, virtual_time }
}

#[cfg(feature = "planted-bugs")]
fn plant(bug: Option<Bug>) {
    tallymesh_storage::planted::plant(bug);
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(bug: Option<Bug>) {
    assert!(bug.is_none(), "bugs are planted with the feature `planted-bugs`");
}

async fn play(world: &Arc<World>, orders: mpsc::UnboundedReceiver<faults::Order>) {
    let founded = timeout(HEALED_WITHIN, Fleet::found(world)).await;
    let Ok(fleet) = founded else {
        return world.judge.lock().fail("it heals", format!("no group was founded\n    {}", describe(world)));
    };
    client::spawn_all(world);
    faults::run(world.clone(), fleet.clone(), orders).await;
    if !has_failed(world) && settle(world, &fleet).await && world.plan.cut_at_end {
        power_cut_at_the_end(world, &fleet).await;
    }
}

fn has_failed(world: &World) -> bool {
    let judge = world.judge.lock();
    !judge.violations.is_empty()
        || !judge.disks.found.is_empty()
        || PANICS.with_borrow(|panics| panics.as_ref().is_some_and(|p| !p.is_empty()))
}

/// Everything comes back, everything is acked, all replicas are level, and all counts are right; whether they were.
async fn settle(world: &Arc<World>, fleet: &Arc<Fleet>) -> bool {
    let began = Instant::now();
    let healed = timeout(HEALED_WITHIN, async {
        // Writers notice that it is over, and note what they do not know.
        while world.writing.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(50)).await;
        }
        client::resend(world).await;
        while !(fleet.is_settled() && is_level(world, &fleet.wanted())) {
            if has_failed(world) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    if healed.await.is_err() {
        world.judge.lock().fail("it heals", format!("not within {HEALED_WITHIN:?} after the last fault\n    {}", describe(world)));
        return false;
    }
    if has_failed(world) {
        return false;
    }
    world.note(format_args!("healed after {:?}", began.elapsed()));
    let Some(totals) = totals(world, &fleet.wanted()) else { return false };
    world.judge.lock().settled(&totals);
    !has_failed(world)
}

/// Counts by shard and event name, of every member; all members have to agree.
fn totals(world: &Arc<World>, members: &[u64]) -> Option<BTreeMap<(ShardId, usize), u64>> {
    let mut random = Random::new(world.seed, "totals");
    let mut totals = BTreeMap::new();
    for id in members {
        let running = world.node(*id)?.running()?;
        for (shard, replica) in running.replicas.iter() {
            for name in 0..events::NAMES.len() {
                let query = events::query(name, &mut random);
                let answer = replica.state.read().state.query(&query).ok()?;
                let mut judge = world.judge.lock();
                judge.answer(*id, *shard, &query, &answer);
                totals.insert((*shard, name), answer.cells.iter().map(|cell| cell.values.count).sum());
            }
        }
    }
    Some(totals)
}

/// The power goes everywhere, with nothing left of what was not synced, and all that was acked is there when it comes back.
async fn power_cut_at_the_end(world: &Arc<World>, fleet: &Arc<Fleet>) {
    for node in world.all_nodes() {
        world.judge.lock().disks.fail(node.id);
        node.end(world, End::Power(PowerCut { unsynced: Unsynced::Drop, seed: world.seed })).await;
        fleet.comes_back(node.id, Duration::from_millis(100));
    }
    settle(world, fleet).await;
}
