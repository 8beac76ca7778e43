use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::run::{build_filter, decode_filter, encode_filter, encode_run, filter_keys};
use super::*;
use crate::files::FileRef;

/// Files in memory, CRC checked.
#[derive(Clone, Default)]
struct MemoryFiles {
    files: BTreeMap<String, Bytes>,
    next: u64,
    written_bytes: u64,
}

impl ImmutableFiles for MemoryFiles {
    fn write(&mut self, kind: &str, bytes: &[u8]) -> Result<FileRef, StorageError> {
        self.next += 1;
        self.written_bytes += bytes.len() as u64;
        let name = format!("{kind}-{}", self.next);
        self.files.insert(name.clone(), Bytes::copy_from_slice(bytes));
        Ok(FileRef { name, bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) })
    }

    fn read(&self, file: &FileRef) -> Result<Bytes, StorageError> {
        self.files.get(&file.name).cloned().ok_or_else(|| StorageError::Invalid(format!("no file {}", file.name)))
    }
}

impl MemoryFiles {
    fn remove_unnamed(&mut self, manifest: &DedupManifest) {
        let named: Vec<&str> = manifest.files().map(|f| f.name.as_str()).collect();
        self.files.retain(|name, _| named.contains(&name.as_str()));
    }
}

/// A uniform hash for a small number.
fn hash(n: u64) -> u128 {
    tallymesh_protocol::hash::key_hash(&n.to_le_bytes())
}

const HORIZON_MS: u64 = 100_000;

fn save(dedup: &mut Dedup, files: &mut MemoryFiles) -> DedupManifest {
    let saved = dedup.save_plan().write(files).expect("saves");
    dedup.mark_saved(&saved);
    files.remove_unnamed(&saved.manifest);
    saved.manifest
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u64>),
    Advance(i64),
    Save,
    /// Written, but the marking is lost; then written again.
    SaveUnmarked,
    Reload(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(0..3_000u64, 1..=INSERT_CHUNK * 20).prop_map(Step::Insert),
        3 => (0..30_000i64).prop_map(Step::Advance),
        2 => Just(Step::Save),
        1 => Just(Step::SaveUnmarked),
        1 => prop_oneof![Just(0usize), Just(20_000), Just(1 << 20)].prop_map(Step::Reload),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn answers_are_those_of_a_plain_map_whatever_is_saved_evicted_and_reloaded(budget in prop_oneof![Just(0usize), Just(30_000), Just(1 << 20)], steps in steps()) {
        let mut dedup = Dedup::new(budget);
        let mut files = MemoryFiles::default();
        let mut oracle: HashMap<u64, i64> = HashMap::new();
        let mut now_ms = 1_700_000_000_000i64;
        dedup.advance(now_ms, HORIZON_MS);
        for step in steps {
            match step {
                Step::Insert(numbers) => {
                    for chunk in numbers.chunks(INSERT_CHUNK) {
                        let hashes: Vec<u128> = chunk.iter().map(|&n| hash(n)).collect();
                        let new = insert(&mut dedup, &hashes);
                        for (i, &n) in chunk.iter().enumerate() {
                            let seen = oracle.get(&n).is_some_and(|arrived| now_ms / 1_000 - arrived / 1_000 <= HORIZON_MS as i64 / 1_000);
                            prop_assert_eq!(new >> i & 1 == 1, !seen, "number {} at {}", n, now_ms);
                            if !seen {
                                oracle.insert(n, now_ms);
                            }
                        }
                    }
                }
                Step::Advance(ms) => {
                    now_ms += ms;
                    dedup.advance(now_ms, HORIZON_MS);
                }
                Step::Save => {
                    save(&mut dedup, &mut files);
                }
                Step::SaveUnmarked => {
                    let mut lost = files.clone();
                    dedup.save_plan().write(&mut lost).expect("saves");
                    files.next = lost.next;
                }
                Step::Reload(budget) => {
                    let manifest = save(&mut dedup, &mut files);
                    dedup = Dedup::load(&manifest, budget, &files).expect("loads");
                }
            }
        }
    }

    #[test]
    fn damaged_runs_and_filters_are_refused_and_never_panic(at in 0usize..3_000, to in any::<u8>(), cut in 0usize..3_000) {
        let mut entries: Vec<Entry> = (0..100).map(|n| Entry { hash: hash(n), second: 7 }).collect();
        entries.sort_by_key(Entry::key);
        let file = FileRef { name: "dedup-1".into(), bytes: 0, crc32: 0 };
        let filter = build_filter(&filter_keys(entries.iter().copied())).expect("distinct");
        for whole in [encode_run(&entries), encode_filter(&filter)] {
            for mut bytes in [whole.clone(), whole[..cut.min(whole.len())].to_vec()] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = to;
                }
                let filter = decode_filter(&file, &bytes).ok();
                let bytes = Bytes::from(bytes);
                if let Ok(run) = Run::open(&file, bytes.clone()) {
                    let cold = ColdRun::new(&file, &run, Arc::new(bytes), filter);
                    (0..200).for_each(|n| { cold.find(hash(n)).expect("all of it is there"); });
                } else if let Some(filter) = filter {
                    use xorf::Filter;
                    (0..200u64).for_each(|n| { filter.contains(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15)); });
                }
            }
        }
    }
}

