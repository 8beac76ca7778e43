//! What nodes send each other for a query: refused, or read within bounds of memory, of use to a merge, and the same when it is sent on.

use tallymesh_protocol::hash::ShardId;
use tallymesh_protocol::limits::ANSWER_CELLS_MAX;
use tallymesh_protocol::question::merge::{Merged, Merger};
use tallymesh_protocol::question::wire::{ShardResult, decode_answers, decode_query, encode_answers, encode_query};

use crate::input::Input;
use crate::memory::peak_of;

/// Memory of reading, beside a share for each byte.
const MEMORY_BYTES_MAX: usize = 64 << 10;
const MEMORY_FACTOR_MAX: usize = 16;
/// Where the stated length of the body is.
const LENGTH_AT: usize = 8;
const HEADER_BYTES: usize = 16;

/// First byte: bit 0 moved out of its alignment, bit 1 the stated length is left as it is; the rest is the bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let start = usize::from(options & 1);
    let mut bytes = vec![0; start];
    bytes.extend_from_slice(input.rest());
    let length = bytes.len().saturating_sub(start + HEADER_BYTES) as u32;
    // Nearly every mutation changes the length, and would be refused for that alone.
    if options & 2 == 0
        && let Some(stated) = bytes.get_mut(start + LENGTH_AT..start + LENGTH_AT + 4)
    {
        stated.copy_from_slice(&length.to_le_bytes());
    }
    let bytes = &bytes[start..];
    query(bytes);
    answers(bytes);
}

fn bounded<T>(bytes: &[u8], read: impl FnOnce(&[u8]) -> T) -> T {
    let (read, peak) = peak_of(|| read(bytes));
    assert!(peak <= MEMORY_BYTES_MAX + MEMORY_FACTOR_MAX * bytes.len(), "{peak} bytes of memory for {}", bytes.len());
    read
}

fn query(bytes: &[u8]) {
    let Ok(query) = bounded(bytes, decode_query) else { return };
    assert!(query.plan.slices.iter().all(|s| s.from_ms < s.to_ms && s.bucket < query.plan.buckets));
    let again = encode_query(&query).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(decode_query(&again), Ok(query));
}

fn answers(bytes: &[u8]) {
    let Ok(answers) = bounded(bytes, decode_answers) else { return };
    let sent_on = encode_answers(&answers).unwrap_or_else(|e| panic!("{e}"));
    let again = decode_answers(&sent_on).unwrap_or_else(|e| panic!("{e}"));
    let (one, other) = (merged(&answers), merged(&again));
    assert_eq!(one.groups, other.groups);
    // By what they print, as a sum may be no number.
    assert_eq!(format!("{:?}", one.cells), format!("{:?}", other.cells));
    let problems = |answers: &[(ShardId, ShardResult)]| -> Vec<_> {
        answers.iter().map(|(shard, result)| (*shard, result.as_ref().err().cloned())).collect()
    };
    assert_eq!(problems(&answers), problems(&again));
}

/// Each shard twice, so that everything meets something of its kind.
fn merged(answers: &[(ShardId, ShardResult)]) -> Merged {
    let mut merger = Merger::new(ANSWER_CELLS_MAX);
    for answer in answers.iter().chain(answers).filter_map(|a| a.1.as_ref().ok()) {
        merger.push(answer.clone()).unwrap_or_else(|e| panic!("{e}"));
    }
    let merged = merger.finish(None).expect("few cells");
    for cell in &merged.cells {
        let quantile = cell.values.quantiles.quantile(0.5);
        assert!(quantile.is_none_or(f64::is_finite) && cell.values.users.estimate().is_finite());
    }
    merged
}

#[cfg(test)]
mod tests {
    use tallymesh_protocol::aggregate::Accumulator;
    use tallymesh_protocol::question::answer::{Cell, PartialAnswer};

    use super::*;

    /// What grows most by being read, in amounts beside which the allowance of [`bounded`] is nothing.
    #[test]
    fn what_is_read_takes_a_small_multiple_of_its_bytes() {
        let cells = |count: u32, change: &dyn Fn(u32, &mut Accumulator)| {
            let cell = |i| {
                let mut values = Accumulator { count: 1, ..Accumulator::default() };
                change(i, &mut values);
                Cell { group: 0, bucket: i % 1_000, values }
            };
            PartialAnswer { groups: vec![Vec::new()], cells: (0..count).map(cell).collect(), ..PartialAnswer::default() }
        };
        let bins =
            |bins: i32, apart: i32| move |_, values: &mut Accumulator| (0..bins).for_each(|bin| values.quantiles.add(bin * apart, 1));
        let sketch = |_, values: &mut Accumulator| values.users.merge_sketch(&[0; 8]);
        let groups = vec![vec![Some("é".to_owned()); 8]; 50_000];
        let answers = [
            ("counts", cells(200_000, &|_, _| {})),
            ("one user", cells(100_000, &|i, values| values.users.insert(u64::from(i)))),
            ("32 bins", cells(10_000, &bins(32, 1))),
            ("33 bins close by", cells(10_000, &bins(33, 4))),
            ("33 bins far apart", cells(10_000, &bins(33, 31))),
            ("empty sketches", cells(1_000, &sketch)),
            ("groups", PartialAnswer { groups, ..PartialAnswer::default() }),
            ("groups of no dimension", PartialAnswer { groups: vec![Vec::new(); 500_000], ..PartialAnswer::default() }),
        ];
        for (what, answer) in answers {
            let bytes = encode_answers(&[(ShardId(0), Ok(answer))]).expect("within limits");
            let (read, peak) = peak_of(|| decode_answers(&bytes));
            assert!(read.is_ok());
            println!("{what}: {} bytes, {:.1} times as much memory", bytes.len(), peak as f64 / bytes.len() as f64);
            assert!(peak <= MEMORY_FACTOR_MAX * bytes.len(), "{what}");
        }
    }
}
