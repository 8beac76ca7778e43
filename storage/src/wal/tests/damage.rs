//! Damage at rest: named, and confined to the groups it touched.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::oracle::{Model, Oracle};
use super::*;

/// Offset and group of the records of a segment, checkpoints left out.
fn records(disk: &SimDisk, path: &Path) -> Vec<(u64, u16)> {
    let bytes = disk.files()[path].clone();
    let number: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let (mut at, mut found) = (format::SEGMENT_HEADER_BYTES, Vec::new());
    while at < bytes.len() {
        let record = format::parse(&bytes[at..], format::Place { segment: number, offset: at as u32 }).unwrap();
        if record.head.kind != format::Kind::Checkpoint {
            found.push((at as u64, record.head.group));
        }
        at += record.len;
    }
    found
}

/// Groups 1 and 2 take turns over several segments; group 3 has only a vote, in the first.
fn two_groups() -> (SimDisk, Opened) {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.now(|wal, done| wal.vote(3, Bytes::from_static(b"vote"), done)).unwrap();
    for index in 1..=12 {
        opened.append_now(1, entries(index, index, 300)).unwrap();
        opened.append_now(2, entries(index, index, 300)).unwrap();
    }
    (disk, opened)
}

fn is_damaged<T: std::fmt::Debug>(outcome: Result<T, StorageError>, file: &Path, at: u64) {
    assert!(matches!(&outcome, Err(StorageError::Damaged { path, offset, .. }) if path == file && *offset == at), "{outcome:?}");
}

#[test]
fn damage_in_the_middle_stops_its_group_with_file_and_offset_and_no_other() {
    // In the body, in the meta, in the length, in the checksum of the header.
    for within in [100, 50, 0, 4] {
        let (disk, _) = two_groups();
        let path = segments(&disk)[1].clone();
        let (offset, group) = records(&disk, &path)[0];
        let other = 3 - group;
        disk.flip_bit(&path, offset + within, 2).unwrap();
        for round in 0..3 {
            let mut opened = open(&disk);
            let damage = &opened.recovered.damage;
            assert_eq!(damage.len(), 1, "byte {within}: {damage:?}");
            assert!(damage[0].groups == [group] && !damage[0].stops_unknown_groups, "{damage:?}");
            is_damaged(opened.wal.state(group), &path, offset);
            is_damaged(opened.wal.read(group, 0..100), &path, offset);
            is_damaged(opened.append_now(group, entries(13, 13, 1)), &path, offset);
            is_damaged(opened.now(|wal, done| wal.vote(group, Bytes::new(), done)), &path, offset);

            let (first, last) = opened.wal.state(other).unwrap().entries.unwrap();
            assert_eq!((first, last), (1 + 5 * round, 12 + 5 * round));
            assert_eq!(opened.wal.read(other, 0..100).unwrap(), entries(first, last, 300));
            assert_eq!(opened.wal.state(3).unwrap().vote.as_deref(), Some(&b"vote"[..]));
            opened.append_now(other, entries(last + 1, last + 5, 300)).unwrap();
            opened.now(|wal, done| wal.purge(other, first + 4, Bytes::new(), done)).unwrap();
            disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: round });
            assert!(disk.exists(&path), "the damaged segment stays for its repair");
        }
    }
}

#[test]
fn a_stopped_group_stays_stopped_though_its_damage_is_mended() {
    let (disk, _) = two_groups();
    let path = segments(&disk)[1].clone();
    let (offset, group) = records(&disk, &path)[0];
    disk.flip_bit(&path, offset + 60, 2).unwrap();
    drop(open(&disk));
    disk.flip_bit(&path, offset + 60, 2).unwrap();
    let opened = open(&disk);
    assert!(matches!(opened.wal.state(group), Err(StorageError::Damaged { .. })), "it may have missed requests meanwhile");
    opened.wal.state(3 - group).unwrap();
}

