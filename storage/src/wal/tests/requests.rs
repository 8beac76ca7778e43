//! What callers see.

use super::*;

#[test]
fn entries_are_read_back_before_and_after_the_sync_and_after_a_restart() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    let all = entries(1, 40, 300);
    let (done, outcome) = told();
    opened.wal.append(3, all.clone(), done);
    assert_eq!(opened.wal.read(3, 0..100).unwrap(), all, "not yet written");
    assert!(outcome.try_recv().is_err(), "not yet told");
    opened.step_all();
    outcome.try_recv().unwrap().unwrap();
    assert_eq!(opened.wal.read(3, 0..100).unwrap(), all, "mostly from the disk");
    assert_eq!(opened.wal.read(3, 10..12).unwrap(), all[9..11]);
    assert_eq!(opened.wal.read(4, 0..100).unwrap(), []);
    let reopened = open(&disk);
    assert_eq!(reopened.wal.read(3, 0..100).unwrap(), all);
    assert_eq!(reopened.recovered.groups, [3]);
    assert!(reopened.wal.read(3, 0..100).unwrap().iter().all(|e| (e.body.as_ptr() as usize).is_multiple_of(16)));
}

#[test]
fn a_read_stops_at_its_byte_limit_but_gives_one_entry() {
    let mut opened = open(&SimDisk::new());
    opened.append_now(1, entries(1, 10, 100)).unwrap();
    let one = format::record_bytes(6, 100);
    assert_eq!(opened.wal.read_up_to(1, 1..11, 3 * one).unwrap().len(), 3);
    assert_eq!(opened.wal.read_up_to(1, 1..11, 1).unwrap().len(), 1);
}

#[test]
fn one_sync_covers_all_groups_and_the_callbacks_come_in_order() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let before = disk.counts();
    for nth in 0..10_u16 {
        let order = order.clone();
        let done: Done = Box::new(move |outcome| order.lock().push((nth, outcome.is_ok())));
        match nth % 2 {
            0 => opened.wal.append(nth, entries(1, 1, 10), done),
            _ => opened.wal.vote(nth, Bytes::from_static(b"v"), done),
        }
    }
    assert!(order.lock().is_empty());
    assert_eq!(opened.writer.step(), 10);
    assert_eq!(*order.lock(), (0..10).map(|nth| (nth, true)).collect::<Vec<_>>());
    let after = disk.counts();
    assert_eq!((after.appends - before.appends, after.syncs - before.syncs), (1, 1));
    let stats = opened.wal.stats();
    assert_eq!((stats.batches, stats.requests, stats.last_batch_requests, stats.syncs, stats.queued_bytes), (1, 10, 10, 1, 0));
    assert_eq!(stats.sync_time, Duration::from_millis(1));
    assert_eq!(stats.written_bytes, stats.last_batch_bytes);
}

#[test]
fn a_batch_is_bounded_in_bytes() {
    let mut opened = open(&SimDisk::new());
    for index in 1..=10 {
        opened.wal.append(1, entries(index, index, 500), told().0);
    }
    assert_eq!(opened.writer.step(), 3, "2 048 bytes hold three");
    opened.step_all();
}

#[test]
fn gaps_oversized_and_impossible_requests_are_refused_and_change_nothing() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.append_now(1, entries(5, 8, 10)).unwrap();
    opened.now(|wal, done| wal.purge(1, 6, Bytes::new(), done)).unwrap();
    let refused = |outcome: Result<(), StorageError>| assert!(matches!(outcome, Err(StorageError::Invalid(_))), "{outcome:?}");
    refused(opened.append_now(1, entries(10, 10, 1)));
    refused(opened.append_now(1, entries(8, 8, 1)));
    refused(opened.append_now(1, vec![entry(9, b""), entry(11, b"")]));
    refused(opened.append_now(1, entries(9, 9, RECORD_BYTES_MAX)));
    refused(opened.now(|wal, done| wal.truncate(1, 6, done)));
    refused(opened.now(|wal, done| wal.vote(1, vec![0; SMALL_BYTES_MAX + 1].into(), done)));
    refused(opened.now(|wal, done| wal.vote(u16::MAX, Bytes::new(), done)));
    assert_eq!(opened.wal.state(1).unwrap().entries, Some((7, 8)));
    opened.append_now(1, entries(9, 9, 1)).unwrap();
}

#[test]
fn requests_with_nothing_to_do_are_told_in_their_turn() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    let changes = disk.counts().changes();
    opened.append_now(1, Vec::new()).unwrap();
    opened.now(|wal, done| wal.truncate(1, 9, done)).unwrap();
    assert_eq!(disk.counts().changes(), changes, "no write, no sync");
    opened.now(|wal, done| wal.purge(1, 3, Bytes::from_static(b"new"), done)).unwrap();
    opened.now(|wal, done| wal.purge(1, 2, Bytes::from_static(b"old"), done)).unwrap();
    assert_eq!(opened.wal.state(1).unwrap().purged, Some((3, Bytes::from_static(b"new"))));
}

#[test]
fn a_purge_beyond_the_end_moves_the_log_there() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.append_now(1, entries(1, 3, 10)).unwrap();
    opened.now(|wal, done| wal.purge(1, 99, Bytes::from_static(b"99"), done)).unwrap();
    opened.append_now(1, entries(100, 101, 10)).unwrap();
    assert_eq!(open(&disk).wal.state(1).unwrap().entries, Some((100, 101)));
}

#[test]
fn a_full_queue_refuses_until_it_is_written() {
    let mut opened = open(&SimDisk::new());
    let limit = small().queue_bytes_max;
    opened.wal.append(1, entries(1, 1, limit - 200), told().0);
    let (done, outcome) = told();
    opened.wal.append(2, entries(1, 1, 200), done);
    assert!(matches!(outcome.try_recv().unwrap(), Err(StorageError::Overloaded { limit_bytes, .. }) if limit_bytes == limit));
    assert_eq!(opened.wal.state(2).unwrap().entries, None);
    opened.step_all();
    opened.append_now(2, entries(1, 1, 200)).unwrap();
    opened.append_now(2, entries(2, 2, 2 * limit)).expect("what is larger than the queue goes alone");
}

#[test]
fn the_cache_is_bounded_also_when_entries_are_purged_at_once() {
    let mut opened = open(&SimDisk::new());
    for index in 1..=200 {
        opened.append_now(1, entries(index, index, 90)).unwrap();
        opened.now(|wal, done| wal.purge(1, index, Bytes::new(), done)).unwrap();
        assert!(opened.wal.stats().cached_bytes as usize <= small().cache_bytes_max);
    }
}

#[test]
fn a_simulated_runner_is_told_of_work() {
    let mut opened = open(&SimDisk::new());
    let (sender, woken) = channel();
    opened.wal.on_work(Box::new(move || sender.send(()).unwrap()));
    opened.append_now(1, entries(1, 1, 1)).unwrap();
    assert_eq!(woken.try_iter().count(), 1);
}

#[test]
fn full_disk_puts_off_the_mark_and_does_not_end_an_idle_log() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.append_now(1, entries(1, 3, 100)).unwrap();
    disk.set_capacity(Some(0));
    opened.writer.mark();
    assert_eq!(opened.wal.stats().poisoned, None);
    disk.set_capacity(None);
    opened.append_now(1, entries(4, 5, 100)).unwrap();
    let appends = disk.counts().appends;
    opened.writer.mark();
    assert_eq!(disk.counts().appends, appends + 1, "made up for once there is room");
}
