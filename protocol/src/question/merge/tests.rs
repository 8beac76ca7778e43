use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::aggregate::{DISTINCT_TWO_STANDARD_ERRORS, QUANTILE_RELATIVE_ERROR, Wants};
use crate::question::answer::{Row, StepCounts};
use crate::question::query::{Aggregate, Fill, Order};
use crate::time::rfc3339;

const ALL: Wants = Wants { values: true, last: true, users: true, sessions: true, quantiles: true };

fn aggregates() -> Vec<Aggregate> {
    use Aggregate::{Avg, Count, Last, Max, Min, Quantile, Sessions, Sum, Users};
    vec![Count, Sum, Min, Max, Avg, Last, Users, Sessions, Quantile { q: 0.5, label: "p50".to_owned() }]
}

/// One event, where it lands and which shard has it.
#[derive(Clone, Debug)]
struct Sample {
    shard: usize,
    bucket: u32,
    group: Option<u8>,
    user: u64,
    time_ms: i64,
    value: Option<i16>,
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let sample = (0..4usize, 0..4u32, prop::option::of(0..5u8), 0..20u64, 0..50i64, prop::option::of(-9..9i16))
        .prop_map(|(shard, bucket, group, user, time_ms, value)| Sample { shard, bucket, group, user, time_ms, value });
    prop::collection::vec(sample, 0..120)
}

/// An event with its id.
type Numbered<'a> = (usize, &'a Sample);
type Place = (u32, Option<u8>);

fn group_key(group: Option<u8>) -> GroupKey {
    vec![group.map(|g| format!("g{g}"))]
}

/// As four shards would answer; ids are positions, so that `last` has no ties.
fn shard_answers(samples: &[Sample]) -> Vec<PartialAnswer> {
    let mut answers = vec![PartialAnswer::default(); 4];
    for (id, sample) in samples.iter().enumerate() {
        let answer = &mut answers[sample.shard];
        let key = group_key(sample.group);
        let group = answer.groups.iter().position(|g| *g == key).unwrap_or_else(|| {
            answer.groups.push(key);
            answer.groups.len() - 1
        }) as u32;
        let at = answer.cells.iter().position(|c| c.group == group && c.bucket == sample.bucket).unwrap_or_else(|| {
            answer.cells.push(Cell { group, bucket: sample.bucket, values: Accumulator::default() });
            answer.cells.len() - 1
        });
        let value = sample.value.map(f64::from);
        answer.cells[at].values.add(ALL, sample.time_ms, id as u64, sample.user, sample.user / 2, value);
    }
    answers
}

fn merged(samples: &[Sample]) -> Merged {
    let mut merger = Merger::new(1_000);
    shard_answers(samples).into_iter().for_each(|a| merger.push(a).expect("few cells"));
    merger.finish(None).expect("few cells")
}

const STARTS: [i64; 4] = [0, 60_000, 120_000, 180_000];

fn layout<'a>(aggregates: &'a [Aggregate], names: &'a [String], order: Order, limit: usize) -> Layout<'a> {
    Layout {
        aggregates,
        group_names: names,
        starts: Some(&STARTS),
        step_ms: 60_000,
        order,
        limit,
        after: None,
        fill: Fill::None,
        complete: true,
        now_ms: i64::MAX,
        earlier_starts: &[-600_000, -540_000],
    }
}

fn rows(samples: &[Sample], order: Order, limit: usize) -> Vec<Row> {
    lay_out(&layout(&aggregates(), &["g".to_owned()], order, limit), &merged(samples), None).expect("small").rows
}

