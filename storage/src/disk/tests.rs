//! What the trait promises, run on every implementation; then what only the simulated disk does.

use super::*;

fn each(check: impl Fn(&dyn Disk, &Path)) {
    let real = tempfile::tempdir().unwrap();
    check(&RealDisk, real.path());
    let sim = SimDisk::new();
    sim.create_dir_all(Path::new("/data")).unwrap();
    check(&sim, Path::new("/data"));
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let mut file = disk.create(path).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
}

#[test]
fn appended_bytes_are_read_back_in_order_and_after_reopening() {
    each(|disk, dir| {
        let path = dir.join("a");
        write(disk, &path, b"one ");
        let mut file = disk.append(&path).unwrap();
        file.append(b"two ").unwrap();
        file.append(b"three").unwrap();
        assert_eq!(&disk.read(&path).unwrap()[..], b"one two three");
        assert_eq!(&disk.read_at(&path, 4, 3).unwrap()[..], b"two");
        assert_eq!(disk.len(&path).unwrap(), 13);
        assert!(disk.exists(&path) && disk.exists(dir));
    });
}

#[test]
fn zeroes_written_ahead_are_written_over_and_cut_off() {
    each(|disk, dir| {
        let path = dir.join("a");
        let mut file = disk.create(&path).unwrap();
        file.append(b"one ").unwrap();
        file.write_ahead(100_000).unwrap();
        file.sync().unwrap();
        assert_eq!(disk.len(&path).unwrap(), 100_004);
        file.append(b"two ").unwrap();
        file.write_ahead(10).unwrap();
        assert_eq!(disk.len(&path).unwrap(), 100_004, "there is more already");
        let whole = disk.read(&path).unwrap();
        assert!(whole.starts_with(b"one two ") && whole[8..].iter().all(|byte| *byte == 0));
        file.cut_ahead().unwrap();
        file.append(b"three").unwrap();
        file.sync().unwrap();
        assert_eq!(&disk.read(&path).unwrap()[..], b"one two three");
        file.write_ahead(3).unwrap();
        file.append(b", four").unwrap();
        assert_eq!(&disk.read(&path).unwrap()[..], b"one two three, four", "over them and beyond");
    });
}

#[test]
fn reads_are_aligned_whether_copied_or_mapped() {
    each(|disk, dir| {
        for (name, len) in [("empty", 0), ("small", 77), ("large", (1 << 20) + 5)] {
            let path = dir.join(name);
            let content: Vec<u8> = (0..len).map(|i| i as u8).collect();
            write(disk, &path, &content);
            let whole = disk.read(&path).unwrap();
            assert_eq!(whole, content);
            assert!(len == 0 || (whole.as_ptr() as usize).is_multiple_of(READ_ALIGN));
        }
        let part = disk.read_at(&dir.join("large"), 3, 1_000).unwrap();
        assert!((part.as_ptr() as usize).is_multiple_of(READ_ALIGN));
        assert_eq!(part[0], 3);
    });
}

#[test]
fn parts_of_a_file_are_its_bytes_whatever_became_of_the_others() {
    each(|disk, dir| {
        for len in [5_000u64, 3 << 20] {
            let path = dir.join(format!("{len}"));
            let content: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
            write(disk, &path, &content);
            let half = len / 2;
            let parts = disk.read_parts(&path, len, &[(0, half), (half, len - half), (16, 100), (len, 0)]).unwrap();
            let [first, second, small, none] = &parts[..] else { panic!("{} parts", parts.len()) };
            let sum: u64 = first.iter().chain(second.iter()).map(|byte| u64::from(*byte)).sum();
            assert_eq!(sum, content.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            assert!(none.is_empty());
            let (second, small) = (second.clone(), small.clone());
            drop(parts);
            assert!(second == content[half as usize..] && small == content[16..116]);
            for wrong in [(0, len + 1), (len, 1), (u64::MAX, 2)] {
                assert!(disk.read_parts(&path, len, &[wrong]).is_err(), "{wrong:?}");
            }
            assert!(disk.read_parts(&path, len - 1, &[]).is_err());
        }
    });
}

/// Bytes of mapped files that this process holds in memory.
#[cfg(target_os = "linux")]
fn resident_of(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_it, mut sum) = (false, 0);
    for line in maps.lines() {
        match line.strip_prefix("Rss:") {
            Some(rss) if is_it => sum += rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10,
            Some(_) => {}
            None if line.contains('-') && !line.contains("kB") => is_it = line.ends_with(path.to_str().unwrap()),
            None => {}
        }
    }
    sum
}

