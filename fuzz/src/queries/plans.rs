//! A plan reads every moment of its range once, in the step it belongs to, at grains whose windows meet there.

use tallymesh_protocol::limits::POINTS_PER_GROUP_MAX;
use tallymesh_protocol::question::plan::QueryPlan;
use tallymesh_protocol::question::query::PreparedQuery;

/// Days, hours and minutes at either edge of a step.
const SLICES_A_STEP_MAX: usize = 5;

pub(super) fn check(prepared: &PreparedQuery) {
    check_plan(&prepared.current.plan);
    if prepared.query.after.is_none() {
        assert!(
            prepared.current.plan.range.from_ms <= prepared.query.range.from_ms
                && prepared.query.range.to_ms <= prepared.current.plan.range.to_ms + 60_000
        );
    }
    if let Some(earlier) = &prepared.earlier {
        check_plan(&earlier.plan);
    }
}

fn check_plan(plan: &QueryPlan) {
    let (starts, slices, range) = (&plan.starts, &plan.scan.slices, plan.range);
    assert!(range.from_ms < range.to_ms, "{range:?}");
    assert_eq!(plan.scan.buckets as usize, starts.len());
    assert!((1..=POINTS_PER_GROUP_MAX + 2_000).contains(&starts.len()), "{} steps", starts.len());
    assert!(slices.len() <= SLICES_A_STEP_MAX * starts.len());
    assert!(starts.is_sorted_by(|a, b| a < b), "steps in order");
    assert!(
        starts[0] <= range.from_ms && starts.iter().skip(1).all(|s| (range.from_ms..range.to_ms).contains(s)),
        "steps within the range"
    );
    let mut at = None;
    for slice in slices {
        let grain_ms = slice.grain.ms();
        assert!(slice.from_ms < slice.to_ms, "{slice:?}");
        assert!(
            slice.from_ms.rem_euclid(grain_ms) == 0 && slice.to_ms.rem_euclid(grain_ms) == 0 || grain_ms == 60_000,
            "{slice:?} lies between windows"
        );
        assert!(at.is_none_or(|end| end == slice.from_ms), "{slice:?} does not follow {at:?}");
        at = Some(slice.to_ms);
        let bucket = slice.bucket as usize;
        assert!(
            starts[bucket] <= slice.from_ms && starts.get(bucket + 1).is_none_or(|next| slice.to_ms <= *next),
            "{slice:?} is in another step"
        );
        assert!(slice.grain <= plan.grain);
    }
    if let (Some(first), Some(last)) = (slices.first(), slices.last()) {
        assert_eq!((first.from_ms, last.to_ms), (range.from_ms, range.to_ms), "the slices are the range");
    }
    assert!(!slices.is_empty());
}
