//! The committed bytes of format version 1: what this build writes, and that it reads what was written then.

use super::*;

const SEGMENT_1: &[u8] = include_bytes!("../../../testdata/wal-v1/000000000001.wal");
const SEGMENT_2: &[u8] = include_bytes!("../../../testdata/wal-v1/000000000002.wal");

/// Every kind of record, padding and none, a roll, a mark.
fn written() -> SimDisk {
    let disk = SimDisk::new();
    let mut opened = open(&disk);
    opened.now(|wal, done| wal.vote(1, Bytes::from_static(b"vote of 1"), done)).unwrap();
    opened.append_now(1, vec![entry(1, b""), entry(2, b"sixteen bytes ok"), entry(3, b"seventeen bytes..")]).unwrap();
    opened.append_now(700, entries(10, 12, 300)).unwrap();
    opened.now(|wal, done| wal.truncate(700, 12, done)).unwrap();
    opened.now(|wal, done| wal.purge(1, 1, Bytes::from_static(b"purged 1"), done)).unwrap();
    opened.now(|wal, done| wal.meta(2, Bytes::from_static(b"meta of 2"), done)).unwrap();
    opened.append_now(1, entries(4, 4, 700)).unwrap();
    opened.writer.mark();
    disk
}

fn check(opened: &Opened) {
    assert_eq!((&opened.recovered.torn, &opened.recovered.damage[..]), (&None, &[][..]));
    let one = opened.wal.state(1).unwrap();
    assert_eq!(one.vote.as_deref(), Some(&b"vote of 1"[..]));
    assert_eq!(one.purged, Some((1, Bytes::from_static(b"purged 1"))));
    let mut expected = vec![entry(2, b"sixteen bytes ok"), entry(3, b"seventeen bytes..")];
    expected.extend(entries(4, 4, 700));
    assert_eq!(opened.wal.read(1, 0..100).unwrap(), expected);
    assert_eq!(opened.wal.read(700, 0..100).unwrap(), entries(10, 11, 300));
    assert_eq!(opened.wal.state(2).unwrap().meta.as_deref(), Some(&b"meta of 2"[..]));
}

#[test]
fn golden_segments_are_what_is_written() {
    let files: Vec<Vec<u8>> = written().files().into_values().collect();
    assert!(files == [SEGMENT_1, SEGMENT_2], "the log's format changed: raise its version and keep reading the old one");
}

#[test]
fn golden_segments_are_read() {
    let disk = SimDisk::new();
    disk.put(&Path::new(DIR).join("000000000001.wal"), SEGMENT_1);
    disk.put(&Path::new(DIR).join("000000000002.wal"), SEGMENT_2);
    check(&open(&disk));
}