#[test]
fn a_missing_segment_stops_the_groups_that_had_records_in_it() {
    let (disk, _) = two_groups();
    let path = segments(&disk)[2].clone();
    disk.remove(&path).unwrap();
    let opened = open(&disk);
    is_damaged(opened.wal.state(1), &path, 0);
    is_damaged(opened.wal.state(2), &path, 0);
    assert_eq!(opened.wal.state(3).unwrap().vote.as_deref(), Some(&b"vote"[..]));
    opened.wal.state(4).expect("a group that never was may begin");
}

#[test]
fn a_missing_first_segment_stops_the_groups_with_entries_in_it() {
    let (disk, _) = two_groups();
    let path = segments(&disk)[0].clone();
    disk.remove(&path).unwrap();
    let opened = open(&disk);
    is_damaged(opened.wal.state(1), &path, 0);
    is_damaged(opened.wal.state(2), &path, 0);
    assert_eq!(opened.wal.state(3).unwrap().vote.as_deref(), Some(&b"vote"[..]));
}

/// A log whose only segment begins with a checkpoint of one group with these live entries, and goes on with `records`.
fn after_checkpoint(live: (u64, u64), records: &[(format::Kind, u64)]) -> SimDisk {
    let mut group = writer::on_disk::GroupOnDisk::default();
    group.append(live.0, 1);
    group.append(live.1, 1);
    let checkpoint = segment::checkpoint::encode(BTreeMap::from([(1, group)]).iter());
    let mut bytes = format::segment_header(2).to_vec();
    let mut push = |kind, group, index, sequence, body: &[u8]| {
        let head = format::RecordHead { kind, group, index, synced: 0, sequence };
        let place = format::Place { segment: 2, offset: bytes.len() as u32 };
        format::encode(&mut bytes, place, &head, b"", body);
    };
    push(format::Kind::Checkpoint, format::NO_GROUP, 0, 0, &checkpoint);
    for (sequence, &(kind, index)) in (1..).zip(records) {
        push(kind, 1, index, sequence, b"body");
    }
    let disk = SimDisk::new();
    disk.put(&Path::new(DIR).join("000000000002.wal"), &bytes);
    disk
}

#[test]
fn any_number_of_entries_that_no_segment_has_stops_their_group() {
    for live in [(3, 5), (1, 1 << 24), (7, u64::MAX - 1)] {
        let opened = open(&after_checkpoint(live, &[]));
        is_damaged(opened.wal.state(1), &Path::new(DIR).join("000000000001.wal"), 0);
        let detail = format!("entries {} to {} of group 1 are in no segment", live.0, live.1);
        assert_eq!(opened.recovered.damage[0].detail, detail);
    }
}

#[test]
fn missing_entries_that_later_records_purge_or_truncate_stop_nobody() {
    use format::Kind::{Append, Purge, Truncate};
    for (records, expected) in [
        (&[(Purge, 9), (Append, 10)][..], Some(Some((10, 10)))),
        (&[(Append, 10), (Purge, 9)], Some(Some((10, 10)))),
        (&[(Truncate, 5), (Append, 5)], Some(Some((5, 5)))),
        (&[(Truncate, 7), (Append, 7), (Purge, 6)], Some(Some((7, 7)))),
        (&[(Append, 10), (Truncate, 3)], Some(None)),
        (&[(Append, 10), (Purge, 8)], None),
        (&[(Truncate, 7), (Append, 10)], None),
    ] {
        let opened = open(&after_checkpoint((5, 9), records));
        assert_eq!(opened.wal.state(1).ok().map(|state| state.entries), expected, "{records:?}");
    }
}