/// (bucket, group) -> values, from the plain list of samples.
fn oracle(samples: &[Sample]) -> BTreeMap<(String, Option<String>), BTreeMap<String, Option<f64>>> {
    let mut cells: BTreeMap<Place, Vec<Numbered<'_>>> = BTreeMap::new();
    for (id, sample) in samples.iter().enumerate() {
        cells.entry((sample.bucket, sample.group)).or_default().push((id, sample));
    }
    let answer = |((bucket, group), events): (Place, Vec<Numbered<'_>>)| {
        let mut values: Vec<f64> = events.iter().filter_map(|(_, s)| s.value.map(f64::from)).collect();
        values.sort_by(f64::total_cmp);
        let users: BTreeSet<u64> = events.iter().map(|(_, s)| s.user).filter(|u| *u != 0).collect();
        let sessions: BTreeSet<u64> = events.iter().map(|(_, s)| s.user / 2).filter(|u| *u != 0).collect();
        let last = events.iter().filter(|(_, s)| s.value.is_some()).max_by_key(|(id, s)| (s.time_ms, *id)).and_then(|(_, s)| s.value);
        let sum: f64 = values.iter().sum();
        let has = !values.is_empty();
        let row = [
            ("count", Some(events.len() as f64)),
            ("sum", has.then_some(sum)),
            ("min", values.first().copied()),
            ("max", values.last().copied()),
            ("avg", has.then(|| sum / values.len() as f64)),
            ("last", last.map(f64::from)),
            ("users", Some(users.len() as f64)),
            ("sessions", Some(sessions.len() as f64)),
            ("p50", has.then(|| values[(values.len() - 1) / 2])),
        ];
        let key = (crate::time::rfc3339(STARTS[bucket as usize]), group.map(|g| format!("g{g}")));
        (key, row.into_iter().map(|(label, value)| (label.to_owned(), value)).collect())
    };
    cells.into_iter().map(answer).collect()
}