fn insert(dedup: &mut Dedup, hashes: &[u128]) -> u32 {
    let cold = dedup.look_up_cold(hashes.iter().copied()).expect("memory does not fail");
    dedup.insert(hashes, cold.chunk(0))
}

fn insert_range(dedup: &mut Dedup, range: std::ops::Range<u64>) -> u64 {
    let hashes: Vec<u128> = range.map(hash).collect();
    hashes.chunks(INSERT_CHUNK).map(|c| u64::from(insert(dedup, c).count_ones())).sum()
}

#[test]
fn memory_stays_within_its_budget_and_nothing_is_forgotten() {
    let budget = 1 << 20;
    let mut dedup = Dedup::new(budget);
    let mut files = MemoryFiles::default();
    dedup.advance(1_000_000, 86_400_000);
    let mut since_full = Vec::new();
    for round in 0..40u64 {
        dedup.advance(1_000_000 + round as i64 * 1_000, 86_400_000);
        assert_eq!(insert_range(&mut dedup, round * 5_000..(round + 1) * 5_000), 5_000);
        save(&mut dedup, &mut files);
        let stats = dedup.stats();
        assert!(stats.memory_bytes <= budget as u64, "round {round}: {stats:?}");
        assert!(stats.filter_bytes <= 2 * (round + 1) * 5_000, "round {round}: {stats:?}");
        if stats.cold_runs > 0 {
            since_full.push(stats.memory_bytes);
        }
    }
    let (least, most) = (since_full.iter().min().expect("it was full"), since_full.iter().max().expect("it was full"));
    // Parts that fill between two saves grow by a fifth, as before; the filters alone would add a third.
    assert!(*most as f64 <= 1.2 * *least as f64, "filters take their room from the table: {since_full:?}");
    let stats = dedup.stats();
    assert!(stats.cold_runs > 0 && stats.runs <= 24, "{stats:?}");
    assert!(stats.filter_bytes > budget as u64 / 8, "enough to show: {stats:?}");
    assert_eq!(insert_range(&mut dedup, 0..200_000), 0, "all were seen");
    assert_eq!(stats.entries, 200_000, "{stats:?}");
}

#[test]
fn a_save_writes_what_is_new_and_merges_little() {
    let mut dedup = Dedup::new(64 << 20);
    let mut files = MemoryFiles::default();
    let mut total = 0;
    for round in 0..100u64 {
        dedup.advance(1_000_000 + round as i64 * 1_000, 86_400_000);
        insert_range(&mut dedup, round * 2_000..(round + 1) * 2_000);
        let before = files.written_bytes;
        save(&mut dedup, &mut files);
        total += files.written_bytes - before;
    }
    // Each tier of eight rewrites an entry once: 200 000 entries are in their third.
    let new = 200_000 * 20;
    assert!(total < 4 * new, "{total} bytes written for {new} new ones");
    assert!(dedup.stats().runs <= 3 * 8, "{:?}", dedup.stats());
    let before = files.written_bytes;
    save(&mut dedup, &mut files);
    assert_eq!(files.written_bytes, before, "nothing is new");
}