#[cfg(target_os = "linux")]
#[test]
fn a_part_that_is_dropped_takes_its_pages_along() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("large");
    write(&RealDisk, &path, &vec![7; 8 << 20]);
    let mut parts = RealDisk.read_parts(&path, 8 << 20, &[(0, 4 << 20), (4 << 20, 4 << 20)]).unwrap();
    assert!(parts.iter().all(|part| part.iter().all(|byte| *byte == 7)));
    assert_eq!(resident_of(&path), 8 << 20);
    drop(parts.pop());
    assert_eq!(resident_of(&path), 4 << 20);
}

#[test]
fn a_mapped_file_outlives_its_name() {
    each(|disk, dir| {
        let path = dir.join("large");
        write(disk, &path, &vec![7; 2 << 20]);
        let bytes = disk.read(&path).unwrap();
        disk.remove(&path).unwrap();
        assert!(bytes.iter().all(|&b| b == 7));
    });
}

#[test]
fn errors_are_of_the_expected_kind() {
    each(|disk, dir| {
        let kind = |r: io::Result<()>| r.unwrap_err().kind();
        let (path, missing) = (dir.join("a"), dir.join("missing"));
        write(disk, &path, b"12345");
        assert_eq!(kind(disk.create(&path).map(drop)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create(&missing.join("x")).map(drop)), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.append(&missing).map(drop)), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.read(&missing).map(drop)), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.remove(&missing)), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.rename(&missing, &path)), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.list(&missing).map(drop)), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.len(&missing).map(drop)), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.read_at(&path, 3, 3).map(drop)), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(disk.truncate(&path, 6)), io::ErrorKind::InvalidInput);
        assert!(!disk.exists(&missing));
    });
}

#[test]
fn names_are_listed_sorted_and_follow_rename_and_removal() {
    each(|disk, dir| {
        for name in ["b", "c", "a"] {
            write(disk, &dir.join(name), name.as_bytes());
        }
        disk.create_dir_all(&dir.join("sub/deep")).unwrap();
        disk.create_dir_all(&dir.join("sub/deep")).unwrap();
        write(disk, &dir.join("sub/deep/x"), b"");
        assert_eq!(disk.list(dir).unwrap(), ["a", "b", "c"]);
        disk.rename(&dir.join("a"), &dir.join("c")).unwrap();
        disk.remove(&dir.join("b")).unwrap();
        disk.sync_dir(dir).unwrap();
        assert_eq!(disk.list(dir).unwrap(), ["c"]);
        assert_eq!(&disk.read(&dir.join("c")).unwrap()[..], b"a");
    });
}

#[test]
fn a_cut_file_is_shorter_and_can_be_appended_to() {
    each(|disk, dir| {
        let path = dir.join("a");
        write(disk, &path, b"0123456789");
        disk.truncate(&path, 4).unwrap();
        let mut file = disk.append(&path).unwrap();
        file.append(b"X").unwrap();
        assert_eq!(&disk.read(&path).unwrap()[..], b"0123X");
    });
}

#[test]
fn an_open_file_follows_its_rename() {
    each(|disk, dir| {
        let mut file = disk.create(&dir.join("a")).unwrap();
        file.append(b"1").unwrap();
        disk.rename(&dir.join("a"), &dir.join("b")).unwrap();
        file.append(b"2").unwrap();
        file.sync().unwrap();
        assert_eq!(&disk.read(&dir.join("b")).unwrap()[..], b"12");
    });
}

#[test]
fn replacing_a_file_leaves_no_temporary_one() {
    each(|disk, dir| {
        let path = dir.join("a");
        write(disk, &temporary_name(&path), b"left by a crash");
        replace_file(disk, &path, b"one").unwrap();
        replace_file(disk, &path, b"two").unwrap();
        assert_eq!(&disk.read(&path).unwrap()[..], b"two");
        assert_eq!(disk.list(dir).unwrap(), ["a"]);
    });
}

#[test]
fn space_is_within_the_disk() {
    each(|disk, dir| {
        let space = disk.space(dir).unwrap();
        assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
    });
}

const MODES: [Unsynced; 3] = [Unsynced::Drop, Unsynced::Tear, Unsynced::Zero];

fn sim() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_harms_only_what_was_not() {
    let path = Path::new("/d/f");
    let mut seen = std::collections::BTreeSet::new();
    for unsynced in MODES {
        for seed in 0..50 {
            let disk = sim();
            let mut file = disk.create(path).unwrap();
            file.append(&[1; 700]).unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.append(&[2; 2_000]).unwrap();
            disk.crash(PowerCut { unsynced, seed });
            assert!(file.append(b"x").is_err(), "the old process is gone");
            let bytes = disk.read(path).unwrap();
            assert!(bytes[..700].iter().all(|&b| b == 1));
            let rest = &bytes[700..];
            match unsynced {
                Unsynced::Drop => assert!(rest.is_empty()),
                Unsynced::Tear => assert!(rest.iter().all(|&b| b == 2)),
                Unsynced::Zero => assert!(rest.len() == 2_000 && rest.iter().all(|&b| b == 2 || b == 0)),
            }
            seen.insert((rest.len(), rest.iter().filter(|&&b| b == 0).count()));
        }
    }
    assert!(seen.len() > 30, "seeds make a difference: {seen:?}");
}

