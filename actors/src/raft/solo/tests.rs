//! The writer of the log is stepped by hand, on a simulated disk.

use std::path::Path;
use std::time::Duration;

use tallymesh_protocol::event::command::encode_tick;
use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::{Disk, SimDisk};
use tallymesh_storage::wal::{WalOptions, WalWriter};
use tokio::sync::oneshot;

use super::super::tests::open_stoppable;
use super::*;
use crate::raft::{Blocking, DurableIndex, OpenReplica, runtime};

const SHARD: ShardId = ShardId(2);
const NODE: u64 = 1;

struct Bench {
    disk: SimDisk,
    writer: WalWriter,
    solo: SoloReplica,
}

type Outcome = oneshot::Receiver<Result<Committed, ReplicatorError>>;

impl Bench {
    async fn start(disk: SimDisk) -> Self {
        let machine: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = Wal::open(machine.clone(), Arc::new(SystemClock::new()), Path::new("/log"), WalOptions::default()).expect("log");
        let (wal, mut writer) = (opened.wal, opened.writer);
        let (durable, covered) = DurableIndex::new(None);
        let stop = StopReason::new(SHARD);
        let log = LogStore::open(wal.clone(), SHARD, covered, stop.clone()).expect("store");
        let state = open_stoppable(machine, Path::new("/state"), durable, Blocking::Inline, stop.clone());
        let open = OpenReplica { node: NODE, shard: SHARD, log: log.clone(), state: state.clone(), stop: stop.clone() };
        let begin = async {
            let raft = RaftReplica::open(open).await.expect("leads alone");
            raft.propose(encode_tick(1)).await.expect("applied");
            SoloReplica::take_over(&raft, NODE, wal, &log, state, stop).await.expect("takes over")
        };
        tokio::pin!(begin);
        let solo = loop {
            tokio::select! {
                solo = &mut begin => break solo,
                () = tokio::time::sleep(Duration::from_millis(1)) => drop(writer.step()),
            }
        };
        Self { disk, writer, solo }
    }

    fn submit(&self, stamp_ms: i64) -> Outcome {
        let (sender, outcome) = oneshot::channel();
        self.solo.submit(encode_tick(stamp_ms), Box::new(move |result| drop(sender.send(result))));
        outcome
    }

    fn stamp(&self) -> i64 {
        self.solo.inner.state.shared().read().state.stamp_ms()
    }
}

/// Lets every other task run until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn outcomes_come_in_order_after_one_sync_for_all_and_not_before() {
    let mut bench = Bench::start(SimDisk::new()).await;
    let before = bench.solo.status();
    assert_eq!((before.leader, before.is_leader, before.applied_index), (Some(NODE), true, before.last_log_index));
    let mut outcomes: Vec<Outcome> = (2..5).map(|stamp| bench.submit(stamp)).collect();
    settle().await;
    assert!(outcomes.iter_mut().all(|outcome| outcome.try_recv().is_err()), "nothing is synced");
    assert_eq!((bench.stamp(), bench.solo.status().applied_index), (1, before.applied_index), "nor applied");
    let syncs = bench.disk.counts().syncs;
    assert_eq!(bench.writer.step(), 3, "none waits for another's sync");
    assert_eq!(bench.disk.counts().syncs, syncs + 1);
    for (n, outcome) in (1..).zip(outcomes) {
        assert_eq!(outcome.await.expect("told"), Ok(Committed { index: before.applied_index + n, parts: Vec::new() }));
    }
    assert_eq!(bench.stamp(), 4);
    assert_eq!(bench.solo.read_barrier().await, Ok(before.applied_index + 3));
}

#[tokio::test]
async fn an_outcome_may_bring_the_next_command() {
    let mut bench = Bench::start(SimDisk::new()).await;
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let solo = Arc::new(bench.solo);
    let (again, second) = (solo.clone(), sender.clone());
    let first = move |result: Result<Committed, _>| {
        let _ = sender.send(result.map(|committed| committed.index));
        again.submit(encode_tick(3), Box::new(move |result| drop(second.send(result.map(|committed| committed.index)))));
    };
    solo.submit(encode_tick(2), Box::new(first));
    bench.writer.step();
    let one = told.recv().await.expect("told").expect("written");
    bench.writer.step();
    assert_eq!(told.recv().await, Some(Ok(one + 1)));
}

#[tokio::test]
async fn a_failed_sync_ends_it_and_everybody_is_told() {
    let mut bench = Bench::start(SimDisk::new()).await;
    let outcomes = [bench.submit(2), bench.submit(3)];
    bench.disk.fail_next_sync();
    bench.writer.step();
    for outcome in outcomes {
        assert!(matches!(outcome.await.expect("told"), Err(ReplicatorError::Stopped(why)) if why.contains("sync")));
    }
    assert_eq!(bench.stamp(), 1, "what is not on the disk is not applied");
    assert!(matches!(bench.submit(4).await.expect("told"), Err(ReplicatorError::Stopped(_))));
    let status = bench.solo.status();
    assert!(!status.is_leader && status.stopped.is_some_and(|why| why.contains("sync")));
    assert!(bench.solo.read_barrier().await.is_err());
    bench.solo.shutdown().await;
}

