//! Power cuts and kills at every operation of a workload, and of the recovery from it.

use super::oracle::{Model, Oracle};
use super::*;

const REQUESTS: usize = 40;

fn cuts(point: u64) -> impl Iterator<Item = PowerCut> {
    MODES.into_iter().flat_map(move |unsynced| (0..2).map(move |seed| PowerCut { unsynced, seed: point * 31 + seed }))
}

/// The disk and the oracle as the workload leaves them when the power goes at a changing operation; `None` if it has fewer.
fn cut_at(options: &WalOptions, seed: u64, point: u64) -> Option<(SimDisk, Oracle)> {
    let (disk, mut oracle) = (SimDisk::new(), Oracle::new());
    disk.fail_after(point);
    if let Ok(mut opened) = try_open_with(&disk, options.clone()) {
        oracle.run(&mut opened, seed, REQUESTS);
    }
    disk.is_cut().then_some((disk, oracle))
}

#[test]
fn nothing_acked_is_lost_wherever_the_power_goes() {
    for (options, seed) in [small(), ahead()].iter().flat_map(|options| (0..4).map(move |seed| (options, seed))) {
        let open = |disk: &SimDisk| try_open_with(disk, options.clone()).unwrap();
        let mut points = 0;
        while let Some((disk, oracle)) = cut_at(options, seed, points + 1) {
            points += 1;
            for cut in cuts(points) {
                let (disk, mut oracle) = (disk.fork(), oracle.fork());
                let context = format!("{} bytes ahead, seed {seed}, point {points}, {cut:?}", options.ahead_bytes);
                disk.crash(cut);
                let mut opened = open(&disk);
                oracle.check_and_restart(&opened.wal, &context);
                assert_eq!(opened.recovered.damage, [], "{context}");
                assert!(oracle.run(&mut opened, seed + 100, 8), "{context}: it goes on");
                disk.crash(cut);
                oracle.check_and_restart(&open(&disk).wal, &format!("{context}, again"));
            }
        }
        assert!(points > 50, "the workload has {points} points");
    }
}