#[test]
fn names_that_were_not_synced_may_go_either_way_and_synced_ones_may_not() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = sim();
        let dir = Path::new("/d");
        write(&disk, &dir.join("old"), b"old");
        write(&disk, &dir.join("kept"), b"kept");
        disk.sync_dir(dir).unwrap();
        write(&disk, &dir.join("new.tmp"), b"new");
        disk.rename(&dir.join("new.tmp"), &dir.join("old")).unwrap();
        disk.remove(&dir.join("kept")).unwrap();
        disk.crash(PowerCut { unsynced: Unsynced::Drop, seed });
        let content = disk.read(&dir.join("old")).unwrap();
        assert!(&content[..] == b"old" || &content[..] == b"new");
        outcomes.insert((content, disk.exists(&dir.join("kept"))));
    }
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
}

#[test]
fn a_killed_process_loses_nothing_but_what_it_left_is_not_synced() {
    let disk = sim();
    let mut file = disk.create(Path::new("/d/f")).unwrap();
    file.append(b"abc").unwrap();
    disk.kill();
    assert!(file.sync().is_err());
    assert_eq!(&disk.read(Path::new("/d/f")).unwrap()[..], b"abc");
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 1 });
    assert!(disk.read(Path::new("/d/f")).unwrap().is_empty());
}

#[test]
fn every_changing_operation_can_be_the_last() {
    let dir = Path::new("/d");
    let work = |disk: &SimDisk| replace_file(disk, &dir.join("f"), b"new");
    let before = sim();
    let start = before.counts().changes();
    work(&before).unwrap();
    let changes = before.counts().changes() - start;
    assert_eq!(changes, 5, "create, append, sync, rename, directory sync");
    for cut_at in 1..=changes {
        for seed in 0..20 {
            let disk = sim();
            disk.put(&dir.join("f"), b"old");
            disk.fail_after(cut_at);
            assert!(work(&disk).is_err() && disk.is_cut());
            assert!(disk.list(dir).is_err(), "reads fail without power too");
            disk.crash(PowerCut { unsynced: MODES[seed as usize % 3], seed });
            let content = disk.read(&dir.join("f")).unwrap();
            assert!(&content[..] == b"old" || (cut_at >= 4 && &content[..] == b"new"), "cut at {cut_at}: {content:?}");
        }
    }
}

#[test]
fn bytes_of_a_failed_sync_are_gone_though_the_next_sync_succeeds() {
    let disk = sim();
    let mut file = disk.create(Path::new("/d/f")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.append(b"lost").unwrap();
    disk.fail_next_sync();
    assert!(file.sync().is_err());
    file.append(b"kept").unwrap();
    file.sync().unwrap();
    assert_eq!(&disk.read(Path::new("/d/f")).unwrap()[..], b"lostkept");
    disk.crash(PowerCut { unsynced: Unsynced::Drop, seed: 3 });
    assert_eq!(&disk.read(Path::new("/d/f")).unwrap()[..], b"\0\0\0\0kept");
}

#[test]
fn a_full_disk_takes_what_fits_and_fails() {
    let disk = sim();
    let mut file = disk.create(Path::new("/d/f")).unwrap();
    disk.set_capacity(Some(10));
    file.append(&[1; 8]).unwrap();
    assert_eq!(file.append(&[2; 8]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.len(Path::new("/d/f")).unwrap(), 10);
    assert_eq!(disk.space(Path::new("/d")).unwrap(), Space { free_bytes: 0, total_bytes: 10 });
    disk.set_capacity(None);
    file.append(&[3; 8]).unwrap();
}

#[test]
fn a_flipped_bit_stays_flipped() {
    let disk = sim();
    disk.put(Path::new("/d/f"), &[0; 4]);
    disk.flip_bit(Path::new("/d/f"), 2, 3).unwrap();
    assert!(disk.flip_bit(Path::new("/d/f"), 4, 0).is_err());
    disk.crash(PowerCut { unsynced: Unsynced::Tear, seed: 0 });
    assert_eq!(&disk.read(Path::new("/d/f")).unwrap()[..], [0, 0, 8, 0]);
}