#[test]
fn damage_that_a_later_checkpoint_makes_irrelevant_stops_nobody() {
    let (disk, mut opened) = two_groups();
    let path = segments(&disk)[1].clone();
    let (offset, group) = records(&disk, &path)[0];
    opened.now(|wal, done| wal.vote(group, Bytes::from_static(b"after"), done)).unwrap();
    opened.now(|wal, done| wal.purge(group, 12, Bytes::from_static(b"12"), done)).unwrap();
    opened.writer.mark();
    disk.flip_bit(&path, offset + 60, 1).unwrap();
    let opened = open(&disk);
    assert_eq!(opened.recovered.damage[0].groups, [0_u16; 0]);
    let state = opened.wal.state(group).unwrap();
    assert_eq!((state.entries, state.purged), (None, Some((12, Bytes::from_static(b"12")))));
    assert_eq!(state.vote.as_deref(), Some(&b"after"[..]));
    assert_eq!(opened.wal.read(3 - group, 0..100).unwrap(), entries(1, 12, 300));
}

/// A log of groups 1 and 2 whose second segment has lost its checkpoint; also how many entries the first segment has of each.
fn with_a_bare_segment() -> (SimDisk, [PathBuf; 2], [(u16, u64); 2]) {
    let (disk, opened) = two_groups();
    drop(opened);
    let [first, bare] = [0, 1].map(|nth| segments(&disk)[nth].clone());
    let in_first = [1, 2].map(|group| (group, records(&disk, &first).iter().filter(|record| record.1 == group).count() as u64));
    disk.flip_bit(&bare, format::SEGMENT_HEADER_BYTES as u64 + 1, 1).unwrap();
    (disk, [first, bare], in_first)
}

#[test]
fn a_segment_without_its_checkpoint_keeps_the_one_before_it() {
    let (disk, [first, bare], in_first) = with_a_bare_segment();
    let mut opened = open(&disk);
    assert!(opened.recovered.damage.iter().all(|damage| damage.groups.is_empty()), "{:?}", opened.recovered.damage);
    for (group, in_first) in in_first {
        opened.now(|wal, done| wal.purge(group, in_first, Bytes::new(), done)).unwrap();
    }
    assert!(disk.exists(&first), "nothing in it is live, but the next does not say where the groups stood");
    for _ in 0..2 {
        opened = open(&disk);
        for (group, in_first) in in_first {
            assert_eq!(opened.wal.state(group).unwrap().entries, Some((in_first + 1, 12)));
        }
    }
    for group in [1, 2] {
        opened.now(|wal, done| wal.purge(group, 12, Bytes::new(), done)).unwrap();
    }
    assert!(!disk.exists(&first) && !disk.exists(&bare));
}

#[test]
fn segments_that_go_together_may_go_one_at_a_time() {
    let (disk, [first, bare], in_first) = with_a_bare_segment();
    let bytes = disk.files()[&bare].clone();
    let mut opened = open(&disk);
    for (group, in_first) in in_first {
        opened.now(|wal, done| wal.purge(group, in_first + 4, Bytes::new(), done)).unwrap();
    }
    assert!(!disk.exists(&first) && !disk.exists(&bare));
    // As a power cut between the two leaves it.
    disk.put(&bare, &bytes);
    for _ in 0..2 {
        let opened = open(&disk);
        for (group, in_first) in in_first {
            assert_eq!(opened.wal.state(group).unwrap().entries, Some((in_first + 5, 12)), "{:?}", opened.recovered.damage);
        }
    }
}

/// One segment: group 1, group 2, group 1 again, each in a batch of its own.
fn last_segment() -> (SimDisk, Opened, PathBuf) {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.append_now(1, entries(1, 1, 10)).unwrap();
    opened.append_now(2, entries(1, 1, 10)).unwrap();
    opened.append_now(1, entries(2, 2, 10)).unwrap();
    let path = segments(&disk).pop().unwrap();
    (disk, opened, path)
}

