//! The power goes at every operation of a snapshot, in every way.

use super::*;
use crate::disk::{PowerCut, Unsynced};

const MODES: [Unsynced; 3] = [Unsynced::Drop, Unsynced::Tear, Unsynced::Zero];

/// Entry `index` of a log with new and repeated events, several hours, and time enough to seal and fold.
pub fn entry(index: u64) -> bytes::Bytes {
    let stamp_ms = BASE_MS + index as i64 * 900_000;
    let events: Vec<Event> = (0..40)
        .map(|n| (index * 25 + n, n))
        .map(|(id, n)| Event {
            id,
            dimensions: [(id % 2) as u8, 0, (id % 3) as u8],
            time_ms: stamp_ms - n as i64 * 60_000,
            derived: (n % 3 == 0).then_some((n as u8 % 2, Some(n as f64))),
            ..event(0)
        })
        .collect();
    encode_batches(stamp_ms, &[encode(&events[..20], 0), encode(&events[20..], 0)])
}

const LOG: u64 = 14;

/// Snapshots are made after these entries.
const SNAPSHOTS: [u64; 4] = [3, 6, 9, 12];

/// Applies the log from where the state stands, with snapshots on the way; false as soon as one fails.
fn run(state: &mut ShardState, files: &ShardFiles) -> bool {
    for index in state.applied_index() + 1..=LOG {
        state.apply(index, &entry(index)).expect("applies");
        if SNAPSHOTS.contains(&index) {
            match state.save_plan().write(files, &index.to_le_bytes()) {
                Ok(saved) => drop(state.mark_saved(&saved)),
                Err(_) => return false,
            }
        }
    }
    true
}

#[test]
fn whenever_the_power_goes_the_last_or_the_next_snapshot_opens() {
    let mut checksums = vec![ShardState::new(OPTIONS).checksum()];
    let mut steady = ShardState::new(OPTIONS);
    for index in 1..=LOG {
        steady.apply(index, &entry(index)).expect("applies");
        checksums.push(steady.checksum());
    }

    let (disk, files) = simulated();
    let before = disk.counts().changes();
    assert!(run(&mut ShardState::new(OPTIONS), &files));
    let changes = disk.counts().changes() - before;
    assert!(changes > 40, "the workload has {changes} operations");

    for mode in MODES {
        for point in 1..=changes {
            let (disk, files) = simulated();
            disk.fail_after(point);
            let mut state = ShardState::new(OPTIONS);
            run(&mut state, &files);
            let (known, reached) = (state.saved_index().unwrap_or(0), state.applied_index());
            disk.crash(PowerCut { unsynced: mode, seed: point });

            let files = ShardFiles::open(Arc::new(disk.clone()), "/shard-0").expect("opens");
            let opened = ShardState::open(&files, OPTIONS).unwrap_or_else(|e| panic!("{mode:?} at {point}: {e}"));
            let mut state = match opened {
                Some((state, meta)) => {
                    assert_eq!(meta, state.applied_index().to_le_bytes(), "{mode:?} at {point}: the log's bytes are those of the snapshot");
                    state
                }
                None => ShardState::new(OPTIONS),
            };
            let index = state.applied_index();
            assert!(index == known || index == reached, "{mode:?} at {point}: snapshot {index}, not {known} or {reached}");
            assert_eq!(state.checksum(), checksums[index as usize], "{mode:?} at {point}");
            // It goes on from there, and nothing is counted twice.
            assert!(run(&mut state, &files), "{mode:?} at {point}");
            assert_eq!(state.checksum(), checksums[LOG as usize], "{mode:?} at {point}");
        }
    }
}

#[test]
fn a_bit_that_flips_at_rest_is_an_error_that_names_the_file() {
    let (disk, files) = simulated();
    let mut state = ShardState::new(OPTIONS);
    assert!(run(&mut state, &files));
    let whole = disk.files();
    for (path, bytes) in whole.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        for offset in (0..bytes.len()).step_by(bytes.len().div_ceil(40)) {
            disk.flip_bit(path, offset as u64, (offset % 8) as u8).expect("flips");
            let files = ShardFiles::open(Arc::new(disk.clone()), "/shard-0").expect("opens");
            let error = ShardState::open(&files, OPTIONS).err().map(|e| e.to_string());
            let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
            assert!(error.as_ref().is_some_and(|e| e.contains(name)), "{name} at {offset}: {error:?}");
            disk.flip_bit(path, offset as u64, (offset % 8) as u8).expect("flips back");
        }
    }
}
