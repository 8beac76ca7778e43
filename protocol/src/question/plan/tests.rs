use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS};

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().expect(text).as_millisecond()
}

fn range(from: &str, to: &str) -> TimeRange {
    TimeRange { from_ms: ms(from), to_ms: ms(to) }
}

fn zone(name: &str) -> Zone {
    Zone::parse(name).expect(name)
}

fn every(width: StepWidth, from: &str, to: &str, tz: &str) -> Result<QueryPlan, Problem> {
    plan(range(from, to), Step::Every(width), &zone(tz), Retention::default(), ms(to))
}

fn hours_of_steps(plan: &QueryPlan) -> Vec<f64> {
    let ends = plan.starts.iter().skip(1).copied().chain([plan.range.to_ms]);
    plan.starts.iter().zip(ends).map(|(s, e)| (e - s) as f64 / HOUR_MS as f64).collect()
}

#[test]
fn a_range_is_read_at_the_coarsest_grains_that_tile_it() {
    let plan =
        plan(range("2026-01-01T22:58:30Z", "2026-01-04T01:02:10Z"), Step::None, &Zone::utc(), Retention::default(), 0).expect("plans");
    assert_eq!(plan.range, range("2026-01-01T22:58:00Z", "2026-01-04T01:03:00Z"));
    let shown: Vec<_> = plan.scan.slices.iter().map(|s| (rfc3339(s.from_ms), s.grain)).collect();
    let expected = [
        ("2026-01-01T22:58:00Z", Grain::Minute),
        ("2026-01-01T23:00:00Z", Grain::Hour),
        ("2026-01-02T00:00:00Z", Grain::Day),
        ("2026-01-04T00:00:00Z", Grain::Hour),
        ("2026-01-04T01:00:00Z", Grain::Minute),
    ];
    assert_eq!(shown, expected.map(|(t, g)| (t.to_owned(), g)));
    assert_eq!((plan.grain, plan.scan.buckets, plan.reaches_expired), (Grain::Day, 1, false));
}

#[test]
fn days_are_23_and_25_hours_long_when_clocks_change() {
    let spring = every(StepWidth::Day, "2026-03-27T23:00:00Z", "2026-03-30T22:00:00Z", "Europe/Berlin").expect("plans");
    assert_eq!(hours_of_steps(&spring), [24.0, 23.0, 24.0]);
    let autumn = every(StepWidth::Day, "2026-10-23T22:00:00Z", "2026-10-26T23:00:00Z", "Europe/Berlin").expect("plans");
    assert_eq!(hours_of_steps(&autumn), [24.0, 25.0, 24.0]);
    // Midnight itself is skipped.
    let cairo = every(StepWidth::Day, "2026-04-22T22:00:00Z", "2026-04-25T21:00:00Z", "Africa/Cairo").expect("plans");
    assert_eq!(hours_of_steps(&cairo), [24.0, 23.0, 24.0]);
    // A whole day is skipped: 30 December 2011 never was in Samoa.
    let apia = every(StepWidth::Day, "2011-12-29T10:00:00Z", "2012-01-01T10:00:00Z", "Pacific/Apia").expect("plans");
    assert_eq!(hours_of_steps(&apia), [24.0, 24.0, 24.0]);
}

#[test]
fn hours_follow_the_local_clock() {
    let kathmandu = every(StepWidth::Hour, "2026-01-01T00:20:00Z", "2026-01-01T02:20:00Z", "Asia/Kathmandu").expect("plans");
    let starts: Vec<String> = kathmandu.starts.iter().map(|s| rfc3339(*s)).collect();
    assert_eq!(starts, ["2026-01-01T00:15:00Z", "2026-01-01T01:15:00Z", "2026-01-01T02:15:00Z"]);
    assert_eq!(kathmandu.grain, Grain::Minute);
    let repeated = every(StepWidth::Hour, "2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z", "Europe/Berlin").expect("plans");
    assert_eq!(hours_of_steps(&repeated), [1.0; 4], "the repeated hour is a step of its own");
    let half = every(StepWidth::Hour, "2026-04-04T14:00:00Z", "2026-04-04T17:30:00Z", "Australia/Lord_Howe").expect("plans");
    assert_eq!(hours_of_steps(&half), [1.0, 0.5, 1.0, 1.0], "a clock set back by half an hour");
}