fn key(row: &Row) -> (String, Option<String>) {
    (row.time.clone().expect("stepped"), row.group.as_ref().expect("grouped")["g"].clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn merged_shards_answer_as_one_list_of_events_would(samples in samples()) {
        let expected = oracle(&samples);
        let got = rows(&samples, Order::Time, 1_000);
        prop_assert_eq!(got.len(), expected.len());
        for row in &got {
            for (label, value) in &expected[&key(row)] {
                let (got, want) = (row.values[label], *value);
                let near = match (got, want) {
                    (Some(got), Some(want)) if label == "p50" => (got - want).abs() <= want.abs() * QUANTILE_RELATIVE_ERROR + 1e-9,
                    (got, want) => got == want,
                };
                prop_assert!(near, "{label} of {:?}: {got:?}, not {want:?}", key(row));
            }
        }
        let keys: Vec<_> = got.iter().map(key).collect();
        let mut sorted = keys.clone();
        sorted.sort_by(|a, b| a.0.cmp(&b.0).then((a.1.is_none(), &a.1).cmp(&(b.1.is_none(), &b.1))));
        prop_assert_eq!(keys, sorted, "time, then group, null last");
    }

    #[test]
    fn pages_put_together_are_the_whole_answer(samples in samples(), limit in 1..7usize, first in 0..9usize) {
        let mut wanted = aggregates();
        wanted.rotate_left(first);
        let names = ["g".to_owned()];
        let merged = merged(&samples);
        for order in [Order::Time, Order::TimeDescending, Order::Value, Order::ValueDescending] {
            let whole = lay_out(&layout(&wanted, &names, order, 1_000), &merged, None).expect("small");
            prop_assert_eq!(whole.next, None);
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let mut page = layout(&wanted, &names, order, limit);
                page.after = after.as_ref();
                let page = lay_out(&page, &merged, None).expect("small");
                prop_assert!(page.rows.len() <= limit);
                paged.extend(page.rows);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            prop_assert_eq!(&paged, &whole.rows, "{:?}", order);
        }
    }
}

fn sample(bucket: u32, group: Option<u8>, value: Option<i16>) -> Sample {
    Sample { shard: bucket as usize, bucket, group, user: 1, time_ms: 0, value }
}

#[test]
fn ordering_by_value_puts_null_last_and_breaks_ties_by_group() {
    let samples = [
        sample(0, None, Some(5)),
        sample(0, Some(1), None),
        sample(0, Some(2), Some(5)),
        sample(0, Some(3), Some(7)),
        sample(0, Some(4), Some(-1)),
    ];
    let by_sum = |order| -> Vec<String> {
        let names = ["g".to_owned()];
        let page = lay_out(&layout(&[Aggregate::Sum], &names, order, 10), &merged(&samples), None).expect("small");
        page.rows.iter().map(|r| key(r).1.unwrap_or_default()).collect()
    };
    assert_eq!(by_sum(Order::Value), ["g4", "g2", "", "g3", "g1"]);
    assert_eq!(by_sum(Order::ValueDescending), ["g3", "g2", "", "g4", "g1"]);
}

#[test]
fn filled_steps_are_zero_only_where_that_is_known() {
    let merged = merged(&[sample(1, Some(1), Some(3)), sample(3, Some(2), None)]);
    let names = ["g".to_owned()];
    let wanted = [Aggregate::Count, Aggregate::Sum, Aggregate::Max];
    let values = |fill, complete, now_ms| -> Vec<[Option<f64>; 3]> {
        let layout = Layout { fill, complete, now_ms, ..layout(&wanted, &names, Order::Time, 10) };
        let page = lay_out(&layout, &merged, None).expect("small");
        page.rows.iter().map(|r| ["count", "sum", "max"].map(|l| r.values[l])).collect()
    };
    let (zero, null) = ([Some(0.0), Some(0.0), None], [None; 3]);
    let (first, last) = ([Some(1.0), Some(3.0), Some(3.0)], [Some(1.0), None, None]);
    assert_eq!(values(Fill::Zero, true, i64::MAX), [zero, zero, first, zero, zero, zero, zero, last]);
    assert_eq!(values(Fill::Null, true, i64::MAX), [null, null, first, null, null, null, null, last]);
    assert_eq!(values(Fill::Zero, false, i64::MAX), [null, null, first, null, null, null, null, last], "shards are missing");
    assert_eq!(values(Fill::Zero, true, 70_000), [zero, zero, first, zero, null, null, null, last], "the third minute has not begun");
    assert_eq!(values(Fill::None, true, i64::MAX), [first, last]);
}

#[test]
fn a_comparison_joins_both_ways() {
    let names = ["g".to_owned()];
    let layout = layout(&[Aggregate::Count], &names, Order::Time, 10);
    let current = merged(&[sample(0, Some(1), None), sample(1, Some(1), None)]);
    let earlier = merged(&[sample(0, Some(0), None), sample(1, Some(1), None), sample(1, Some(1), None)]);
    let page = lay_out(&layout, &current, Some(&earlier)).expect("small");
    let shown: Vec<_> = page
        .rows
        .iter()
        .map(|r| {
            let compared = r.compare.as_ref().expect("compared");
            (key(r).1.unwrap_or_default(), r.values["count"], compared.values["count"], compared.time.clone().unwrap_or_default())
        })
        .collect();
    let expected =
        [("g0", 0.0, 1.0, "1969-12-31T23:50:00Z"), ("g1", 1.0, 0.0, "1969-12-31T23:50:00Z"), ("g1", 1.0, 2.0, "1969-12-31T23:51:00Z")];
    assert_eq!(shown, expected.map(|(g, now, then, time)| (g.to_owned(), Some(now), Some(then), time.to_owned())));
}

#[test]
fn steps_that_only_the_earlier_range_has_each_have_a_time_and_a_page() {
    let names = ["g".to_owned()];
    let samples: Vec<Sample> = (0..4).flat_map(|bucket| [1, 2].map(|g| sample(bucket, Some(g), None))).collect();
    let (current, earlier) = (merged(&samples[..2]), merged(&samples));
    let wanted = [Aggregate::Count];
    let starts = |n: usize| &[-600_000, -540_000, -480_000, -420_000][..n];
    for order in [Order::Time, Order::TimeDescending, Order::Value, Order::ValueDescending] {
        let base = Layout { starts: Some(&STARTS[..1]), earlier_starts: starts(4), ..layout(&wanted, &names, order, 100) };
        let whole = lay_out(&base, &current, Some(&earlier)).expect("small").rows;
        let mut pages = Vec::new();
        let mut after = None;
        for _ in 0..whole.len() {
            let page = lay_out(&Layout { limit: 3, after: after.as_ref(), ..base }, &current, Some(&earlier)).expect("small");
            pages.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(pages, whole, "{order:?}");
        let mut times: Vec<_> = whole.iter().map(|r| (r.time.clone(), r.compare.as_ref().and_then(|c| c.time.clone()))).collect();
        times.sort();
        times.dedup();
        let expected = [0, 60_000, 120_000, 180_000].map(rfc3339).into_iter().map(Some).zip(starts(4).iter().map(|s| Some(rfc3339(*s))));
        assert_eq!(times, expected.collect::<Vec<_>>());
    }
}

#[test]
fn groups_without_events_in_the_range_are_not_filled() {
    let mut merger = Merger::new(10);
    let groups = [Some(1), Some(2), None].map(group_key).to_vec();
    let cells = vec![Cell { group: 1, bucket: 0, values: Accumulator { count: 1, ..Accumulator::default() } }];
    merger.push(PartialAnswer { groups, cells, ..PartialAnswer::default() }).expect("one cell");
    let (wanted, names) = ([Aggregate::Count], ["g".to_owned()]);
    let layout = Layout { fill: Fill::Zero, ..layout(&wanted, &names, Order::Time, 100) };
    let rows = lay_out(&layout, &merger.finish(None).expect("few cells"), None).expect("small").rows;
    assert_eq!(rows.iter().map(|r| key(r).1).collect::<Vec<_>>(), vec![Some("g2".to_owned()); STARTS.len()]);
}

#[test]
fn a_sum_beyond_a_double_is_null_and_last_in_order() {
    let cell = |group, values: &[f64]| {
        let mut cell = Cell { group, bucket: 0, values: Accumulator::default() };
        values.iter().for_each(|v| cell.values.add(ALL, 0, 0, 0, 0, Some(*v)));
        cell
    };
    let mut merger = Merger::new(10);
    let groups = [Some(1), Some(2), Some(3)].map(group_key).to_vec();
    let cells = vec![cell(0, &[f64::MAX, f64::MAX]), cell(1, &[f64::MIN, f64::MIN]), cell(2, &[7.0])];
    merger.push(PartialAnswer { groups, cells, ..PartialAnswer::default() }).expect("three cells");
    let merged = merger.finish(None).expect("few cells");
    for order in [Order::Value, Order::ValueDescending] {
        let rows = lay_out(&layout(&[Aggregate::Sum, Aggregate::Avg, Aggregate::Max], &["g".to_owned()], order, 10), &merged, None)
            .expect("small")
            .rows;
        let sums: Vec<_> = rows.iter().map(|r| (r.values["sum"], r.values["avg"])).collect();
        assert_eq!(sums, [(Some(7.0), Some(7.0)), (None, None), (None, None)], "{order:?}");
        assert_eq!(rows[1].values["max"], Some(f64::MAX));
    }
}

#[test]
fn steps_that_only_the_earlier_range_has_come_once_over_all_pages() {
    let names = ["g".to_owned()];
    let current = merged(&[sample(0, Some(1), None)]);
    let earlier: Vec<Sample> = (0..8).flat_map(|bucket| [1, 2].map(|group| Sample { bucket, ..sample(0, Some(group), None) })).collect();
    let earlier = merged(&earlier);
    for starts in [&STARTS[..], &STARTS[..1]] {
        for order in [Order::Time, Order::TimeDescending, Order::Value, Order::ValueDescending] {
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let all = layout(&[Aggregate::Count], &names, order, 3);
                let layout = Layout { starts: Some(starts), after: after.as_ref(), ..all };
                let page = lay_out(&layout, &current, Some(&earlier)).expect("small");
                pages.extend(page.rows.iter().map(key));
                after = page.next;
                if after.is_none() || pages.len() > 16 {
                    break;
                }
            }
            let whole = Layout { starts: Some(starts), ..layout(&[Aggregate::Count], &names, order, 100) };
            let whole = lay_out(&whole, &current, Some(&earlier)).expect("small");
            assert_eq!(pages, whole.rows.iter().map(key).collect::<Vec<_>>(), "{order:?}");
            assert_eq!(pages.iter().collect::<BTreeSet<_>>().len(), 16, "each step and group once");
            assert_eq!(pages.iter().map(|(time, _)| time.as_str()).max(), Some("1970-01-01T00:07:00Z"));
        }
    }
}

#[test]
fn the_stated_error_is_that_of_the_roughest_cell() {
    let mut merger = Merger::new(10);
    let exact = merged(&[sample(0, Some(1), None)]);
    let page = |merged: &Merged| lay_out(&layout(&aggregates(), &["g".to_owned()], Order::Time, 1), merged, None).expect("small").error;
    let labels = ["p50", "sessions", "users"].map(str::to_owned);
    assert_eq!(page(&exact).into_iter().collect::<Vec<_>>(), labels.clone().into_iter().zip([0.01, 0.0, 0.0]).collect::<Vec<_>>());
    let mut rough = Accumulator { count: 1, ..Accumulator::default() };
    rough.users.merge_sketch(&crate::aggregate::sketch_of(1..5_000).serialize());
    let cells = vec![
        Cell { group: 0, bucket: 0, values: Accumulator { count: 1, ..Accumulator::default() } },
        Cell { group: 0, bucket: 1, values: rough },
    ];
    merger.push(PartialAnswer { groups: vec![group_key(None)], cells, ..PartialAnswer::default() }).expect("two cells");
    assert_eq!(page(&merger.finish(None).expect("few cells"))["users"], DISTINCT_TWO_STANDARD_ERRORS);
}

/// Users `from` to `to`, as a shard would have them: a list that others hold too, or the sketch of one.
fn users(from: u64, to: u64, is_sketch: bool) -> Distinct {
    let hashes = (from..to).map(|user| crate::hash::identity_hash(format!("u_{user}").as_bytes()));
    let mut users = Distinct::default();
    if is_sketch {
        users.merge_sketch(&crate::aggregate::sketch_of(hashes).serialize());
        return users;
    }
    hashes.for_each(|hash| users.insert(hash));
    Distinct::shared(std::sync::Arc::new(crate::aggregate::IdentitySet::of(users)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Sizes around where sets stop being exact, parts that overlap, and some sketches.
    #[test]
    fn what_leads_is_the_same_whether_the_others_are_told_exactly_or_not(
        groups in prop::collection::vec(prop::collection::vec((0..20_000u64, 0..17_000u64, prop::bool::weighted(0.1)), 1..4), 1..9),
        limit in 1..6usize,
    ) {
        let mut mergers = [Merger::new(1_000), Merger::new(1_000)];
        for (nth, parts) in groups.iter().enumerate() {
            for &(from, length, is_sketch) in parts {
                let values = Accumulator { count: 1, users: users(from, from + length, is_sketch), ..Accumulator::default() };
                let cells = vec![Cell { group: 0, bucket: 0, values }];
                for merger in &mut mergers {
                    merger.push(PartialAnswer { groups: vec![group_key(Some(nth as u8))], cells: cells.clone(), ..PartialAnswer::default() }).expect("one cell");
                }
            }
        }
        let [whole, leading] = mergers;
        let leading = leading.finish(Some(Leading { sets: |values| &mut values.users, cells: limit })).expect("few cells");
        let names = ["g".to_owned()];
        let page = |merged| lay_out(&layout(&[Aggregate::Users], &names, Order::ValueDescending, limit), merged, None).expect("small");
        prop_assert_eq!(page(&leading), page(&whole.finish(None).expect("few cells")));
    }
}

#[test]
fn sets_that_cannot_lead_are_left_out() {
    let mut merger = Merger::new(10);
    for (group, size) in [(1, 400), (2, 30), (3, 500), (4, 20)] {
        let values = Accumulator { count: 7, users: users(0, size, false), ..Accumulator::default() };
        let cells = vec![Cell { group: 0, bucket: 0, values }];
        merger.push(PartialAnswer { groups: vec![group_key(Some(group))], cells, ..PartialAnswer::default() }).expect("one cell");
    }
    let merged = merger.finish(Some(Leading { sets: |values| &mut values.users, cells: 2 })).expect("few cells");
    let left: Vec<_> = merged.cells.iter().map(|cell| (cell.values.users.estimate(), cell.values.count)).collect();
    assert_eq!(left, [(400.0, 7), (0.0, 7), (500.0, 7), (0.0, 7)]);
}

#[test]
fn too_many_cells_are_refused_whole() {
    let mut merger = Merger::new(2);
    let samples = [sample(0, Some(1), None), sample(1, Some(1), None), sample(2, Some(1), None)];
    let results: Vec<_> = shard_answers(&samples).into_iter().map(|a| merger.push(a)).collect();
    assert!(results[0].is_ok() && results[1].is_ok());
    let problem = results[2].clone().expect_err("third cell");
    assert_eq!((problem.code, problem.limit), (ErrorCode::TooManyCells, Some(2)));
}

#[test]
fn the_watermark_is_that_of_the_shard_furthest_behind() {
    let watermark = |marks: &[(i64, u64)]| {
        let mut merger = Merger::new(1);
        for &(watermark_ms, applied_index) in marks {
            merger.push(PartialAnswer { watermark_ms, applied_index, ..PartialAnswer::default() }).expect("no cells");
        }
        merger.finish(None).expect("few cells").watermark_ms
    };
    assert_eq!(watermark(&[(50, 3), (20, 9), (-(1 << 53), 1), (i64::MIN, 1)]), Some(20));
    assert_eq!(watermark(&[(0, 0), (i64::MIN, 1)]), None, "nothing was ever written");
}

proptest! {
    #[test]
    fn counts_are_cells_that_say_nothing_else(shards in prop::collection::vec(
        prop::collection::vec((prop::option::of(0..4u8), 0..6u32, 0..3u64), 0..12), 1..5)
    ) {
        let mut listed = Merger::new(1_000);
        let mut counted = Merger::new(1_000);
        let mut mixed = Merger::new(1_000);
        for (nth, shard) in shards.iter().enumerate() {
            let groups: Vec<GroupKey> = [Some(0), Some(1), Some(2), Some(3), None].map(group_key).to_vec();
            let mut counts = StepCounts { buckets: 6, counts: vec![0; 30] };
            for (group, bucket, count) in shard {
                counts.counts[usize::from(group.unwrap_or(4)) * 6 + *bucket as usize] += count;
            }
            let as_counts = PartialAnswer { groups, counts, ..PartialAnswer::default() };
            let as_cells = as_counts.clone().with_cells_only();
            prop_assert!(as_cells.counts == StepCounts::default() && as_cells.cells.iter().all(|cell| cell.values.count > 0));
            mixed.push(if nth % 2 == 0 { as_counts.clone() } else { as_cells.clone() }).expect("few cells");
            listed.push(as_cells).expect("few cells");
            counted.push(as_counts).expect("few cells");
        }
        let listed = listed.finish(None).expect("few cells");
        prop_assert_eq!(&counted.finish(None).expect("few cells"), &listed);
        prop_assert_eq!(&mixed.finish(None).expect("few cells"), &listed);
    }
}

#[test]
fn too_many_counts_are_refused_as_cells_are() {
    let mut merger = Merger::new(3);
    let counts = StepCounts { buckets: 4, counts: vec![1; 4] };
    merger.push(PartialAnswer { groups: vec![group_key(None)], counts, ..PartialAnswer::default() }).expect("no cells yet");
    assert_eq!(merger.finish(None).expect_err("four cells").code, ErrorCode::TooManyCells);
}
