use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::disk::{Disk, PowerCut, RealDisk, SimDisk, Unsynced};

const DIR: &str = "/shard-0";

fn simulated() -> (SimDisk, ShardFiles) {
    let disk = SimDisk::new();
    let files = ShardFiles::open(Arc::new(disk.clone()), DIR).expect("opens");
    files.adopt(None, Default::default()).expect("adopts");
    (disk, files)
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new(DIR)).expect("lists")
}

/// Commits a manifest that names one new file and what is in `keep`.
fn commit(files: &ShardFiles, order: u64, keep: &[&FileRef]) -> Result<(FileRef, Commit), StorageError> {
    let mut writer = files.writer();
    let file = writer.write("blocks", order.to_string().as_bytes())?;
    let live = keep.iter().map(|f| f.name.clone()).chain([file.name.clone()]).collect();
    Ok((file, writer.commit(order, format!("manifest {order}").as_bytes(), live)?))
}

#[test]
fn a_commit_removes_what_only_older_manifests_name() {
    let (disk, files) = simulated();
    let (first, _) = commit(&files, 1, &[]).expect("commits");
    let (second, _) = commit(&files, 2, &[&first]).expect("commits");
    assert_eq!(files.read(&first).expect("is still named"), "1");
    let (third, _) = commit(&files, 3, &[&second]).expect("commits");
    assert_eq!(names(&disk), [second.name.as_str(), third.name.as_str(), "snapshot"]);
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 1 });
    assert_eq!(files.read_manifest().expect("reads").as_deref(), Some(b"manifest 3".as_slice()));
    assert_eq!(files.read(&third).expect("survives"), "3");
}

#[test]
fn an_older_snapshot_never_replaces_a_newer_one() {
    let (disk, files) = simulated();
    commit(&files, 5, &[]).expect("commits");
    let before = names(&disk);
    assert_eq!(commit(&files, 4, &[]).expect("is no failure").1, Commit::Superseded { by: 5 });
    assert_eq!(names(&disk), before, "its files are gone");
    assert_eq!(files.read_manifest().expect("reads").as_deref(), Some(b"manifest 5".as_slice()));
}

#[test]
fn a_manifest_that_names_a_removed_file_is_refused() {
    let (_, files) = simulated();
    let (first, _) = commit(&files, 1, &[]).expect("commits");
    commit(&files, 2, &[]).expect("commits, and removes the first file");
    assert!(matches!(commit(&files, 3, &[&first]), Err(StorageError::Invalid(_))));
    assert_eq!(files.read_manifest().expect("reads").as_deref(), Some(b"manifest 2".as_slice()));
}

#[test]
fn a_start_removes_leftovers_and_never_uses_a_name_again() {
    let (disk, files) = simulated();
    let (kept, _) = commit(&files, 1, &[]).expect("commits");
    let mut writer = files.writer();
    let left = writer.write("blocks", b"half a snapshot").expect("writes");
    std::mem::forget(writer);
    disk.put(&Path::new(DIR).join("snapshot.tmp"), b"half a manifest");
    disk.put(&Path::new(DIR).join("cluster.json"), b"someone else's");
    let mut again = ShardFiles::open(Arc::new(disk.clone()), DIR).expect("opens");
    again.adopt(Some(1), [kept.name.clone()].into()).expect("adopts");
    assert_eq!(names(&disk), [kept.name.as_str(), "cluster.json", "snapshot"]);
    assert!(again.write("blocks", b"next").expect("writes").name > left.name);
}

#[test]
fn a_full_disk_leaves_the_last_snapshot_and_the_next_one_succeeds() {
    let (disk, files) = simulated();
    let (first, _) = commit(&files, 1, &[]).expect("commits");
    let before = names(&disk);
    disk.set_capacity(Some(disk.files().values().map(|f| f.len() as u64).sum::<u64>() + 3));
    assert!(matches!(commit(&files, 1_000_000, &[&first]), Err(StorageError::Io { .. })));
    assert_eq!(names(&disk), before, "nothing is left of the attempt");
    disk.set_capacity(None);
    commit(&files, 3, &[&first]).expect("there is room again");
}

