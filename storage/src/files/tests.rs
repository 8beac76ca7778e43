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

#[test]
fn files_of_another_replica_come_in_and_are_installed() {
    let (_, theirs) = simulated();
    let (disk, mine) = simulated();
    let (own, _) = commit(&mine, 1, &[]).expect("commits");
    let (kept, _) = commit(&theirs, 7, &[]).expect("commits");
    let (new, _) = commit(&theirs, 8, &[&kept]).expect("commits");
    assert_ne!(own.name, kept.name, "both are the first file of their directory");
    let announced = [kept.clone(), new.clone()];
    let names_of = |files: &[&FileRef]| files.iter().map(|f| f.name.clone()).collect::<std::collections::BTreeSet<_>>();
    let live = names_of(&[&kept, &new]);
    assert!(
        matches!(mine.writer().commit_received(8, b"manifest 8", live.clone()), Err(StorageError::Invalid(_))),
        "nothing was announced"
    );
    assert_eq!(mine.expect(&announced).expect("asks"), announced);
    for file in &announced {
        let bytes = theirs.read(file).expect("theirs");
        let mut broken = mine.receive(file).expect("begins");
        broken.append(b"x").expect("takes");
        assert!(broken.append(&[0; 99]).is_err(), "longer than announced");
        assert!(broken.finish().is_err(), "not what was announced");
        let mut incoming = mine.receive(file).expect("begins again");
        incoming.append(&bytes).expect("takes");
        incoming.finish().expect("is whole");
    }
    assert!(mine.expect(&announced).expect("asks again").is_empty());
    let (own, _) = commit(&mine, 2, &[]).expect("a snapshot of its own, meanwhile");
    assert_eq!(mine.writer().commit_received(8, b"manifest 8", live.clone()).expect("installs"), Commit::Durable);
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 3 });
    assert_eq!(names(&disk), names_of(&[&kept, &new]).into_iter().chain(["snapshot".to_owned()]).collect::<Vec<_>>(), "{own:?} is gone");
    let again = ShardFiles::open(Arc::new(disk.clone()), DIR).expect("opens");
    again.adopt(Some(8), live).expect("adopts");
    assert_eq!((again.read(&kept).expect("reads"), again.read(&new).expect("reads")), ("7".into(), "8".into()));
}

#[test]
fn what_came_for_a_snapshot_that_is_given_up_goes() {
    let (disk, mine) = simulated();
    let (_, theirs) = simulated();
    let (old, _) = commit(&theirs, 1, &[]).expect("commits");
    mine.expect(std::slice::from_ref(&old)).expect("asks");
    let mut incoming = mine.receive(&old).expect("begins");
    incoming.append(&theirs.read(&old).expect("theirs")).expect("takes");
    incoming.finish().expect("is whole");
    let unfinished = mine.receive(&old).expect("begins");
    assert_eq!(names(&disk).len(), 2);
    let (new, _) = commit(&theirs, 2, &[]).expect("commits");
    assert_eq!(mine.expect(std::slice::from_ref(&new)).expect("asks"), [new]);
    drop(unfinished);
    assert!(names(&disk).is_empty());
    std::mem::forget(mine.receive(&old).expect("begins"));
    ShardFiles::open(Arc::new(disk.clone()), DIR).expect("opens").adopt(None, Default::default()).expect("adopts");
    assert!(names(&disk).is_empty(), "a start removes what broke off");
}
