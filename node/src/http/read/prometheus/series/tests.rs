use tallymesh_protocol::aggregate::Wants;
use tallymesh_protocol::definition::{DefinitionSet, MetricDefinition};

use super::*;
use crate::http::read::prometheus::expression::{Plan, plan};

const MINUTE: i64 = MINUTE_MS;

fn leaf(text: &str) -> Leaf {
    let Plan { mut leaves, .. } = plan(text).expect(text);
    leaves.remove(0)
}

fn fetch(text: &str) -> Result<Asked, Failure> {
    resolve(&leaf(text), "page_view", &dimensions("page_view", &DefinitionSet::default()))
}

fn fetched(text: &str) -> Fetch {
    match fetch(text).expect(text) {
        Asked::Fetch(fetch) => fetch,
        Asked::Nothing(why) => panic!("{text}: {why}"),
    }
}

/// Names of what is grouped by, and the filters as queries write them.
fn shape(text: &str) -> (Vec<String>, Vec<String>) {
    let fetch = fetched(text);
    (fetch.group_by.into_iter().map(|d| d.name).collect(), fetch.filters.iter().map(ToString::to_string).collect())
}

#[test]
fn shards_are_asked_for_no_more_than_the_expression_looks_at() {
    let all = ["source", "device_type", "country_code"];
    for (text, group_by, filters) in [
        ("page_view", &all[..], &[][..]),
        ("sum(page_view)", &[], &[]),
        ("sum by (country_code, nothing) (rate(page_view{source=\"web\"}[5m]))", &["country_code"], &["source:web"]),
        ("sum(page_view{source=~\"web|api\",country_code!~\"(DE|US)\"})", &[], &["source:api|web", "!country_code:DE|US"]),
        ("sum(page_view{source=~\"web\\\\.de\"})", &[], &["source:web.de"]),
        ("sum(page_view{source=~\".*\"})", &[], &[]),
        ("sum(page_view{source=~\".+\"})", &[], &["!source:|"]),
        ("sum(page_view{source!=\"\",nothing=\"\"})", &[], &["!source:|"]),
        ("sum(page_view{source=~\"w.b\"})", &["source"], &[]),
        ("page_view{__by__=\"source\",country_code=\"DE\"}", &["source"], &["country_code:DE"]),
        ("page_view{__by__=\"\"}", &[], &[]),
    ] {
        assert_eq!(
            shape(text),
            (group_by.iter().map(|s| (*s).to_owned()).collect(), filters.iter().map(|s| (*s).to_owned()).collect()),
            "{text}"
        );
    }
    assert!(matches!(fetch("page_view{colour=\"red\"}"), Ok(Asked::Nothing(why)) if why.contains("no label `colour`")));
    assert!(fetch("page_view{__by__=\"colour\"}").expect_err("unknown").detail.contains("no label `colour`"));
}

#[test]
fn labels_are_names_that_prometheus_takes() {
    let definition = MetricDefinition {
        name: "m".to_owned(),
        event: vec!["e".to_owned()],
        dimensions: ["properties.feature", "a.b", "a-b", "1st", "country"].map(str::to_owned).to_vec(),
        value: "value".to_owned(),
        filter: Vec::new(),
        description: String::new(),
    };
    let set = DefinitionSet::compile(1, vec![definition]).expect("valid");
    let labels: Vec<String> = dimensions("m", &set).into_iter().map(|d| d.label).collect();
    assert_eq!(labels, ["feature", "a_b", "a_b_", "d_1st", "country"]);
    assert_eq!(dimensions("*", &set)[0].label, "event");
}

#[test]
fn ranges_end_with_the_last_full_minute() {
    let grid = Grid { times_ms: vec![10 * MINUTE, 10 * MINUTE + 59_999, 11 * MINUTE], step_ms: Some(59_999) };
    let shown = |text: &str, now_ms: i64| -> Vec<Option<(i64, i64)>> {
        let windows = windows(&leaf(text), &grid, now_ms);
        windows.into_iter().map(|w| w.map(|w| (w.from_ms / MINUTE, w.to_ms / MINUTE))).collect()
    };
    assert_eq!(shown("rate(a[5m])", i64::MAX), [Some((5, 10)), Some((5, 10)), Some((6, 11))]);
    assert_eq!(shown("a", i64::MAX), [Some((9, 10)), Some((9, 10)), Some((10, 11))], "the step, as whole minutes");
    assert_eq!(shown("a offset 2m", i64::MAX), [Some((7, 8)), Some((7, 8)), Some((8, 9))]);
    assert_eq!(shown("rate(a[61s])", 10 * MINUTE + 30_000), [Some((8, 10)), Some((8, 10)), None], "nothing is known of what is to come");
    let moment = Grid { times_ms: vec![10 * MINUTE], step_ms: None };
    assert_eq!(windows(&leaf("a"), &moment, i64::MAX), [Some(TimeRange { from_ms: 5 * MINUTE, to_ms: 10 * MINUTE })]);
}

