//! Segments go when nothing in them is needed.

use super::*;

#[test]
fn purged_segments_vanish_and_idle_groups_pin_nothing() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    for group in 1..=3 {
        opened.now(|wal, done| wal.vote(group, Bytes::from_static(b"my vote"), done)).unwrap();
        opened.now(|wal, done| wal.meta(group, Bytes::from_static(b"my meta"), done)).unwrap();
    }
    opened.append_now(2, entries(1, 2, 10)).unwrap();
    opened.now(|wal, done| wal.purge(2, 2, Bytes::from_static(b"purged"), done)).unwrap();
    for index in 1..=100 {
        opened.append_now(9, entries(index, index, 500)).unwrap();
        if index > 3 {
            opened.now(|wal, done| wal.purge(9, index - 3, Bytes::new(), done)).unwrap();
        }
        assert!(segments(&disk).len() <= 4, "{:?}", segments(&disk));
    }
    let stats = opened.wal.stats();
    assert!(stats.segments_removed > 20);
    assert_eq!(stats.segments as usize, segments(&disk).len());
    assert_eq!(stats.disk_bytes, disk.files().values().map(|f| f.len() as u64).sum::<u64>());
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 5 });
    let reopened = open(&disk);
    assert_eq!(reopened.recovered.damage, []);
    for group in 1..=3 {
        let state = reopened.wal.state(group).unwrap();
        assert_eq!((state.vote.as_deref(), state.meta.as_deref()), (Some(&b"my vote"[..]), Some(&b"my meta"[..])));
    }
    assert_eq!(reopened.wal.state(2).unwrap().purged, Some((2, Bytes::from_static(b"purged"))));
    assert_eq!(reopened.wal.state(9).unwrap().entries, Some((98, 100)));
}

#[test]
fn the_group_that_pins_the_oldest_segment_is_named_and_lets_go_when_it_purges() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.append_now(1, entries(1, 2, 100)).unwrap();
    assert_eq!(opened.wal.pinned_by(), [], "one segment is no burden");
    opened.append_now(2, entries(1, 30, 400)).unwrap();
    opened.now(|wal, done| wal.purge(2, 29, Bytes::new(), done)).unwrap();
    let live_bytes = 2 * format::record_bytes(6, 100) as u64;
    assert_eq!(opened.wal.pinned_by(), [Pin { group: 1, oldest_index: 1, live_bytes }]);
    let before = segments(&disk).len();
    assert!(before > 5);
    opened.now(|wal, done| wal.purge(1, 1, Bytes::new(), done)).unwrap();
    assert_eq!(segments(&disk).len(), before, "one entry is left");
    opened.now(|wal, done| wal.truncate(1, 2, done)).unwrap();
    assert!(segments(&disk).len() <= 2);
    assert_eq!(open(&disk).wal.state(2).unwrap().entries, Some((30, 30)));
}

#[test]
fn restarts_do_not_pile_up_segments() {
    let disk = SimDisk::new();
    open(&disk).append_now(1, entries(1, 3, 100)).unwrap();
    for _ in 0..20 {
        let mut opened = open(&disk);
        assert_eq!(opened.wal.state(1).unwrap().entries, Some((1, 3)));
        opened.writer.mark();
    }
    assert!(segments(&disk).len() <= 3, "{:?}", segments(&disk));
}

#[test]
fn forgotten_log_begins_anew_at_any_index_and_keeps_its_vote() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.now(|wal, done| wal.vote(1, Bytes::from_static(b"my vote"), done)).unwrap();
    opened.now(|wal, done| wal.meta(1, Bytes::from_static(b"my meta"), done)).unwrap();
    opened.append_now(1, entries(1, 40, 400)).unwrap();
    opened.now(|wal, done| wal.purge(1, 9, Bytes::from_static(b"purged"), done)).unwrap();
    assert!(segments(&disk).len() > 5);
    opened.now(|wal, done| wal.forget(1, done)).unwrap();
    assert!(segments(&disk).len() <= 2, "its entries pin nothing: {:?}", segments(&disk));
    let nothing = |wal: &Wal| {
        let state = wal.state(1).unwrap();
        assert_eq!((state.entries, &state.purged), (None, &None));
        assert_eq!((state.vote.as_deref(), state.meta.as_deref()), (Some(&b"my vote"[..]), Some(&b"my meta"[..])));
        assert_eq!(wal.read(1, 0..u64::MAX).unwrap(), []);
    };
    nothing(&opened.wal);
    assert!(opened.now(|wal, done| wal.purge(1, u64::MAX, Bytes::new(), done)).is_err(), "that is how it is written");
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 3 });
    let mut opened = open(&disk);
    assert_eq!(opened.recovered.damage, []);
    nothing(&opened.wal);
    opened.append_now(1, entries(0, 2, 10)).unwrap();
    opened.now(|wal, done| wal.forget(1, done)).unwrap();
    opened.append_now(1, entries(7, 8, 10)).unwrap();
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 4 });
    let reopened = open(&disk);
    assert_eq!(reopened.recovered.damage, []);
    assert_eq!(reopened.wal.state(1).unwrap().entries, Some((7, 8)));
}
