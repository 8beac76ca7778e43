use bytes::Bytes;
use proptest::prelude::*;
use tallymesh_protocol::hash::key_hash;
use tallymesh_protocol::key::{MetricKind, encode_key};

use super::*;
use crate::files::FileRef;

#[derive(Default)]
struct MemoryFiles(Vec<Bytes>);

impl ImmutableFiles for MemoryFiles {
    fn write(&mut self, _: &str, bytes: &[u8]) -> Result<FileRef, StorageError> {
        self.0.push(Bytes::copy_from_slice(bytes));
        Ok(FileRef { name: (self.0.len() - 1).to_string(), bytes: bytes.len() as u64, crc32: 0 })
    }

    fn read(&self, file: &FileRef) -> Result<Bytes, StorageError> {
        let index: usize = file.name.parse().expect("own name");
        Ok(self.0[index].clone())
    }
}

fn key(metric: u32, dimensions: &[Option<u32>]) -> Vec<u8> {
    let mut out = Vec::new();
    let texts: Vec<Option<String>> = dimensions.iter().map(|d| d.map(|n| if n == 0 { String::new() } else { n.to_string() })).collect();
    let kind = if metric.is_multiple_of(2) { MetricKind::Default } else { MetricKind::Defined };
    encode_key(&mut out, kind, "default", &format!("m{metric}"), texts.iter().map(|t| t.as_deref()));
    out
}

fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = (0..5u32, prop::collection::vec(prop::option::of(0..20u32), 0..4)).prop_map(|(m, d)| key(m, &d));
    prop::collection::vec(one, 1..200)
}

fn check(table: &KeyTable, expected: &[Vec<u8>]) {
    assert_eq!(table.len(), expected.len());
    for (id, bytes) in expected.iter().enumerate() {
        let id = id as KeyId;
        let view = KeyView::parse(bytes).expect("own key");
        assert_eq!(table.key(id), Some(view));
        let read: Vec<Option<&str>> = table.dimensions(id).iter().map(|&v| table.value(v)).collect();
        assert_eq!(read, view.dimensions().collect::<Vec<_>>());
        assert!(table.metric(view.kind, view.tenant, view.metric).is_some_and(|m| m.ids.contains(&id)));
    }
    assert_eq!(table.metrics().iter().map(|m| m.ids.len()).sum::<usize>(), expected.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equal_keys_get_one_number_also_after_saving_and_loading(batches in prop::collection::vec(keys(), 1..12)) {
        let mut table = KeyTable::default();
        let mut files = MemoryFiles::default();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for (i, batch) in batches.iter().enumerate() {
            for bytes in batch {
                let id = table.intern(key_hash(bytes), bytes).expect("a key");
                match expected.iter().position(|k| k == bytes) {
                    Some(known) => prop_assert_eq!(id as usize, known),
                    None => {
                        prop_assert_eq!(id as usize, expected.len());
                        expected.push(bytes.clone());
                    }
                }
            }
            let saved = table.save_plan().write(&mut files).expect("saves");
            if i % 3 != 1 {
                table.mark_saved(&saved);
            }
            if i % 4 == 3 {
                table = KeyTable::load(&saved, &files).expect("loads");
            }
            check(&table, &expected);
        }
    }

    #[test]
    fn damaged_chunks_are_refused_and_never_panic(batch in keys(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut table = KeyTable::default();
        for bytes in &batch {
            table.intern(key_hash(bytes), bytes);
        }
        let mut files = MemoryFiles::default();
        let manifest = table.save_plan().write(&mut files).expect("saves");
        let whole = files.0[0].to_vec();
        let mut flipped = whole.clone();
        flipped[at.index(whole.len())] = to;
        for bytes in [flipped, whole[..cut.index(whole.len())].to_vec()] {
            files.0[0] = bytes.into();
            if let Ok(loaded) = KeyTable::load(&manifest, &files) {
                prop_assert_eq!(loaded.len(), table.len());
            }
        }
    }
}

#[test]
fn two_keys_with_one_hash_are_told_apart() {
    let mut table = KeyTable::default();
    let (a, b) = (key(0, &[Some(1)]), key(0, &[Some(2)]));
    assert_eq!([table.intern(7, &a), table.intern(7, &b), table.intern(7, &a)], [Some(0), Some(1), Some(0)]);
    assert_eq!(table.intern(8, b"not a key"), None);
}

#[test]
fn a_save_writes_new_keys_and_keeps_the_number_of_files_small() {
    let mut table = KeyTable::default();
    let mut files = MemoryFiles::default();
    for n in 0..400u32 {
        let bytes = key(0, &[Some(n)]);
        table.intern(key_hash(&bytes), &bytes);
        let saved = table.save_plan().write(&mut files).expect("saves");
        table.mark_saved(&saved);
        assert!(saved.chunks.len() <= 2 * 8, "{} chunks", saved.chunks.len());
    }
    let before = files.0.len();
    let saved = table.save_plan().write(&mut files).expect("saves");
    assert_eq!((files.0.len(), saved.files().count()), (before, saved.chunks.len()), "nothing is new");
}