#[test]
fn after_damage_of_unknown_extent_only_groups_proven_whole_go_on() {
    let (disk, _, path) = last_segment();
    let (offset, group) = records(&disk, &path)[1];
    assert_eq!(group, 2);
    disk.flip_bit(&path, offset + 5, 0).unwrap();
    for _ in 0..2 {
        let opened = open(&disk);
        assert_eq!(opened.wal.state(1).unwrap().entries, Some((1, 2)), "its numbers continue over the damage");
        is_damaged(opened.wal.state(2), &path, offset);
        is_damaged(opened.wal.state(7), &path, offset);
        assert!(opened.recovered.damage[0].stops_unknown_groups);
    }
}

#[test]
fn a_flipped_bit_in_the_last_batch_is_damage_once_it_is_marked_and_a_torn_write_before() {
    let (disk, mut opened, path) = last_segment();
    let (offset, _) = records(&disk, &path)[2];
    let unmarked = disk.fork();
    unmarked.flip_bit(&path, offset + 60, 0).unwrap();
    let reopened = open(&unmarked);
    assert_eq!(reopened.recovered.torn.unwrap().offset, offset);
    assert_eq!(reopened.wal.state(1).unwrap().entries, Some((1, 1)));

    opened.writer.mark();
    let changes = disk.counts().changes();
    opened.writer.mark();
    assert_eq!(disk.counts().changes(), changes, "an idle log is marked once");
    disk.flip_bit(&path, offset + 60, 0).unwrap();
    let reopened = open(&disk);
    assert_eq!(reopened.recovered.torn, None);
    is_damaged(reopened.wal.state(1), &path, offset);
    assert_eq!(reopened.wal.state(2).unwrap().entries, Some((1, 1)));
}

#[test]
fn an_entry_damaged_after_the_start_is_found_when_it_is_read() {
    let (disk, opened) = two_groups();
    let path = segments(&disk)[1].clone();
    let (offset, group) = records(&disk, &path)[0];
    disk.flip_bit(&path, offset + 60, 7).unwrap();
    is_damaged(opened.wal.read(group, 0..100), &path, offset);
    assert_eq!(opened.wal.read(3 - group, 0..100).unwrap().len(), 12);
}

#[test]
fn an_unknown_version_is_refused_and_nothing_is_touched() {
    let (disk, _) = two_groups();
    let path = segments(&disk)[0].clone();
    let mut bytes = disk.files()[&path].clone();
    bytes[4] = 2;
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    disk.put(&path, &bytes);
    let before = disk.files();
    assert!(matches!(try_open(&disk), Err(StorageError::Version { found: 2, known: 1, .. })));
    assert_eq!(disk.files(), before);
}

#[test]
fn bytes_that_look_like_a_record_are_not_taken_for_one() {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    let mut forged = Vec::new();
    let head = format::RecordHead { kind: format::Kind::Vote, group: 2, index: 0, synced: 0, sequence: 1 };
    format::encode(&mut forged, format::Place { segment: 1, offset: 4_711 }, &head, b"forged", b"");
    opened.append_now(1, vec![entry(1, &forged)]).unwrap();
    opened.append_now(1, vec![entry(2, b"")]).unwrap();
    opened.writer.mark();
    let path = segments(&disk).pop().unwrap();
    let (offset, _) = records(&disk, &path)[0];
    disk.flip_bit(&path, offset, 0).unwrap();
    let opened = open(&disk);
    is_damaged(opened.wal.state(1), &path, offset);
    assert_eq!(opened.wal.state(2).unwrap().vote, None);
}

/// A workload's files, cleanly closed or not, and each group's states.
fn image(seed: u64, is_marked: bool) -> (SimDisk, Oracle) {
    let (disk, mut oracle) = (SimDisk::new(), Oracle::new());
    let mut opened = open(&disk);
    assert!(oracle.run(&mut opened, seed, 60));
    if is_marked {
        opened.writer.mark();
    }
    (disk, oracle)
}

