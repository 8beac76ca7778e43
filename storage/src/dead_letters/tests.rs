use std::sync::mpsc::channel;

use bytes::Bytes;
use tallymesh_protocol::event::{RejectCode, Rejection};

use super::*;

const ROOMY: DeadLetterLimits = DeadLetterLimits { bytes_max: 1 << 20, count_max: 1_000 };

fn letter(index: u32, raw: &[u8]) -> NewLetter {
    NewLetter {
        arrived_ms: 1_000 + i64::from(index),
        request_id: "r".to_owned(),
        index,
        rejection: Rejection::new(RejectCode::MissingField, Some("event"), "`event` is missing"),
        raw: Bytes::copy_from_slice(raw),
        truncated: false,
        event_id: format!("letter-{index}"),
        schema_version: (index % 2 == 1).then(|| "1.0.0".to_owned()),
    }
}

fn add(store: &DeadLetters, letters: Vec<NewLetter>) -> Result<(), StorageError> {
    let (tx, rx) = channel();
    store.add(letters, Box::new(move |r| tx.send(r).expect("listening")));
    rx.recv().expect("answered")
}

fn remove(store: &DeadLetters, ids: Vec<u64>) -> u64 {
    let (tx, rx) = channel();
    store.remove(ids, Box::new(move |r| tx.send(r).expect("listening")));
    rx.recv().expect("answered").expect("removed")
}

fn indexes(letters: &[DeadLetter]) -> Vec<u32> {
    letters.iter().map(|l| l.letter.index).collect()
}

#[test]
fn letters_come_back_as_they_were_newest_first_and_in_pages() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = DeadLetters::open(dir.path(), ROOMY).expect("new");
    add(&store, (0..5).map(|i| letter(i, b"{\"a\":\xff}")).collect()).expect("kept");
    let page = store.list(None, 3).expect("read");
    assert_eq!(indexes(&page), [4, 3, 2]);
    assert_eq!(page[0].letter, letter(4, b"{\"a\":\xff}"));
    assert_eq!(indexes(&store.list(Some(page[2].id), 10).expect("read")), [1, 0]);
    assert_eq!(indexes(&store.get(&[page[1].id, 99]).expect("read")), [3]);
}

#[test]
fn letters_and_totals_survive_a_restart_and_ids_are_never_used_twice() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = DeadLetters::open(dir.path(), ROOMY).expect("new");
    add(&store, vec![letter(0, b"x"), letter(1, b"y")]).expect("kept");
    let newest = store.list(None, 1).expect("read")[0].id;
    assert_eq!(remove(&store, vec![newest, 77]), 1);
    let stats = store.stats();
    store.close();

    let store = DeadLetters::open(dir.path(), ROOMY).expect("reopened");
    assert_eq!(store.stats(), stats);
    assert_eq!(stats.count, 1);
    add(&store, vec![letter(2, b"z")]).expect("kept");
    assert!(store.list(None, 1).expect("read")[0].id > newest);
}

#[test]
fn the_oldest_make_room_by_count_and_by_bytes_and_are_counted() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let by_count = DeadLetters::open(&dir.path().join("count"), DeadLetterLimits { count_max: 3, ..ROOMY }).expect("new");
    for i in 0..5 {
        add(&by_count, vec![letter(i, b"x")]).expect("kept");
    }
    assert_eq!(indexes(&by_count.list(None, 10).expect("read")), [4, 3, 2]);
    assert_eq!((by_count.stats().count, by_count.stats().dropped), (3, 2));

    let by_bytes = DeadLetters::open(&dir.path().join("bytes"), DeadLetterLimits { bytes_max: 10_000, ..ROOMY }).expect("new");
    add(&by_bytes, (0..20).map(|i| letter(i, &[b'x'; 2_000])).collect()).expect("kept");
    let stats = by_bytes.stats();
    assert!(stats.bytes <= 10_000 && stats.count + stats.dropped == 20 && stats.count >= 3, "{stats:?}");
    assert_eq!(by_bytes.list(None, 1).expect("read")[0].letter.index, 19);
}

#[test]
fn a_letter_larger_than_the_store_does_not_wedge_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = DeadLetters::open(dir.path(), DeadLetterLimits { bytes_max: 1_000, ..ROOMY }).expect("new");
    add(&store, vec![letter(0, &[b'x'; 5_000])]).expect("taken and dropped");
    assert_eq!((store.stats().count, store.stats().bytes, store.stats().dropped), (0, 0, 1));
    add(&store, vec![letter(1, b"x")]).expect("kept");
    assert_eq!(store.stats().count, 1);
}

#[test]
fn many_writers_share_transactions_and_all_are_answered() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = DeadLetters::open(dir.path(), ROOMY).expect("new");
    let (tx, rx) = channel();
    for i in 0..200 {
        let tx = tx.clone();
        store.add(vec![letter(i, b"x")], Box::new(move |r| tx.send(r.is_ok()).expect("listening")));
    }
    drop(tx);
    assert_eq!(rx.iter().filter(|ok| *ok).count(), 200);
    assert_eq!(store.stats().count, 200);
}

#[test]
fn a_closed_store_answers_instead_of_hanging() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = DeadLetters::open(dir.path(), ROOMY).expect("new");
    store.close();
    store.close();
    assert!(add(&store, vec![letter(0, b"x")]).expect_err("closed").to_string().contains("closed"));
    assert!(store.list(None, 1).is_err());
}

#[test]
fn a_file_that_is_no_store_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("dead-letters.redb"), b"something else entirely").expect("written");
    let error = DeadLetters::open(dir.path(), ROOMY).err().expect("refused").to_string();
    assert!(error.contains("dead-letters.redb"), "{error}");
}

#[test]
fn damaged_records_are_skipped_not_fatal() {
    for bytes in [&b""[..], b"\x01", b"\x02\0\0\0\0", b"\x01\xff\xff\xff\xff{}", b"\x01\x02\0\0\0{}"] {
        assert_eq!(NewLetter::decode(bytes), None);
    }
}
