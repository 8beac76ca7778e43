use std::path::Path;

use bytes::Bytes;
use openraft::Vote;
use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::{PowerCut, SimDisk, Unsynced};
use tallymesh_storage::files::ImmutableFiles;
use tallymesh_storage::wal::{LogEntry, WalOptions, WalWriter};

use super::*;

const SHARD: ShardId = ShardId(3);
const DIR: &str = "/shards/3";

fn open(disk: &SimDisk) -> (Wal, WalWriter) {
    let opened = Wal::open(Arc::new(disk.clone()), Arc::new(SystemClock::new()), Path::new("/log"), WalOptions::default()).expect("log");
    assert_eq!(opened.recovered.damage, []);
    (opened.wal, opened.writer)
}

fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { index, meta: codec::encode_log_id(&codec::log_id(term, index)), body: Bytes::from(vec![7; 100]) }
}

fn vote() -> Vote<u64> {
    Vote::new_committed(6, 2)
}

/// A replica with a snapshot, some log behind it, and a vote.
fn replica() -> SimDisk {
    let disk = SimDisk::new();
    let (wal, mut writer) = open(&disk);
    wal.append(SHARD.0, (0..=9).map(|index| entry(5, index)).collect(), Box::new(drop));
    wal.purge(SHARD.0, 4, codec::encode_log_id(&codec::log_id(5, 4)), Box::new(drop));
    wal.vote(SHARD.0, codec::encode_vote(&vote()).expect("encodes"), Box::new(drop));
    while writer.step() > 0 {}
    let files = ShardFiles::open(Arc::new(disk.clone()), DIR).expect("directory");
    let mut snapshot = files.writer();
    let file = snapshot.write("blocks", &[1; 1_000]).expect("written");
    snapshot.commit(4, b"manifest", [file.name].into()).expect("committed");
    disk
}

/// Runs the removal, with the log's writer beside it.
fn run_removal(disk: &SimDisk, wal: &Wal, writer: &mut WalWriter) -> Result<u64, StorageError> {
    let removal = remove(wal, SHARD, Arc::new(disk.clone()), DIR.into(), Blocking::Inline);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(async {
        tokio::pin!(removal);
        loop {
            match futures::poll!(&mut removal) {
                std::task::Poll::Ready(removed) => return removed,
                std::task::Poll::Pending => drop(writer.step()),
            }
        }
    })
}

fn check_removed(disk: &SimDisk) {
    let (wal, _writer) = open(disk);
    let remains = Remains::of(&wal, SHARD).expect("reads back");
    let last = Some(codec::log_id(5, 9));
    assert_eq!(remains, Remains { term: 6, given_up: Some(GivenUp { is_removed: true, last }), has_log: false });
    let kept = wal.state(SHARD.0).expect("state").vote.expect("a vote");
    assert_eq!(codec::decode_vote(&kept).expect("reads back"), vote());
    assert_eq!(disk.list(Path::new(DIR)).expect("directory"), Vec::<String>::new());
}

#[test]
fn what_is_removed_leaves_its_vote_and_how_far_it_was() {
    let disk = replica();
    let (wal, mut writer) = open(&disk);
    assert!(Floor::of(&wal, SHARD).expect("nothing is removed").is_none());
    assert!(run_removal(&disk, &wal, &mut writer).expect("removed") > 1_000);
    drop((wal, writer));
    check_removed(&disk);

    let (wal, mut writer) = open(&disk);
    let floor = Floor::of(&wal, SHARD).expect("reads back").expect("it had a log");
    assert!(!floor.is_reached());
    for (term, index, reached) in [(5, 0, false), (5, 8, false), (5, 9, true)] {
        wal.forget(SHARD.0, Box::new(drop));
        wal.append(SHARD.0, vec![entry(term, index)], Box::new(drop));
        while writer.step() > 0 {}
        assert_eq!(floor.is_reached(), reached, "{term}-{index}");
    }
    wal.truncate(SHARD.0, 9, Box::new(drop));
    while writer.step() > 0 {}
    assert!(!floor.is_reached(), "less again");
    wal.purge(SHARD.0, 7, codec::encode_log_id(&codec::log_id(6, 7)), Box::new(drop));
    while writer.step() > 0 {}
    assert!(floor.is_reached(), "a snapshot of a later term");
    assert_eq!(run_removal(&disk, &wal, &mut writer).expect("removed again"), 0);
    let last = Remains::of(&wal, SHARD).expect("reads back").given_up.expect("given up").last;
    assert_eq!(last, Some(codec::log_id(6, 7)));
}

#[test]
fn removal_that_the_power_cuts_off_anywhere_leaves_a_whole_replica_or_goes_on() {
    let changes = {
        let disk = replica();
        let (wal, mut writer) = open(&disk);
        let before = disk.counts().changes();
        run_removal(&disk, &wal, &mut writer).expect("removed");
        disk.counts().changes() - before
    };
    let (mut whole, mut going) = (0, 0);
    for point in 1..=changes + 1 {
        for unsynced in [Unsynced::Drop, Unsynced::Tear, Unsynced::Zero] {
            let disk = replica();
            let (wal, mut writer) = open(&disk);
            disk.fail_after(point);
            let removed = run_removal(&disk, &wal, &mut writer);
            drop((wal, writer));
            disk.crash(PowerCut { unsynced, seed: point });
            let context = format!("cut after {point} of {changes}, {unsynced:?}: {removed:?}");
            let (wal, mut writer) = open(&disk);
            let remains = Remains::of(&wal, SHARD).expect("reads back");
            match remains.given_up {
                None => {
                    whole += 1;
                    assert!(removed.is_err(), "{context}");
                    assert_eq!(wal.state(SHARD.0).expect("state").entries, Some((5, 9)), "{context}");
                    let files = ShardFiles::open(Arc::new(disk.clone()), DIR).expect("directory");
                    assert_eq!(files.read_manifest().expect("read").as_deref(), Some(&b"manifest"[..]), "{context}");
                    assert_eq!(disk.list(Path::new(DIR)).expect("directory").len(), 2, "{context}");
                }
                Some(given_up) => {
                    going += u64::from(!given_up.is_removed);
                    assert_eq!(given_up.last, Some(codec::log_id(5, 9)), "{context}");
                    assert_eq!(Floor::of(&wal, SHARD).is_ok(), given_up.is_removed, "nothing is opened in between; {context}");
                }
            }
            run_removal(&disk, &wal, &mut writer).unwrap_or_else(|e| panic!("{context}: {e}"));
            drop((wal, writer));
            check_removed(&disk);
        }
    }
    assert!(whole > 0 && going > 3, "{whole} whole, {going} on their way");
}