#[tokio::test]
async fn shutdown_tells_whoever_waits_and_openraft_goes_on_from_the_log() {
    let disk = SimDisk::new();
    let mut bench = Bench::start(disk.clone()).await;
    let written = bench.submit(7);
    bench.writer.step();
    let index = written.await.expect("told").expect("written").index;
    let unwritten = bench.submit(8);
    bench.solo.shutdown().await;
    assert!(matches!(unwritten.await.expect("told"), Err(ReplicatorError::Stopped(_))));
    assert!(matches!(bench.submit(9).await.expect("told"), Err(ReplicatorError::Stopped(_))));
    bench.solo.shutdown().await;
    drop(bench);
    disk.kill();
    // The tick of the next start comes behind it.
    let again = Bench::start(disk).await;
    assert!(again.solo.status().applied_index > index);
    assert_eq!(again.stamp(), 7);
}

#[tokio::test]
async fn snapshot_lets_the_log_go() {
    let mut bench = Bench::start(SimDisk::new()).await;
    for stamp in 2..6 {
        let outcome = bench.submit(stamp);
        bench.writer.step();
        outcome.await.expect("told").expect("written");
    }
    let applied = bench.solo.status().applied_index;
    bench.solo.trigger_snapshot();
    let saved = bench.solo.snapshot_of_now();
    settle().await;
    assert_eq!(bench.solo.status().snapshot_index, 0, "its log is still there");
    bench.writer.step();
    saved.await;
    assert_eq!(bench.solo.status().snapshot_index, applied);
    assert_eq!(bench.solo.inner.wal.state(SHARD.0).expect("reads").entries, None);
    let outcome = bench.submit(9);
    bench.writer.step();
    assert_eq!(outcome.await.expect("told").expect("written").index, applied + 1, "and goes on behind it");
}

#[tokio::test]
async fn a_panic_of_whoever_waits_ends_it_and_the_others_are_told() {
    let mut bench = Bench::start(SimDisk::new()).await;
    bench.solo.submit(encode_tick(2), Box::new(|_| panic!("on purpose")));
    let other = bench.submit(3);
    bench.writer.step();
    assert!(matches!(other.await.expect("told"), Err(ReplicatorError::Stopped(why)) if why.contains("panicked")));
    assert!(bench.solo.status().stopped.is_some());
    bench.solo.trigger_snapshot();
    settle().await;
    assert_eq!(bench.solo.status().snapshot_index, 0, "nothing is saved any more");
}

#[tokio::test]
async fn a_panic_while_applying_ends_it_and_the_half_made_state_is_not_saved() {
    let mut bench = Bench::start(SimDisk::new()).await;
    // Whoever is told of a change is told with the state locked.
    let hooks = runtime::Hooks {
        spawned: Box::new(|_, _| {}),
        random: Box::new(|_| 4),
        pause: Box::new(|_| Duration::ZERO),
        may_run: Box::new(|_, _| true),
        changed: Box::new(|_, _| panic!("on purpose")),
    };
    let (panicking, other) = (bench.submit(2), bench.submit(3));
    bench.writer.step();
    runtime::set_hooks(Some(hooks));
    settle().await;
    runtime::set_hooks(None);
    for outcome in [panicking, other] {
        assert!(matches!(outcome.await.expect("told"), Err(ReplicatorError::Stopped(why)) if why == "applying an entry panicked"));
    }
    assert!(!bench.solo.status().is_leader && bench.solo.read_barrier().await.is_err());
    assert!(bench.solo.inner.state.clone().build_snapshot().await.is_err(), "also by who is at it already");
}

#[tokio::test]
async fn a_writer_that_is_gone_leaves_nobody_waiting() {
    let bench = Bench::start(SimDisk::new()).await;
    let outcome = bench.submit(2);
    // As by a panic of its thread.
    drop(Writing { inner: bench.solo.inner.clone(), index: 1, is_told: false });
    assert!(matches!(outcome.await.expect("told"), Err(ReplicatorError::Stopped(why)) if why.contains("gone")));
}

#[test]
fn commands_are_written_as_openraft_has_them_written() {
    let command = encode_tick(77);
    let entry = Entry::<ShardRaft> { log_id: codec::log_id(3, 9), payload: EntryPayload::Normal(Command(command.clone())) };
    assert_eq!(codec::encode_own_command(3, 9, 8, command), codec::encode_own_entry(entry, 8).expect("encodes"));
}
