use super::*;
use crate::disk::{Disk, RealDisk};
use crate::shard::manifest::Manifest;

fn range(from: u64, to: u64, hour: i64) -> bytes::Bytes {
    let events: Vec<Event> = (from..to)
        .map(|id| Event {
            id,
            dimensions: [id as u8 % 2, id as u8 / 2 % 2, id as u8 % 3],
            time_ms: BASE_MS + hour * 3_600_000 + (id % 3_600) as i64 * 1_000,
            user: id as u8,
            ..event(0)
        })
        .collect();
    encode_batches(BASE_MS + hour * 3_600_000 + 3_600_000, &[encode(&events, 0)])
}

#[test]
fn a_snapshot_writes_what_is_new_not_all_state() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let files = ShardFiles::open(Arc::new(RealDisk), dir.path()).expect("opens");
    assert!(ShardState::open(&files, OPTIONS).expect("opens").is_none());
    let mut state = ShardState::new(ShardOptions { dedup_memory_bytes_max: 64 << 20 });
    let on_disk =
        || std::fs::read_dir(dir.path()).expect("lists").map(|f| f.expect("file").metadata().expect("metadata").len()).sum::<u64>();
    let mut total = 0;
    let mut late = Vec::new();
    for hour in 0..60u64 {
        state.apply(hour + 1, &range(hour * 3_000, (hour + 1) * 3_000, hour as i64)).expect("applies");
        let saved = state.save_plan().write(&files, b"").expect("saves");
        state.mark_saved(&saved);
        total += saved.written_bytes();
        if hour >= 30 {
            late.push(saved.written_bytes());
        }
    }
    let all = on_disk();
    assert!(all > 3_000_000, "{all} bytes of state");
    // Open rows (a third of it) each time, and each merge of deduplication runs and blocks; all state each time would be thirty times.
    assert!(total < 6 * all, "{total} bytes written for {all} bytes of state");
    late.sort_unstable();
    assert!(late[late.len() * 3 / 4] < all / 8, "most snapshots merge little or nothing: {late:?} of {all} bytes");
    // One event that closes the hour before, then one more: its row, its id and the manifest.
    let mut one_more = |index: u64| {
        state.apply(index, &range(index * 100_000, index * 100_000 + 1, 60)).expect("applies");
        let saved = state.save_plan().write(&files, b"").expect("saves");
        state.mark_saved(&saved);
        saved
    };
    one_more(61);
    let saved = one_more(62);
    let manifest = saved.manifest().len() as u64;
    assert!(saved.written_bytes() < manifest + 16_384, "{} bytes for one event, of them {manifest} manifest", saved.written_bytes());
    assert!(manifest < 64 << 10, "the manifest has {manifest} bytes");
}

#[test]
fn of_two_racing_saves_the_newer_is_kept() {
    let (disk, files) = simulated();
    let mut state = ShardState::new(OPTIONS);
    state.apply(1, &range(0, 100, 0)).expect("applies");
    let older = state.save_plan();
    state.apply(2, &range(100, 200, 0)).expect("applies");
    let newer = state.save_plan();
    let newer = newer.write(&files, b"newer").expect("saves");
    let older = older.write(&files, b"older").expect("is superseded, not failed");
    assert!(older.is_superseded() && !newer.is_superseded());
    assert_eq!((older.applied_index(), older.durable_index(), newer.durable_index()), (1, 2, 2));
    state.mark_saved(&older);
    assert_eq!(state.saved_index(), None);
    state.mark_saved(&newer);
    assert_eq!(state.saved_index(), Some(2));
    let (opened, meta) = ShardState::open(&files, OPTIONS).expect("opens").expect("was saved");
    assert_eq!((opened.applied_index(), meta.as_slice(), opened.checksum()), (2, b"newer".as_slice(), state.checksum()));
    let live = Manifest::decode(&files.manifest_path(), newer.manifest()).expect("decodes").0.live();
    assert_eq!(disk.list(files.dir()).expect("lists").len(), live.len() + 1, "nothing else is there");
}

#[test]
fn installing_a_manifest_whose_files_are_here_brings_its_state() {
    let (_, files) = simulated();
    let mut state = ShardState::new(OPTIONS);
    state.apply(1, &range(0, 100, 0)).expect("applies");
    let saved = state.save_plan().write(&files, b"meta").expect("saves");
    let (installed, meta) = ShardState::install(&files, saved.manifest(), OPTIONS).expect("installs");
    assert_eq!((installed.checksum(), meta.as_slice()), (state.checksum(), b"meta".as_slice()));
    state.mark_saved(&saved);
    state.apply(2, &range(100, 200, 0)).expect("applies");
    state.save_plan().write(&files, b"").expect("saves");
    assert!(ShardState::install(&files, saved.manifest(), OPTIONS).is_err(), "an older one is refused");
}

proptest! {
    #[test]
    fn damaged_manifests_are_refused_and_never_panic(at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<prop::sample::Index>()) {
        let (_, files) = simulated();
        let mut state = ShardState::new(OPTIONS);
        state.apply(1, &range(0, 10, 0)).expect("applies");
        let whole = state.save_plan().write(&files, b"meta").expect("saves").manifest().to_vec();
        let mut flipped = whole.clone();
        flipped[at.index(whole.len())] ^= 1 << bit;
        for bytes in [&flipped[..], &whole[..cut.index(whole.len())]] {
            prop_assert!(Manifest::decode(&files.manifest_path(), bytes).is_err());
        }
    }
}

/// A snapshot as version 1 wrote it: with cold runs, a filter, keys, blocks and open rows. Never edited; the new reads it, the old wrote it.
#[test]
fn a_snapshot_of_version_1_opens() {
    // Asked when it runs: a binary built from another checkout may be reused from a shared target directory.
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let golden = std::path::Path::new(&package).join("testdata/shard-v1");
    let dir = tempfile::tempdir().expect("temporary directory");
    for file in std::fs::read_dir(&golden).expect("lists") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), dir.path().join(file.file_name())).expect("copies");
    }
    let files = ShardFiles::open(Arc::new(RealDisk), dir.path()).expect("opens");
    let (mut state, meta) = ShardState::open(&files, ShardOptions { dedup_memory_bytes_max: 0 }).expect("opens").expect("is there");
    assert_eq!(meta, 12u64.to_le_bytes());
    let stats = state.stats();
    assert_eq!((stats.applied_index, stats.counters.events, stats.keys), (12, 315, 8));
    assert!(
        stats.dedup.cold_runs > 0 && stats.dedup.filter_bytes > 0 && stats.windows.blocks > 0 && stats.windows.open_rows > 0,
        "{stats:?}"
    );
    assert_eq!(count_of(&state, 0), 315);
    for index in 1..=12 {
        let again = state.apply(12 + index, &crash::entry(index)).expect("applies");
        assert!(again.parts.iter().all(|p| (p.counted, p.duplicates) == (0, 20)), "{again:?}");
    }
}