/// (group, minute, values of its events); bucket = minute.
fn merged(groups: &[&[Option<&str>]], cells: &[(u32, u32, &[f64])]) -> Merged {
    let wants = Wants { values: true, users: true, quantiles: true, ..Wants::default() };
    let cell = |(group, bucket, values): &(u32, u32, &[f64])| {
        let mut all = Accumulator::default();
        for (at, value) in values.iter().enumerate() {
            // One user for each of the first two events.
            all.add(wants, 0, 0, 1 + at.min(1) as u64, 0, value.is_finite().then_some(*value));
        }
        Cell { group: *group, bucket: *bucket, values: all }
    };
    Merged {
        groups: groups.iter().map(|g| g.iter().map(|v| v.map(str::to_owned)).collect()).collect(),
        cells: cells.iter().map(cell).collect(),
        ..Merged::default()
    }
}

fn values(text: &str, merged: &Merged, times: &[i64], step: i64) -> Vec<(Vec<String>, Vec<Option<f64>>)> {
    let (leaf, fetch) = (leaf(text), fetched(text));
    let grid = Grid { times_ms: times.iter().map(|t| t * MINUTE).collect(), step_ms: Some(step * MINUTE) };
    let starts: Vec<i64> = (0..10).map(|i| i * MINUTE).collect();
    let found = series(&leaf, &fetch, merged, &starts, &windows(&leaf, &grid, i64::MAX), &mut 1_000).expect(text);
    found.into_iter().map(|s| (s.labels.into_values().collect(), s.values)).collect()
}

const NONE: f64 = f64::NAN;

#[test]
fn overlapping_ranges_are_counted_exactly() {
    let one = merged(&[&[]], &[(0, 1, &[1.0, 2.0]), (0, 2, &[NONE]), (0, 4, &[6.0, 8.0, 9.0])]);
    let only = |text: &str, times: &[i64]| values(text, &one, times, 1).remove(0).1;
    // Minutes 1, 2 and 4 have 2, 1 and 3 events.
    assert_eq!(only("sum(increase(page_view[3m]))", &[3, 4, 5, 6, 9]), [3.0, 3.0, 4.0, 3.0, 0.0].map(Some));
    assert_eq!(only("sum(rate(page_view[2m]))", &[3, 5]), [3.0 / 120.0, 3.0 / 120.0].map(Some));
    assert_eq!(only("sum(page_view)", &[2, 3, 4, 5]), [2.0, 1.0, 0.0, 3.0].map(Some));
    assert_eq!(only("sum(sum_over_time(page_view[3m]))", &[3, 5, 8]), [3.0, 23.0, 0.0].map(Some));
    let own = |agg: &str| only(&format!("increase(page_view{{__agg__=\"{agg}\",__by__=\"\"}}[4m])"), &[3, 5, 9]);
    assert_eq!(own("avg"), [Some(1.5), Some(26.0 / 5.0), None]);
    assert_eq!(own("min"), [Some(1.0), Some(1.0), None]);
    assert_eq!(own("max"), [Some(2.0), Some(9.0), None]);
    assert_eq!(own("users"), [Some(2.0), Some(2.0), Some(0.0)], "distinct over the whole range");
    let median = only("quantile_over_time(0.5, page_view{__by__=\"\"}[4m])", &[5])[0].expect("a value");
    assert!((median / 6.0 - 1.0).abs() < 0.01, "{median}");
}

#[test]
fn groups_become_series_and_conditions_choose_among_them() {
    let groups: [&[Option<&str>]; 3] = [&[Some("api")], &[Some("web")], &[None]];
    let cells: [(u32, u32, &[f64]); 4] = [(0, 1, &[NONE]), (1, 1, &[NONE, NONE]), (2, 1, &[NONE; 4]), (1, 2, &[NONE])];
    let merged = merged(&groups, &cells);
    let text = |labels: &[&str]| labels.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    let expected = [
        (text(&[]), vec![Some(4.0), Some(4.0)]),
        (text(&["api"]), vec![Some(1.0), Some(1.0)]),
        (text(&["web"]), vec![Some(2.0), Some(3.0)]),
    ];
    assert_eq!(values("sum by (source) (increase(page_view[5m]))", &merged, &[2, 3], 1), expected);
    let chosen = values("sum(increase(page_view{source=~\"[aw].*\"}[5m]))", &merged, &[2, 3], 1);
    assert_eq!(chosen, [(text(&[]), vec![Some(3.0), Some(4.0)])], "what was grouped by for the condition alone is put together again");
    let named = values("page_view{__by__=\"source\",source=\"web\"}", &merged, &[2], 1);
    assert!(named.iter().all(|(labels, _)| labels.contains(&"page_view".to_owned())), "{named:?}");
}

#[test]
fn limits_are_named() {
    let merged = merged(&[&[]], &[(0, 1, &[1.0])]);
    let grid = Grid { times_ms: vec![MINUTE; 11], step_ms: Some(MINUTE) };
    let leaf = leaf("sum(page_view)");
    let windows = windows(&leaf, &grid, i64::MAX);
    let failure = series(&leaf, &fetched("sum(page_view)"), &merged, &[0], &windows, &mut 10).expect_err("11 values");
    assert!(failure.status == 422 && failure.detail.contains("series x points"), "{failure:?}");
}
