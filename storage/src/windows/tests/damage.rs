use proptest::prelude::*;

use super::*;

/// A store with blocks of every grain, a sketch, several values, and open rows.
fn saved_state() -> (SavedWindows, MemoryFiles) {
    let mut store = WindowStore::new(settings());
    for i in 0..6_000u64 {
        let value = if i % 3 == 0 { f64::NAN } else { i as f64 - 2_000.0 };
        let (key, minute) = ((i % 5) as u32, (i % 4) as i64);
        let user = if key == 0 { mix(i) | 1 } else { mix(i % 9) | 1 };
        store.append(T0, Row { key, time_ms: T0 + minute * 30_000 + i as i64 % 77, id: mix(i), user, session: mix(i % 11), value });
    }
    store.tick(T0 + 2 * DAY_MS);
    store.tick(T0 + 4 * DAY_MS);
    (0..50).for_each(|i| store.append(T0 + 4 * DAY_MS, row(i, T0 + 4 * DAY_MS + i64::from(i) * 1_000, u64::from(i))));
    assert!(store.stats().windows.iter().all(|&w| w > 0), "blocks of every grain: {:?}", store.stats());
    let mut files = MemoryFiles::default();
    let saved = save(&mut store, &mut files);
    (saved, files)
}

/// Whatever loads must also be readable: every answer and every merge, without panic.
fn use_fully(mut store: WindowStore) {
    store.digest();
    store.watermark_ms(T0);
    for grain in Grain::ALL {
        let steps = plan(grain, T0, T0 + 8 * DAY_MS, 4 * DAY_MS);
        ask(&store, &steps, &[0, 1, 0, 1, 0, 1]);
    }
    for partition in store.levels.iter().flat_map(BTreeMap::values) {
        let blocks: Vec<&Block> = partition.blocks.iter().map(|b| &*b.block).collect();
        make::merge(&blocks, blocks[0].grain, blocks[0].partition_ms);
    }
    store.tick(T0 + 400 * DAY_MS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files_are_refused_or_read_but_never_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        in_tail in any::<bool>(),
        cut in proptest::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let (saved, mut files) = saved_state();
        let file = which.get(&saved.files().collect::<Vec<_>>()).name.clone();
        let mut bytes = files.files[&file].to_vec();
        for (at, value) in changes {
            // The columns' headers lie at the end of an archive: hit them more often than chance would.
            let at = if in_tail { bytes.len() - 1 - at.index(bytes.len().min(500)) } else { at.index(bytes.len()) };
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        files.put(&file, &bytes);
        match WindowStore::load(&saved.manifest, settings(), &files) {
            Ok(store) => use_fully(store),
            Err(StorageError::Damaged { path, .. } | StorageError::Version { path, .. }) => prop_assert_eq!(path.to_str(), Some(&*file)),
            Err(error) => prop_assert!(false, "does not name the file: {}", error),
        }
    }
}

#[test]
fn every_single_bit_of_a_block_may_flip_without_a_panic() {
    let mut builder_rows = Vec::new();
    for i in 0..40u64 {
        builder_rows.push(OpenRow {
            key: (i % 6) as u32,
            offset_ms: i as u32 * 4_000,
            id: i,
            user: i % 4,
            session: i % 3,
            value: i as f64,
        });
    }
    let block = make::seal(T0, &builder_rows, 60);
    let mut refused = 0;
    for bit in 0..block.bytes().len() * 8 {
        let mut bytes = AlignedVec::<16>::with_capacity(block.bytes().len());
        bytes.extend_from_slice(block.bytes());
        bytes[bit / 8] ^= 1 << (bit % 8);
        match Block::open(Bytes::from_owner(bytes)) {
            Ok(block) => drop(make::merge(&[&block, &block], Grain::Hour, Grain::Day.floor(block.partition_ms))),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 200, "{refused} flips were refused");
}

#[test]
fn manifests_that_point_elsewhere_are_refused() {
    let (saved, files) = saved_state();
    let broken = |change: &dyn Fn(&mut WindowsManifest)| {
        let mut manifest = saved.manifest.clone();
        change(&mut manifest);
        WindowStore::load(&manifest, settings(), &files).err().expect("refused").to_string()
    };
    let message = broken(&|m| m.partitions[0].blocks[0].1 = u64::MAX - 3);
    assert!(message.contains("blocks-0") && message.contains("beyond the file"), "{message}");
    broken(&|m| m.partitions[0].blocks[0].2 += 16);
    broken(&|m| m.partitions[0].blocks[0].0 = 7);
    broken(&|m| m.partitions[0].start_ms += HOUR_MS);
    broken(&|m| m.partitions.push(m.partitions[0].clone()));
    broken(&|m| m.files[0].name = "gone".to_owned());
    let message = broken(&|m| m.version = 9);
    assert!(message.contains("version 9"), "{message}");
}