#[test]
fn after_a_failed_sync_nothing_is_accepted() {
    let (disk, files) = simulated();
    disk.fail_next_sync();
    assert!(matches!(commit(&files, 1, &[]), Err(StorageError::Io { .. })));
    assert!(matches!(commit(&files, 2, &[]), Err(StorageError::Poisoned(_))));
}

#[test]
fn damage_names_the_file() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut files = ShardFiles::open(Arc::new(RealDisk), dir.path().join("shard-0")).expect("opens");
    let file = files.write("blocks", b"what was written").expect("writes");
    assert_eq!(files.read(&file).expect("reads"), "what was written");
    let path = files.dir().join(&file.name);
    for damaged in [&b"what was writtex"[..], b"what was", b""] {
        std::fs::write(&path, damaged).expect("writes");
        let error = files.read(&file).expect_err("is damaged").to_string();
        assert!(error.contains(&file.name) && error.contains("damaged"), "{error}");
    }
}

/// What a peer would send of a file that another replica wrote.
fn sent(content: &str, run: u64) -> (FileRef, String) {
    let mut there = ShardFiles::open_for(Arc::new(SimDisk::new()), DIR, run).expect("opens");
    (there.write("blocks", content.as_bytes()).expect("writes"), content.to_owned())
}

fn take_in(files: &ShardFiles, (file, content): &(FileRef, String)) -> Result<(), StorageError> {
    let mut arriving = files.arrive(file.clone())?;
    arriving.append(content.as_bytes()).expect("appends");
    arriving.finish()
}

#[test]
fn files_of_another_replica_stay_until_their_manifest_is_committed_whatever_is_committed_meanwhile() {
    let (disk, files) = simulated();
    let (shared, new) = (sent("shared", 1), sent("new", 2));
    assert_ne!(shared.0.name, new.0.name, "names of different runs differ");
    assert_eq!(files.expect([shared.0.clone()]).expect("lists"), std::slice::from_ref(&shared.0));
    take_in(&files, &shared).expect("arrives");
    files.writer().commit(3, b"manifest 3", [shared.0.name.clone()].into()).expect("commits");

    let both = [shared.0.clone(), new.0.clone()];
    assert_eq!(files.expect(both.clone()).expect("lists"), std::slice::from_ref(&new.0), "one is here");
    // A snapshot of its own, which needs neither.
    let (own, _) = commit(&files, 4, &[]).expect("commits");
    take_in(&files, &new).expect("arrives");
    let live = both.iter().map(|f| f.name.clone()).collect();
    assert_eq!(files.writer().commit(5, b"manifest 5", live).expect("commits"), Commit::Durable);
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 3 });
    assert_eq!((files.read(&shared.0).expect("survives"), files.read(&new.0).expect("survives")), ("shared".into(), "new".into()));
    assert!(files.read(&own).is_err(), "nobody names it any more");
}

#[test]
fn damaged_or_abandoned_arrivals_leave_nothing() {
    let (disk, files) = simulated();
    let (good, mut bad) = (sent("good", 1), sent("content", 2));
    bad.1 = "c0ntent".to_owned();
    files.expect([good.0.clone(), bad.0.clone()]).expect("lists");
    take_in(&files, &good).expect("arrives");
    assert!(matches!(take_in(&files, &bad), Err(StorageError::Damaged { .. })));
    assert_eq!(names(&disk), [good.0.name.as_str()]);
    // Half of it, then the process ends.
    files.arrive(bad.0.clone()).expect("begins").append(b"con").expect("appends");
    files.expect([bad.0.clone()]).expect("lists");
    assert!(!names(&disk).contains(&good.0.name), "it is not expected any more");
    let again = ShardFiles::open(Arc::new(disk.clone()), DIR).expect("opens");
    again.adopt(None, Default::default()).expect("adopts");
    assert!(names(&disk).is_empty());
}