#[test]
fn what_recovery_finds_stays_though_the_power_goes_during_or_after_it() {
    let seed = 7;
    for (options, point) in [small(), ahead()].iter().flat_map(|options| (1..400).step_by(3).map(move |point| (options, point))) {
        let Some((disk, oracle)) = cut_at(options, seed, point) else { continue };
        assert!(point < 300, "there may be more points");
        for cut in cuts(point) {
            let disk = disk.fork();
            disk.crash(cut);
            for recovery_point in 1.. {
                let (disk, mut oracle) = (disk.fork(), oracle.fork());
                disk.fail_after(recovery_point);
                let recovered = try_open_with(&disk, options.clone());
                let context = format!("{} bytes ahead, point {point}, {cut:?}, then {recovery_point} of the recovery", options.ahead_bytes);
                if let Ok(opened) = &recovered {
                    oracle.check_and_restart(&opened.wal, &context);
                }
                disk.crash(cut);
                let opened = try_open_with(&disk, options.clone()).unwrap();
                oracle.check_and_restart(&opened.wal, &context);
                assert_eq!(opened.recovered.damage, [], "{context}");
                if recovered.is_ok() {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_a_killed_process_left_unsynced_is_synced_before_it_counts() {
    for seed in 0..60 {
        let options = if seed < 30 { small() } else { ahead() };
        let open = |disk: &SimDisk| try_open_with(disk, options.clone()).unwrap();
        let (disk, mut oracle) = (SimDisk::new(), Oracle::new());
        let mut opened = open(&disk);
        oracle.run(&mut opened, seed, 20);
        // The power goes at the next append or sync, but only the process dies: its bytes are in the cache.
        disk.fail_after(1 + seed % 2);
        oracle.run(&mut opened, seed + 1, 5);
        disk.kill();
        oracle.check_and_restart(&open(&disk).wal, "after the kill");
        disk.crash(PowerCut { unsynced: Unsynced::Drop, seed });
        oracle.check_and_restart(&open(&disk).wal, "after the power cut");
    }
}

#[test]
fn a_failed_sync_poisons_and_nothing_is_retried_into_success() {
    failed_sync(&small());
    failed_sync(&ahead());
}

fn failed_sync(options: &WalOptions) {
    let open = |disk: &SimDisk| try_open_with(disk, options.clone()).unwrap();
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.append_now(1, entries(1, 3, 50)).unwrap();
    let (first, first_told) = told();
    let (second, second_told) = told();
    opened.wal.append(1, entries(4, 5, 50), first);
    opened.wal.vote(2, Bytes::from_static(b"vote"), second);
    disk.fail_next_sync();
    opened.step_all();
    for outcome in [first_told, second_told] {
        assert!(matches!(outcome.try_recv().unwrap(), Err(StorageError::Poisoned(reason)) if reason.contains("sync")));
    }
    assert!(matches!(opened.append_now(1, entries(6, 6, 1)), Err(StorageError::Poisoned(_))), "and so is every later request");
    assert!(opened.wal.stats().poisoned.is_some());

    let changes = disk.counts().changes();
    opened.writer.mark();
    opened.writer.close();
    assert_eq!(disk.counts().changes(), changes, "nothing says that what was lost had been synced");
    let lost = disk.fork();
    lost.crash(PowerCut { unsynced: Unsynced::Drop, seed: 1 });
    let reopened = open(&lost);
    assert_eq!(reopened.recovered.damage, []);
    assert_eq!(reopened.wal.state(1).unwrap().entries, Some((1, 3)));

    // Without a power cut the lost bytes can still be read, and later syncs succeed.
    disk.kill();
    let found = Model::of(&open(&disk).wal, 1).unwrap();
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 1 });
    let reopened = open(&disk);
    assert_eq!(reopened.recovered.damage, []);
    assert_eq!(Model::of(&reopened.wal, 1).unwrap(), found);
}

#[test]
fn a_full_disk_poisons_and_what_was_acked_is_there_after_making_room() {
    for room in 0..40 {
        let (disk, mut oracle) = (SimDisk::new(), Oracle::new());
        let mut opened = open(&disk);
        disk.set_capacity(Some(1_000 + room * 97));
        assert!(!oracle.run(&mut opened, room, 80), "it did not fit");
        disk.set_capacity(None);
        disk.kill();
        let mut opened = open(&disk);
        oracle.check_and_restart(&opened.wal, "after making room");
        assert!(oracle.run(&mut opened, room, 20));
    }
}

#[test]
fn a_torn_tail_is_reported_and_cut_off() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.append_now(1, entries(1, 2, 100)).unwrap();
    opened.append_now(1, entries(3, 4, 100)).unwrap();
    let path = segments(&disk).pop().unwrap();
    let whole = disk.files()[&path].clone();
    let batch = 2 * format::record_bytes(6, 100);
    let boundary = whole.len() - batch / 2;
    for cut in (whole.len() - batch + 1..whole.len()).filter(|&cut| cut != boundary) {
        let disk = SimDisk::new();
        disk.put(&path, &whole[..cut]);
        let opened = open(&disk);
        let torn = opened.recovered.torn.expect("a record is cut");
        assert_eq!(torn.path, path);
        assert_eq!(torn.offset + torn.bytes, cut as u64);
        let (_, last) = opened.wal.state(1).unwrap().entries.unwrap();
        assert_eq!(last, if cut < boundary { 2 } else { 3 });
        assert_eq!(disk.files()[&path].len() as u64, torn.offset);
        assert_eq!(open(&disk).recovered.torn, None, "once");
    }
}

#[test]
fn zeroes_written_ahead_are_neither_a_tail_nor_damage_and_go_when_the_segment_is_closed() {
    let disk = SimDisk::new();
    let mut opened = try_open_with(&disk, ahead()).unwrap();
    opened.append_now(1, entries(1, 2, 100)).unwrap();
    let length = |disk: &SimDisk| segments(disk).iter().map(|path| disk.files()[path].len()).collect::<Vec<_>>();
    assert_eq!(length(&disk), [2_048], "the whole segment");
    let syncs = disk.counts().syncs;
    for index in 3..7 {
        opened.append_now(1, entries(index, index, 100)).unwrap();
        assert_eq!(length(&disk), [2_048], "it does not grow");
    }
    assert_eq!(disk.counts().syncs, syncs + 4);
    for is_marked in [false, true] {
        if is_marked {
            opened.writer.mark();
        }
        let disk = disk.fork();
        disk.kill();
        let reopened = try_open_with(&disk, ahead()).unwrap();
        assert_eq!((&reopened.recovered.torn, &reopened.recovered.damage[..]), (&None, &[][..]), "marked: {is_marked}");
        assert_eq!(reopened.wal.read(1, 0..100).unwrap(), entries(1, 6, 100));
        // It is not the last segment any more, and was cut to its records.
        assert!(length(&disk)[0] < 2_048, "marked: {is_marked}");
        let again = try_open_with(&disk, ahead()).unwrap();
        assert_eq!((&again.recovered.torn, &again.recovered.damage[..]), (&None, &[][..]), "marked: {is_marked}, again");
        assert_eq!(again.wal.read(1, 0..100).unwrap(), entries(1, 6, 100));
    }
    // One more that does not fit: the segment is closed.
    opened.append_now(1, entries(7, 7, 1_500)).unwrap();
    let closed = length(&disk)[0];
    assert!(closed < 2_048 && disk.files()[&segments(&disk)[0]][closed - 200..].iter().any(|byte| *byte != 0), "{closed}");
    opened.writer.close();
    let last = disk.files()[&segments(&disk)[1]].clone();
    assert!(last[last.len() - 200..].iter().any(|byte| *byte != 0), "so is the last");
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 3 });
    let reopened = try_open_with(&disk, ahead()).unwrap();
    assert_eq!((&reopened.recovered.torn, &reopened.recovered.damage[..]), (&None, &[][..]));
    assert_eq!(reopened.wal.state(1).unwrap().entries, Some((1, 7)));
}

#[test]
fn a_disk_without_room_for_zeroes_takes_what_is_written() {
    let disk = SimDisk::new();
    let mut opened = try_open_with(&disk, ahead()).unwrap();
    disk.set_capacity(Some(4_000));
    opened.append_now(1, entries(1, 1, 100)).unwrap();
    let length = disk.files()[&segments(&disk)[0]].len();
    assert!(length < 1_000, "{length}");
    assert!(opened.wal.stats().poisoned.is_none());
}