#[test]
fn too_fine_a_step_is_refused_with_one_that_fits() {
    let problem = every(StepWidth::Minute, "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "UTC").expect_err("525 600 points");
    assert_eq!((problem.code, problem.suggested_step.as_deref()), (ErrorCode::TooManyPoints, Some("15m")));
    assert_eq!((problem.status, problem.limit), (422, Some(POINTS_PER_GROUP_MAX as u64)));
    let problem = every(StepWidth::Day, "0002-01-01T00:00:00Z", "9000-01-01T00:00:00Z", "UTC").expect_err("3 million days");
    assert_eq!((problem.code, problem.suggested_step), (ErrorCode::TooManyPoints, None));
}

#[test]
fn auto_stays_within_its_points() {
    for (hours, expected) in [
        (1, StepWidth::Minute),
        (5, StepWidth::Minute),
        (24, StepWidth::FiveMinutes),
        (72, StepWidth::QuarterHour),
        (24 * 7, StepWidth::Hour),
        (24 * 90, StepWidth::Day),
        (24 * 5000, StepWidth::Day),
    ] {
        let to_ms = ms("2026-01-01T00:00:00Z");
        let asked = TimeRange { from_ms: to_ms - hours * HOUR_MS, to_ms };
        let plan = plan(asked, Step::Auto, &Zone::utc(), Retention::default(), to_ms).expect("plans");
        assert_eq!(plan.step, Some(expected), "{hours} h");
    }
}

/// Minutes for a day, hours for 10 days, days for 100.
const SHORT: Retention = Retention { minute_ms: Some(DAY_MS as u64), hour_ms: Some(10 * DAY_MS as u64), day_ms: Some(100 * DAY_MS as u64) };

#[test]
fn ends_move_outwards_to_what_is_still_kept() {
    let now = ms("2026-01-20T12:30:00Z");
    let covered = |from, to| plan(range(from, to), Step::None, &Zone::utc(), SHORT, now).map(|p| (p.range, p.reaches_expired));
    for (from, to, expected) in [
        ("2026-01-20T01:02:03Z", "2026-01-20T12:30:01Z", range("2026-01-20T01:02:00Z", "2026-01-20T12:31:00Z")),
        ("2026-01-15T01:02:03Z", "2026-01-15T05:02:03Z", range("2026-01-15T01:00:00Z", "2026-01-15T06:00:00Z")),
        ("2026-01-01T01:02:03Z", "2026-01-02T05:02:03Z", range("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z")),
        ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", range("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")),
    ] {
        assert_eq!(covered(from, to), Ok((expected, false)), "{from}");
    }
    assert_eq!(covered("2025-01-01T00:00:00Z", "2026-01-02T00:00:00Z").map(|c| c.1), Ok(true), "older than anything kept");
    // A range as long as the retention itself is still to be had in full.
    let day = TimeRange { from_ms: now - DAY_MS, to_ms: now };
    assert!(plan(day, Step::Every(StepWidth::FiveMinutes), &Zone::utc(), SHORT, now).is_ok());
}

#[test]
fn a_step_that_kept_windows_cannot_give_is_refused() {
    let now = ms("2026-01-20T12:30:00Z");
    let ask = |from, to, step, tz| plan(range(from, to), step, &zone(tz), SHORT, now);
    let five = Step::Every(StepWidth::FiveMinutes);
    let problem = ask("2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z", five, "UTC").expect_err("minutes are gone");
    assert_eq!((problem.code, problem.suggested_step.as_deref()), (ErrorCode::GrainUnavailable, Some("1h")));
    let day = Step::Every(StepWidth::Day);
    assert!(ask("2026-01-14T18:15:00Z", "2026-01-16T18:15:00Z", day, "Asia/Kathmandu").is_err(), "hours of UTC do not give days of +05:45");
    assert!(ask("2026-01-14T18:00:00Z", "2026-01-16T18:00:00Z", day, "Europe/Berlin").is_ok());
    assert!(ask("2026-01-01T18:00:00Z", "2026-01-04T18:00:00Z", day, "Europe/Berlin").is_err(), "only days of UTC are left");
    let auto = ask("2026-01-15T00:00:00Z", "2026-01-15T12:00:00Z", Step::Auto, "UTC").expect("plans");
    assert_eq!(auto.step, Some(StepWidth::Hour), "auto takes what can be given");
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "America/Sao_Paulo",
];

/// What identifies a step, worked out from the local clock of one minute alone.
fn label(zone: &Zone, width: StepWidth, at_ms: i64) -> (jiff::civil::Date, i64, i32) {
    let at = Timestamp::from_millisecond(at_ms).expect("in range").to_zoned(zone.rules.clone());
    match width {
        StepWidth::Day => (at.date(), 0, 0),
        _ => {
            let of_day = i64::from(at.hour()) * HOUR_MS + i64::from(at.minute()) * MINUTE_MS;
            (at.date(), of_day / width.ms(), at.offset().seconds())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every minute of the covered range is in exactly one slice, and steps are what the local clock of each minute says.
    #[test]
    fn slices_cover_each_minute_once_and_in_the_step_of_its_local_time(
        tz in 0..ZONES.len(), width in 0..StepWidth::ALL.len(), start in 0i64..365 * 24 * 60 * 3, length in 1i64..4 * 24 * 60,
        from_s in 0i64..60, to_s in 0i64..60, kept_minutes in 0i64..8 * 24 * 60,
    ) {
        let (zone, width) = (zone(ZONES[tz]), StepWidth::ALL[width]);
        let from_ms = ms("2024-01-01T00:00:00Z") + start * MINUTE_MS + from_s * 1_000;
        let asked = TimeRange { from_ms, to_ms: from_ms + length * MINUTE_MS + to_s * 1_000 };
        let retention = Retention { minute_ms: Some((kept_minutes * MINUTE_MS) as u64), hour_ms: Some(9 * DAY_MS as u64), day_ms: None };
        let Ok(plan) = plan(asked, Step::Every(width), &zone, retention, asked.to_ms) else {
            return Ok(());
        };
        prop_assert!(plan.range.from_ms <= asked.from_ms && plan.range.to_ms >= asked.to_ms);
        let slack = plan.grain.ms();
        prop_assert!(asked.from_ms - plan.range.from_ms < slack && plan.range.to_ms - asked.to_ms < slack.max(HOUR_MS));
        let mut at = plan.range.from_ms;
        let mut bucket_of_label = std::collections::HashMap::new();
        for slice in &plan.scan.slices {
            prop_assert_eq!(slice.from_ms, at, "no gap, no overlap");
            prop_assert!(slice.to_ms > slice.from_ms);
            prop_assert_eq!(slice.grain.floor(slice.from_ms), slice.from_ms);
            prop_assert_eq!(slice.grain.floor(slice.to_ms), slice.to_ms);
            while at < slice.to_ms {
                let previous = bucket_of_label.insert(label(&zone, width, at), slice.bucket);
                prop_assert!(previous.is_none_or(|b| b == slice.bucket), "one step for one local time");
                prop_assert!(plan.starts[slice.bucket as usize] <= at);
                prop_assert_eq!(label(&zone, width, plan.starts[slice.bucket as usize]), label(&zone, width, at));
                at += MINUTE_MS;
            }
        }
        prop_assert_eq!(at, plan.range.to_ms);
        let used: std::collections::HashSet<u32> = bucket_of_label.values().copied().collect();
        prop_assert_eq!(used.len(), bucket_of_label.len(), "one local time for one step");
        prop_assert_eq!(used.len(), plan.starts.len(), "no step without time");
        prop_assert_eq!(plan.scan.buckets as usize, plan.starts.len());
    }
}

#[test]
fn windows_that_overlap_are_runs_of_whole_buckets() {
    let windows: Vec<TimeRange> = (0..40).map(|i| TimeRange { from_ms: i * 7 * MINUTE_MS, to_ms: (i * 7 + 25) * MINUTE_MS }).collect();
    let apart = TimeRange { from_ms: DAY_MS, to_ms: DAY_MS + HOUR_MS };
    let plan = plan_windows(&[&windows[..], &[apart]].concat(), Retention::default(), DAY_MS).expect("plans");
    assert!(plan.scan.slices.windows(2).all(|s| s[0].to_ms <= s[1].from_ms), "disjoint and in order");
    assert_eq!(plan.scan.buckets as usize, plan.starts.len());
    for window in windows.iter().chain([&apart]) {
        let (first, end) = (plan.starts.partition_point(|s| *s < window.from_ms), plan.starts.partition_point(|s| *s < window.to_ms));
        let inside = |bucket: u32| (first as u32..end as u32).contains(&bucket);
        let read: i64 = plan.scan.slices.iter().filter(|s| inside(s.bucket)).map(|s| s.to_ms - s.from_ms).sum();
        assert_eq!(read, window.length_ms(), "{window:?}");
        assert!(plan.scan.slices.iter().filter(|s| inside(s.bucket)).all(|s| window.from_ms <= s.from_ms && s.to_ms <= window.to_ms));
    }
    let covered: i64 = plan.scan.slices.iter().map(|s| s.to_ms - s.from_ms).sum();
    assert_eq!(covered, (39 * 7 + 25) * MINUTE_MS + HOUR_MS, "nothing between them is read");
}

#[test]
fn a_window_that_cuts_a_kept_one_is_refused() {
    let retention = Retention { minute_ms: Some(DAY_MS as u64), ..Retention::default() };
    let now_ms = 10 * DAY_MS;
    let old = |from_ms: i64| plan_windows(&[TimeRange { from_ms, to_ms: from_ms + HOUR_MS }], retention, now_ms);
    assert!(old(5 * DAY_MS).is_ok());
    assert_eq!(old(5 * DAY_MS + MINUTE_MS).expect_err("half an hour").code, ErrorCode::GrainUnavailable);
}