#[test]
fn any_flipped_bit_of_a_marked_log_stops_a_group_or_harms_it_not() {
    for seed in 0..2 {
        let (disk, oracle) = image(seed, true);
        let (mut stopped, mut flips) = (0, 0);
        for (path, bytes) in disk.files() {
            // Every place of a 16-byte line, and every bit, comes up.
            for offset in (seed..bytes.len() as u64).step_by(7) {
                let disk = disk.fork();
                disk.flip_bit(&path, offset, (offset % 8) as u8).unwrap();
                flips += 1;
                match try_open(&disk) {
                    Ok(opened) => stopped += usize::from(check_whole_or_stopped(&opened, &oracle, &path, offset)),
                    Err(error) => panic!("{} at {offset}: {error}", path.display()),
                }
            }
        }
        assert!(stopped > flips / 4, "{stopped} of {flips} stopped a group");
    }
}

fn check_whole_or_stopped(opened: &Opened, oracle: &Oracle, path: &Path, offset: u64) -> bool {
    let mut is_stopped = false;
    for (&group, history) in &oracle.groups {
        match Model::of(&opened.wal, group) {
            Ok(found) => assert_eq!(Some(&found), history.states.last(), "group {group}, {} at {offset}", path.display()),
            Err(StorageError::Damaged { .. }) => is_stopped = true,
            Err(other) => panic!("group {group}: {other}"),
        }
    }
    is_stopped
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(u8),
    Zero(usize),
    Cut,
    Insert(Vec<u8>),
    Remove(usize),
    CopyFrom(prop::sample::Index, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        any::<u8>().prop_map(Harm::Flip),
        (1_usize..1_000).prop_map(Harm::Zero),
        Just(Harm::Cut),
        prop::collection::vec(any::<u8>(), 1..100).prop_map(Harm::Insert),
        (1_usize..200).prop_map(Harm::Remove),
        (any::<prop::sample::Index>(), 1_usize..500).prop_map(|(from, len)| Harm::CopyFrom(from, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, at: usize, harm: &Harm) {
    match harm {
        Harm::Flip(mask) => bytes[at] ^= mask,
        Harm::Zero(len) => bytes.iter_mut().skip(at).take(*len).for_each(|b| *b = 0),
        Harm::Cut => bytes.truncate(at),
        Harm::Insert(more) => drop(bytes.splice(at..at, more.iter().copied())),
        Harm::Remove(len) => drop(bytes.drain(at..(at + len).min(bytes.len()))),
        Harm::CopyFrom(from, len) => {
            let from = from.index(bytes.len());
            let copy = bytes[from..(from + len).min(bytes.len())].to_vec();
            let end = (at + copy.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&copy[..end - at]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to the files: no panic, and a group either is stopped or holds a state it once had.
    #[test]
    fn mutated_segments_never_panic_and_never_invent(
        seed in 0_u64..20,
        is_marked: bool,
        harms in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), harm()), 1..4),
    ) {
        let (disk, oracle) = image(seed, is_marked);
        let mut files: BTreeMap<PathBuf, Vec<u8>> = disk.files();
        for (file, at, harm) in &harms {
            let paths: Vec<PathBuf> = files.keys().cloned().collect();
            let bytes = files.get_mut(&paths[file.index(paths.len())]).unwrap();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                apply(bytes, at, harm);
            }
        }
        let disk = SimDisk::new();
        files.iter().for_each(|(path, bytes)| disk.put(path, bytes));
        let first = open(&disk);
        let found: Vec<_> = oracle.groups.keys().map(|&group| Model::of(&first.wal, group).map_err(|_| ())).collect();
        for (history, found) in oracle.groups.values().zip(&found) {
            if let Ok(found) = found {
                prop_assert!(history.states.contains(found), "{found:?}");
            }
        }
        let again = open(&disk);
        let still: Vec<_> = oracle.groups.keys().map(|&group| Model::of(&again.wal, group).map_err(|_| ())).collect();
        prop_assert_eq!(found, still, "what was found once is found again");
    }
}