#[test]
fn runs_past_the_horizon_are_dropped() {
    let mut dedup = Dedup::new(0);
    let mut files = MemoryFiles::default();
    dedup.advance(1_000_000, HORIZON_MS);
    insert_range(&mut dedup, 0..1_000);
    save(&mut dedup, &mut files);
    assert!(dedup.stats().disk_bytes > 0);
    dedup.advance(1_000_000 + HORIZON_MS as i64, HORIZON_MS);
    assert_eq!(insert_range(&mut dedup, 0..10), 0, "at the horizon they are still known");
    dedup.advance(1_001_000 + HORIZON_MS as i64, HORIZON_MS);
    save(&mut dedup, &mut files);
    assert_eq!((dedup.stats().disk_bytes, dedup.stats().entries, files.files.len()), (0, 0, 0));
    assert_eq!(insert_range(&mut dedup, 0..10), 10, "beyond it they count again");
}

#[test]
fn a_longer_horizon_does_not_bring_back_what_was_forgotten() {
    let mut dedup = Dedup::new(1 << 20);
    dedup.advance(1_000_000, HORIZON_MS);
    insert_range(&mut dedup, 0..10);
    dedup.advance(1_200_000, HORIZON_MS);
    dedup.advance(1_200_000, 10 * HORIZON_MS);
    assert_eq!(insert_range(&mut dedup, 0..10), 10, "whether the entries are still in memory must not show");
}

#[test]
fn time_that_goes_back_changes_nothing() {
    let mut dedup = Dedup::new(1 << 20);
    dedup.advance(1_000_000, HORIZON_MS);
    let clock = dedup.clock();
    dedup.advance(0, HORIZON_MS);
    dedup.advance(i64::MIN, HORIZON_MS);
    assert_eq!(dedup.clock(), clock);
}

#[test]
fn every_hash_of_a_cold_run_is_found_in_its_block_and_no_other() {
    let file = FileRef { name: "dedup-1".into(), bytes: 0, crc32: 0 };
    for count in [1, 2, 255, 256, 257, 512, 1_000] {
        let mut entries: Vec<Entry> = (0..count).map(|n| Entry { hash: hash(n), second: n as u32 + 1 }).collect();
        // Neighbours in value, so that the halves that filters are made of do not tell them apart.
        entries.extend([0, 1, u128::MAX - 1].map(|hash| Entry { hash, second: 9 }));
        entries.sort_by_key(Entry::key);
        let bytes = Bytes::from(encode_run(&entries));
        let run = Run::open(&file, bytes.clone()).expect("sound");
        let cold = ColdRun::new(&file, &run, Arc::new(bytes), None);
        for entry in &entries {
            assert_eq!(cold.find(entry.hash).expect("in memory"), Some(entry.second), "{count} entries");
        }
        for absent in (count..2 * count).map(hash).chain([2, u128::MAX]) {
            assert_eq!(cold.find(absent).expect("in memory"), None, "{count} entries");
        }
    }
}

#[test]
fn a_disk_that_fails_is_an_error_and_no_answer() {
    struct Gone;
    impl crate::disk::ReadAt for Gone {
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> std::io::Result<()> {
            Err(std::io::Error::other("gone"))
        }
    }
    let file = FileRef { name: "dedup-1".into(), bytes: 0, crc32: 0 };
    let entries = [Entry { hash: 7, second: 1 }];
    let run = Run::open(&file, encode_run(&entries).into()).expect("sound");
    let cold = ColdRun::new(&file, &run, Arc::new(Gone), None);
    assert!(cold.find(7).is_err_and(|e| e.to_string().contains("dedup-1")));
}
