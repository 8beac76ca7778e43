//! The power goes at every point of a workload, and comes back: no acked event is missing, none counts twice (I5, I6). The whole path runs: actors, openraft,
//! the log and the snapshots, in one thread, on a simulated disk and in virtual time.

use std::collections::BTreeSet;

use tallymesh_storage::disk::{PowerCut, SimDisk, Unsynced};

use super::*;
use crate::mesh::boot;

const DIR: &str = "/data";
const SHARDS: u16 = 2;
const BATCHES: u64 = 10;
const BATCH_EVENTS: u64 = 3;

async fn start(disk: &SimDisk) -> Result<Mesh, StartError> {
    let clock = Arc::new(VirtualClock { start: Instant::now() });
    // Small files, so that the workload rolls and removes some.
    let small = MeshOptions { log_segment_bytes: 2_048, ..options(Arc::new(disk.clone()), clock, Path::new(DIR), SHARDS) };
    boot::start(small, Blocking::Inline, None).await
}

fn part(n: u64) -> Vec<(ShardId, Bytes)> {
    // The next batch repeats an event of this one.
    let first = n * (BATCH_EVENTS - 1);
    vec![(ShardId((n % u64::from(SHARDS)) as u16), batch(first..first + BATCH_EVENTS))]
}

fn events_of(batches: impl IntoIterator<Item = u64>) -> [BTreeSet<u64>; SHARDS as usize] {
    let mut events: [BTreeSet<u64>; SHARDS as usize] = Default::default();
    for n in batches {
        events[(n % u64::from(SHARDS)) as usize].extend(n * (BATCH_EVENTS - 1)..n * (BATCH_EVENTS - 1) + BATCH_EVENTS);
    }
    events
}

/// Sends every batch, some together, with a snapshot on the way; the batches that were acked. Ends where the power goes.
async fn workload(mesh: &Mesh) -> Vec<u64> {
    let mut acked = Vec::new();
    for n in (0..BATCHES).step_by(2) {
        let (one, other) = futures::future::join(mesh.append(part(n), TIMEOUT), mesh.append(part(n + 1), TIMEOUT)).await;
        acked.extend([(n, one), (n + 1, other)].into_iter().filter(|(_, outcome)| outcome[0].is_ok()).map(|(n, _)| n));
        if n == 4 || n == 6 {
            for shard in mesh.inner.shards.running() {
                shard.parts.replica.trigger_snapshot();
                // Where the power is gone already, none ever comes.
                let _ = tokio::time::timeout(Duration::from_secs(1), shard.parts.replica.snapshot_of_now()).await;
            }
        }
    }
    acked
}

fn run_until_cut(disk: &SimDisk, changes: u64) -> Vec<u64> {
    disk.fail_after(changes);
    run(async {
        match start(disk).await {
            Ok(mesh) => {
                let acked = workload(&mesh).await;
                mesh.shutdown().await;
                acked
            }
            Err(_) => Vec::new(),
        }
    })
}

fn check_after(disk: &SimDisk, acked: &[u64], context: &str) {
    run(async {
        let mesh = start(disk).await.unwrap_or_else(|e| panic!("{context}: does not start: {e}"));
        assert!(mesh.is_ready(), "{context}: {:?}", mesh.status());
        let (found, least, most) = (counts(&mesh).await, events_of(acked.iter().copied()), events_of(0..BATCHES));
        for shard in 0..SHARDS {
            let range = least[usize::from(shard)].len() as u64..=most[usize::from(shard)].len() as u64;
            assert!(range.contains(&found[&shard]), "{context}: shard {shard} has {}, acked were {}", found[&shard], range.start());
        }
        // Those of the acked ones that are there are known: a resend of them counts nothing.
        for &n in acked {
            let outcome = mesh.append(part(n), TIMEOUT).await;
            assert_eq!(outcome[0].as_ref().map(|o| o.counted), Ok(0), "{context}: batch {n} was acked and counts again");
        }
        for n in 0..BATCHES {
            assert!(mesh.append(part(n), TIMEOUT).await[0].is_ok(), "{context}: batch {n} again");
        }
        let expected: Vec<u64> = most.iter().map(|events| events.len() as u64).collect();
        assert_eq!(counts(&mesh).await.into_values().collect::<Vec<_>>(), expected, "{context}: after everything was sent again");
    });
}

/// Changes that the whole workload makes to the disk.
fn changes_of_workload() -> u64 {
    let disk = SimDisk::new();
    let acked = run_until_cut(&disk, u64::MAX);
    assert_eq!(acked.len() as u64, BATCHES, "without a cut everything is acked");
    let counts = disk.counts();
    assert!(counts.renames > 2 * u64::from(SHARDS), "snapshots are written: {counts:?}");
    let log_files = disk.files().into_keys().filter(|path| path.extension().is_some_and(|e| e == "wal"));
    let oldest = log_files.filter_map(|path| path.file_stem()?.to_str()?.parse::<u64>().ok()).min();
    assert!(oldest.is_some_and(|oldest| oldest > 1), "log files are removed: {oldest:?} is the oldest");
    counts.changes()
}

#[test]
fn no_acked_event_is_missing_or_counts_twice_after_a_power_cut_at_any_point() {
    let changes = changes_of_workload();
    let mut acked_in_all = 0;
    for point in 0..=changes {
        for (i, unsynced) in [Unsynced::Drop, Unsynced::Tear, Unsynced::Zero].into_iter().enumerate() {
            let disk = SimDisk::new();
            let acked = run_until_cut(&disk, point);
            acked_in_all += acked.len();
            let seed = point * 3 + i as u64;
            disk.crash(PowerCut { unsynced, seed });
            check_after(&disk, &acked, &format!("cut after {point} of {changes} changes, {unsynced:?}, seed {seed}"));
        }
    }
    assert!(acked_in_all as u64 > changes, "the cuts must come after some acks too");
}

#[test]
fn power_may_go_again_while_it_recovers() {
    let changes = changes_of_workload();
    for point in (0..=changes).step_by(7) {
        for again in [1, 2, 3, 5, 8, 13] {
            let disk = SimDisk::new();
            let acked = run_until_cut(&disk, point);
            disk.crash(PowerCut { unsynced: Unsynced::Tear, seed: point });
            let more = run_until_cut(&disk, disk.counts().changes() + again);
            disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: again });
            let acked: Vec<u64> = acked.into_iter().chain(more).collect::<BTreeSet<_>>().into_iter().collect();
            check_after(&disk, &acked, &format!("cut after {point} of {changes} changes, and {again} later"));
        }
    }
}

#[test]
fn same_workload_makes_the_same_changes() {
    assert_eq!(changes_of_workload(), changes_of_workload());
}
