//! A mesh on real files, with real threads.

use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::{RealDisk, SimDisk};

use super::*;
use crate::mesh::boot;

const SHARDS: u16 = 4;

fn real(dir: &Path) -> MeshOptions {
    options(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir, SHARDS)
}

fn each_shard(events: std::ops::Range<u64>) -> Vec<(ShardId, Bytes)> {
    (0..SHARDS).map(|shard| (ShardId(shard), batch(events.clone()))).collect()
}

async fn refused(options: MeshOptions) -> String {
    match Mesh::start(options).await {
        Ok(_) => panic!("started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart_and_a_resend_counts_once() {
    let dir = tempfile::tempdir().expect("directory");
    let mesh = Mesh::start(real(dir.path())).await.expect("start");
    assert!(mesh.is_ready());
    let fresh = PartOutcome { counted: 100, duplicates: 0, index: 0 };
    for outcome in mesh.append(each_shard(0..100), TIMEOUT).await {
        assert_eq!(PartOutcome { index: 0, ..outcome.expect("appended") }, fresh);
    }
    let again = mesh.append(vec![(ShardId(1), batch(50..150)), (ShardId(2), batch(0..0))], TIMEOUT).await;
    assert_eq!(again[0].as_ref().map(|o| (o.counted, o.duplicates)), Ok((50, 50)));
    assert_eq!(again[1].as_ref().map(|o| (o.counted, o.duplicates)), Ok((0, 0)));
    assert_eq!(counts(&mesh).await, BTreeMap::from([(0, 100), (1, 150), (2, 100), (3, 100)]));
    assert_eq!(mesh.event_names().await, [EVENT]);
    mesh.shutdown().await;
    mesh.shutdown().await;
    assert!(!mesh.is_ready());
    assert!(matches!(mesh.append(each_shard(0..1), TIMEOUT).await[0], Err(AppendError::Stopped { .. })));

    let clock = SystemClock::new();
    let mesh = Mesh::start(real(dir.path())).await.expect("start again");
    assert!(
        clock.monotonic() < Duration::from_millis(900),
        "a group of one must not wait for an election time-out: {:?}",
        clock.monotonic()
    );
    assert_eq!(counts(&mesh).await, BTreeMap::from([(0, 100), (1, 150), (2, 100), (3, 100)]));
    for outcome in mesh.append(each_shard(0..100), TIMEOUT).await {
        assert_eq!(outcome.map(|o| (o.counted, o.duplicates)), Ok((0, 100)));
    }
    let status = mesh.status();
    assert_eq!((status[1].events, status[1].duplicates, status[1].queued_bytes), (150, 150, 0));
    assert!(status.iter().all(|s| s.stopped.is_none() && s.leader == Some(1)));
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_in_use_or_of_another_shape_is_refused_and_says_why() {
    let dir = tempfile::tempdir().expect("directory");
    let mesh = Mesh::start(real(dir.path())).await.expect("start");
    let message = refused(real(dir.path())).await;
    assert!(message.contains(&dir.path().display().to_string()), "{message}");
    mesh.shutdown().await;
    let message = refused(MeshOptions { shards: 5, ..real(dir.path()) }).await;
    assert!(message.contains("shards = 5") && message.contains("made with 4"), "{message}");
    std::fs::remove_dir_all(dir.path().join("log")).expect("the log goes");
    let message = refused(real(dir.path())).await;
    assert!(message.contains("is gone"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_may_change_but_definitions_of_counted_events_may_not() {
    let dir = tempfile::tempdir().expect("directory");
    let defined = |names: &[&str]| {
        let mut options = real(dir.path());
        let define = |name: &&str| format!("{{\"name\":\"{name}\",\"event\":[\"{EVENT}\"]}}");
        let json = format!("[{}]", names.iter().map(define).collect::<Vec<_>>().join(","));
        options.settings.definitions = serde_json::from_str(&json).expect("definitions");
        options
    };
    Mesh::start(defined(&["early"])).await.expect("start").shutdown().await;
    let mesh = Mesh::start(defined(&["departures"])).await.expect("nothing was counted yet");
    assert!(mesh.append(each_shard(0..1), TIMEOUT).await.iter().all(Result::is_ok));
    mesh.shutdown().await;
    let message = refused(defined(&["arrivals"])).await;
    assert!(message.contains("`arrivals` is new") && message.contains("`departures` is missing"), "{message}");
    let mut changed = defined(&["departures"]);
    changed.settings.lateness_ms = 5_000;
    changed.settings.definitions_version = 0;
    let mesh = Mesh::start(changed).await.expect("lateness may change");
    assert_eq!(mesh.definitions().version(), 1, "batches made with a lower version would be stale");
    let appended = mesh.append(vec![(ShardId(0), batch(7..9))], TIMEOUT).await;
    assert_eq!(appended[0].as_ref().map(|o| o.counted), Ok(2));
    let lateness = |slot: &Slot| slot.running().expect("runs").parts.state.read().state.settings().lateness_ms;
    assert!(mesh.inner.shards.all().iter().all(|slot| lateness(slot) == 5_000));
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_refused_whole_and_room_comes_back() {
    let dir = tempfile::tempdir().expect("directory");
    let part = batch(0..1_000);
    let mesh = Mesh::start(MeshOptions { shard_queue_bytes_max: 3 * part.len(), ..real(dir.path()) }).await.expect("start");
    let parts = |n: usize| (0..n).map(|_| (ShardId(0), part.clone())).chain([(ShardId(1), part.clone())]).collect::<Vec<_>>();
    let refused = mesh.append(parts(4), TIMEOUT).await;
    let limit_bytes = 3 * part.len();
    assert!(refused.iter().all(|o| *o == Err(AppendError::Overloaded { shard: ShardId(0), limit_bytes })));
    assert_eq!(counts(&mesh).await[&1], 0, "nothing was sent, not even where there was room");
    let accepted = mesh.append(parts(3), TIMEOUT).await;
    assert!(accepted.iter().all(Result::is_ok), "{accepted:?}");
    assert!(mesh.status().iter().all(|s| s.queued_bytes == 0));
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_that_is_no_batch_is_refused_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let mesh = Mesh::start(real(dir.path())).await.expect("start");
    let parts = vec![(ShardId(0), Bytes::from_static(b"nonsense")), (ShardId(0), batch(0..3)), (ShardId(9), batch(0..3))];
    let outcomes = mesh.append(parts, TIMEOUT).await;
    assert!(matches!(&outcomes[0], Err(AppendError::Refused { shard: ShardId(0), .. })), "{outcomes:?}");
    assert_eq!(outcomes[1].as_ref().map(|o| o.counted), Ok(3));
    assert!(matches!(&outcomes[2], Err(AppendError::Refused { shard: ShardId(9), .. })));
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_batches_at_once_share_entries() {
    let dir = tempfile::tempdir().expect("directory");
    let mesh = Mesh::start(real(dir.path())).await.expect("start");
    let before = mesh.status()[0].last_log_index;
    let appends = (0..500u64).map(|n| {
        let mesh = mesh.clone();
        async move { mesh.append(vec![(ShardId(0), batch(n * 3..n * 3 + 3))], TIMEOUT).await }
    });
    for outcome in futures::future::join_all(appends).await {
        assert_eq!(outcome[0].as_ref().map(|o| (o.counted, o.duplicates)), Ok((3, 0)));
    }
    let entries = mesh.status()[0].last_log_index - before;
    assert!(entries < 100, "{entries} entries for 500 requests");
    assert_eq!(counts(&mesh).await[&0], 1_500);
    mesh.shutdown().await;
}

/// What is on disk of the log, in bytes.
fn log_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir.join("log")).expect("log");
    // A file may go meanwhile.
    files.filter_map(|f| f.ok()?.metadata().ok()).map(|m| m.len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_stays_small_by_itself_and_nothing_is_lost_with_it() {
    const LOG_BYTES_MAX: u64 = 2 << 20;
    let dir = tempfile::tempdir().expect("directory");
    let small = || MeshOptions { log_bytes_max: LOG_BYTES_MAX, log_segment_bytes: 256 << 10, ..real(dir.path()) };
    let mesh = Mesh::start(small()).await.expect("start");
    let mut sent = 0u64;
    let mut highest = 0;
    // An idle shard must not hold the log of the busy ones.
    assert!(mesh.append(vec![(ShardId(3), batch(0..1))], TIMEOUT).await[0].is_ok());
    while sent < 200_000 {
        let part = batch(sent..sent + 500);
        let outcomes = mesh.append((0..3).map(|shard| (ShardId(shard), part.clone())).collect(), TIMEOUT).await;
        if outcomes.iter().all(Result::is_ok) {
            sent += 500;
        } else {
            let waits =
                outcomes.iter().all(|o| o.is_ok() || matches!(o, Err(AppendError::Overloaded { .. } | AppendError::LogFull { .. })));
            assert!(waits, "{outcomes:?}");
            tokio::task::yield_now().await;
        }
        highest = highest.max(log_bytes(dir.path()));
    }
    assert!(highest < 2 * LOG_BYTES_MAX, "the log grew to {highest} bytes");
    let status = mesh.status();
    assert!(status.iter().all(|s| s.snapshot_index > 0 && s.last_snapshot_ms.is_some()), "{status:?}");
    let expected = BTreeMap::from([(0, sent), (1, sent), (2, sent), (3, 1)]);
    assert_eq!(counts(&mesh).await, expected);
    mesh.shutdown().await;
    let mesh = Mesh::start(small()).await.expect("start again");
    assert_eq!(counts(&mesh).await, expected);
    let again = mesh.append(vec![(ShardId(0), batch(0..1_000)), (ShardId(2), batch(sent - 1_000..sent))], TIMEOUT).await;
    assert!(again.iter().all(|o| o.as_ref().map(|o| (o.counted, o.duplicates)) == Ok((0, 1_000))), "{again:?}");
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_shard_stops_with_file_and_offset_and_the_others_go_on() {
    let dir = tempfile::tempdir().expect("directory");
    let mesh = Mesh::start(real(dir.path())).await.expect("start");
    assert!(mesh.append(each_shard(0..10), TIMEOUT).await.iter().all(Result::is_ok));
    mesh.inner.shards.running()[2].parts.replica.trigger_snapshot();
    mesh.inner.shards.running()[2].parts.replica.snapshot_of_now().await;
    mesh.shutdown().await;
    let manifest = dir.path().join("shards/2/snapshot");
    let mut bytes = std::fs::read(&manifest).expect("a snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&manifest, bytes).expect("damage");

    let mesh = Mesh::start(real(dir.path())).await.expect("the others start");
    assert!(!mesh.is_ready());
    let status = mesh.status();
    let stopped = status[2].stopped.as_deref().unwrap_or_default();
    assert!(stopped.contains("shards/2/snapshot") && stopped.contains("at byte"), "{stopped}");
    let outcomes = mesh.append(each_shard(5..15), TIMEOUT).await;
    let as_expected = |(shard, outcome): (usize, &Result<PartOutcome, AppendError>)| match outcome {
        Ok(outcome) => shard != 2 && (outcome.counted, outcome.duplicates) == (5, 5),
        Err(error) => shard == 2 && matches!(error, AppendError::Stopped { shard: ShardId(2), detail } if detail == stopped),
    };
    assert!(outcomes.iter().enumerate().all(as_expected), "{outcomes:?}");
    let gathered = mesh.query(count_query(), TIMEOUT, Patience::All).await;
    assert_eq!(
        gathered.answers.iter().map(|(shard, answer)| (shard.0, answer.is_ok())).collect::<Vec<_>>(),
        [(0, true), (1, true), (2, false), (3, true)]
    );
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_that_a_stopped_shard_keeps_does_not_stop_the_others() {
    const LOG_BYTES_MAX: u64 = 2 << 20;
    let dir = tempfile::tempdir().expect("directory");
    let small = || MeshOptions { log_bytes_max: LOG_BYTES_MAX, log_segment_bytes: 256 << 10, ..real(dir.path()) };
    let mesh = Mesh::start(small()).await.expect("start");
    assert!(mesh.append(each_shard(0..10), TIMEOUT).await.iter().all(Result::is_ok));
    let stopping = mesh.inner.shards.running()[2].parts.replica.clone();
    stopping.trigger_snapshot();
    stopping.snapshot_of_now().await;
    assert!(mesh.append(each_shard(10..20), TIMEOUT).await.iter().all(Result::is_ok));
    mesh.shutdown().await;
    std::fs::write(dir.path().join("shards/2/snapshot"), b"damaged").expect("damage");

    let mesh = Mesh::start(small()).await.expect("the others start");
    let mut sent = 20u64;
    let mut refused = 0;
    while log_bytes(dir.path()) < 4 * LOG_BYTES_MAX {
        let part = batch(sent..sent + 500);
        let outcomes = mesh.append([0, 1, 3].map(|shard| (ShardId(shard), part.clone())).to_vec(), TIMEOUT).await;
        match outcomes.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(_) => (sent, refused) = (sent + 500, 0),
            Err(AppendError::LogFull { .. }) => {
                refused += 1;
                assert!(refused < 1_000, "snapshots of the others do not make room");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let snapshots = |mesh: &Mesh| mesh.status().iter().map(|s| s.snapshot_index).collect::<Vec<_>>();
    assert!(mesh.log_stats().held_bytes < 2 * LOG_BYTES_MAX, "{:?}", mesh.log_stats());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = snapshots(&mesh);
    assert!(mesh.append(vec![(ShardId(0), batch(0..20))], TIMEOUT).await[0].is_ok());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(snapshots(&mesh), before, "what cannot go asks for no snapshots");
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_the_middle_of_the_log_stops_its_shard_only() {
    let dir = tempfile::tempdir().expect("directory");
    let mesh = Mesh::start(real(dir.path())).await.expect("start");
    for n in 0..5 {
        assert!(mesh.append(each_shard(n * 10..n * 10 + 10), TIMEOUT).await.iter().all(Result::is_ok));
    }
    // Nobody else has these.
    let marked = batch(1_000_000..1_000_010);
    assert!(mesh.append(vec![(ShardId(1), marked.clone())], TIMEOUT).await[0].is_ok());
    assert!(mesh.append(each_shard(60..70), TIMEOUT).await.iter().all(Result::is_ok));
    mesh.shutdown().await;
    let mut damaged = None;
    for file in std::fs::read_dir(dir.path().join("log")).expect("log") {
        let path = file.expect("file").path();
        let mut bytes = std::fs::read(&path).expect("log file");
        if let Some(at) = bytes.windows(marked.len()).position(|w| w == marked) {
            bytes[at + 100] ^= 4;
            std::fs::write(&path, bytes).expect("damage");
            damaged = Some((path, at as u64));
        }
    }
    let (path, at) = damaged.expect("the batch is in the log as it was sent");

    let mesh = Mesh::start(real(dir.path())).await.expect("the others start");
    let status = mesh.status();
    let stopped = status[1].stopped.clone().unwrap_or_default();
    assert!(stopped.contains(&path.display().to_string()), "{stopped}");
    let offset = stopped.split("at byte ").nth(1).and_then(|s| s.split(':').next()).and_then(|s| s.parse::<u64>().ok()).expect("an offset");
    assert!(offset <= at && at - offset < 512, "{stopped}, damaged near {at}");
    assert!(!mesh.is_ready());
    let outcomes = mesh.append(each_shard(65..75), TIMEOUT).await;
    let as_expected = |(shard, outcome): (usize, &Result<PartOutcome, AppendError>)| match outcome {
        Ok(outcome) => shard != 1 && (outcome.counted, outcome.duplicates) == (5, 5),
        Err(error) => shard == 1 && matches!(error, AppendError::Stopped { .. }),
    };
    assert!(outcomes.iter().enumerate().all(as_expected), "{outcomes:?}");
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mesh_that_is_dropped_ends_and_gives_the_directory_free() {
    let dir = tempfile::tempdir().expect("directory");
    let mesh = Mesh::start(real(dir.path())).await.expect("start");
    assert!(mesh.append(each_shard(0..10), TIMEOUT).await.iter().all(Result::is_ok));
    let states: Vec<_> = mesh.inner.shards.running().iter().map(|s| Arc::downgrade(&s.parts.state)).collect();
    drop(mesh);
    let gone = async {
        while states.iter().any(|state| state.strong_count() > 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, gone).await.expect("everything that held a state ended");
    let mesh = Mesh::start(real(dir.path())).await.expect("start again");
    assert!(counts(&mesh).await.values().all(|&count| count == 10));
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_sync_is_never_acked_and_stops_what_it_touched() {
    let disk = SimDisk::new();
    let dir = Path::new("/data");
    let simulated = || options(Arc::new(disk.clone()), Arc::new(SystemClock::new()), dir, 2);
    let mesh = boot::start(simulated(), Blocking::Threads, None).await.expect("start");
    assert!(mesh.append(vec![(ShardId(0), batch(0..10))], TIMEOUT).await[0].is_ok());
    disk.fail_next_sync();
    let failed = mesh.append(vec![(ShardId(0), batch(10..20))], TIMEOUT).await;
    assert!(matches!(failed[0], Err(AppendError::Stopped { .. })), "{failed:?}");
    let later = mesh.append(vec![(ShardId(0), batch(20..30))], TIMEOUT).await;
    assert!(matches!(later[0], Err(AppendError::Stopped { .. })), "{later:?}");
    assert!(!mesh.is_ready());
    // All shards share the log: the one that has not written since cannot either.
    assert!(mesh.status().iter().all(|shard| shard.stopped.is_some()), "{:?}", mesh.status());
    mesh.shutdown().await;
    disk.kill();
    let mesh = boot::start(simulated(), Blocking::Threads, None).await.expect("what is there is read back");
    let counted = counts(&mesh).await[&0];
    assert!(counted == 10 || counted == 20, "{counted}: the unacked batch is there whole or not at all");
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dedup_run_that_does_not_read_stops_its_shard_and_nothing_is_counted_twice() {
    let disk = SimDisk::new();
    // Nothing that is saved stays in memory: what was counted before is looked up on the disk.
    let simulated =
        || MeshOptions { dedup_memory_bytes: 0, ..options(Arc::new(disk.clone()), Arc::new(SystemClock::new()), Path::new("/data"), 2) };
    let both = |events: std::ops::Range<u64>| [0, 1].map(|shard| (ShardId(shard), batch(events.clone()))).to_vec();
    let mesh = boot::start(simulated(), Blocking::Threads, None).await.expect("start");
    assert!(mesh.append(both(0..1_000), TIMEOUT).await.iter().all(Result::is_ok));
    for shard in mesh.inner.shards.running() {
        shard.parts.replica.trigger_snapshot();
        shard.parts.replica.snapshot_of_now().await;
    }
    mesh.shutdown().await;
    let mesh = boot::start(simulated(), Blocking::Threads, None).await.expect("start");
    let runs: BTreeMap<_, _> = disk.files().into_iter().filter(|(path, _)| path.starts_with("/data/shards/0")).collect();
    let runs: Vec<_> =
        runs.into_iter().filter(|(path, _)| path.file_name().is_some_and(|n| n.to_string_lossy().contains("dedup"))).collect();
    assert!(!runs.is_empty());
    for (path, _) in &runs {
        disk.truncate(path, 0).expect("damage");
    }

    let failed = mesh.append(both(0..10), TIMEOUT).await;
    let why = match &failed[0] {
        Err(AppendError::Stopped { detail, .. }) => detail.clone(),
        other => panic!("{other:?}"),
    };
    assert!(runs.iter().any(|(path, _)| why.contains(&*path.file_name().expect("a name").to_string_lossy())), "{why}");
    assert_eq!(failed[1].as_ref().map(|o| (o.counted, o.duplicates)), Ok((0, 10)), "the other goes on");
    let status = mesh.status();
    assert!(status[0].stopped.is_some() && status[1].stopped.is_none() && !mesh.is_ready(), "{status:?}");
    let answers = mesh.query(count_query(), TIMEOUT, Patience::All).await.answers;
    let answered: Vec<(u16, bool)> = answers.iter().map(|(shard, answer)| (shard.0, answer.is_ok())).collect();
    assert_eq!(answered, [(0, false), (1, true)], "{answers:?}");
    mesh.shutdown().await;

    for (path, bytes) in &runs {
        disk.put(path, bytes);
    }
    let mesh = boot::start(simulated(), Blocking::Threads, None).await.expect("with the file back all is there");
    let again = mesh.append(both(0..1_000), TIMEOUT).await;
    assert!(again.iter().all(|o| o.as_ref().is_ok_and(|o| (o.counted, o.duplicates) == (0, 1_000))), "{again:?}");
    assert_eq!(counts(&mesh).await, BTreeMap::from([(0, 1_000), (1, 1_000)]));
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_that_runs_out_of_time_says_so_for_every_shard() {
    let dir = tempfile::tempdir().expect("directory");
    let mesh = Mesh::start(real(dir.path())).await.expect("start");
    let lock = mesh.inner.lanes.clone().acquire_many_owned(mesh.inner.lanes.available_permits() as u32).await.expect("lanes");
    let gathered = mesh.query(count_query(), Duration::from_millis(20), Patience::All).await;
    assert_eq!(gathered.answers.len(), usize::from(SHARDS));
    let timed_out = |answer: &ShardAnswer| answer.as_ref().is_err_and(|p| p.code == ErrorCode::QueryTimeout);
    assert!(gathered.answers.iter().all(|(_, answer)| timed_out(answer)));
    drop(lock);
    assert_eq!(counts(&mesh).await.len(), usize::from(SHARDS));
    mesh.shutdown().await;
}
