use serde_json::json;

use super::*;
use crate::aggregate::Accumulator;
use crate::question::answer::{Cell, OtherEvents, Rows, StepCounts};
use crate::question::query::QueryParams;

const NOW: i64 = 1_767_268_800_000; // 2026-01-01T12:00:00Z

fn prepare(pairs: &[(&str, &str)]) -> Result<PreparedQuery, Problem> {
    let has = |name| pairs.iter().any(|(n, _)| *n == name);
    let defaults = [("metric", "page_view"), ("range", "24h")].into_iter().filter(|(n, _)| !has(*n) && !has("from"));
    let metric = has("from").then_some(("metric", "page_view")).filter(|_| !has("metric"));
    let params = QueryParams::from_pairs(defaults.chain(metric).chain(pairs.iter().copied()))?;
    let query = MetricQuery::parse(&params, NOW)?;
    PreparedQuery::new(query, "default", &DefinitionSet::default(), Retention::default(), NOW)
}

fn partial(cells: &[(&str, u32, u64)]) -> PartialAnswer {
    let group = |g: &str| if g.is_empty() { Vec::new() } else { vec![Some(g.to_owned())] };
    PartialAnswer {
        groups: cells.iter().map(|(g, ..)| group(g)).collect(),
        cells: (0..)
            .zip(cells)
            .map(|(i, (_, bucket, count))| Cell {
                group: i,
                bucket: *bucket,
                values: Accumulator { count: *count, ..Accumulator::default() },
            })
            .collect(),
        counts: StepCounts::default(),
        metric_known: true,
        watermark_ms: NOW - 60_000,
        applied_index: 1,
        other: OtherEvents::default(),
    }
}

fn shards(answers: impl IntoIterator<Item = Result<PartialAnswer, Problem>>) -> Vec<(ShardId, Result<PartialAnswer, Problem>)> {
    (0..).map(ShardId).zip(answers).collect()
}

fn answer(prepared: &PreparedQuery, answers: impl IntoIterator<Item = Result<PartialAnswer, Problem>>) -> Result<Answer, Problem> {
    let answers = shards(answers);
    prepared.answer(prepared.gather(answers.len() as u32, answers)?, None, 3, 2)
}

#[test]
fn an_answer_reads_as_the_interface_says() {
    let prepared = prepare(&[("agg", "count,users,p95"), ("group_by", "country"), ("step", "1d"), ("range", "12h")]).expect("prepares");
    let got = answer(&prepared, [Ok(partial(&[("US", 0, 1000), ("DE", 0, 7)])), Ok(partial(&[("US", 0, 500)]))]).expect("answers");
    let expected = json!({
        "data": [
            { "time": "2026-01-01T00:00:00Z", "group": { "country_code": "DE" }, "values": { "count": 7, "users": 0, "p95": null } },
            { "time": "2026-01-01T00:00:00Z", "group": { "country_code": "US" }, "values": { "count": 1500, "users": 0, "p95": null } },
        ],
        "cursor": null,
        "receipt": {
            "complete": true, "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T12:00:00Z", "shards": { "asked": 2, "answered": 2 },
            "watermark": "2026-01-01T11:59:00Z", "freshness_ms": 3, "error": { "users": 0.0, "p95": 0.01 }, "sampled": 1.0,
            "other_share": 0.0, "sources": ["hot"], "grain": "1h", "cache_age_ms": null, "took_ms": 2,
        },
    });
    assert_eq!(serde_json::to_value(&got).expect("serialises"), expected);
    let text = serde_json::to_string(&got).expect("serialises");
    assert!(text.contains("\"count\":1500") && !text.contains("1500.0"), "counts are integers: {text}");
    assert_eq!(serde_json::from_str::<Answer>(&text).expect("reads back"), got);
}

#[test]
fn no_match_is_zero_only_for_a_single_value() {
    let empty = || Ok(PartialAnswer { metric_known: true, ..PartialAnswer::default() });
    let single = answer(&prepare(&[("agg", "count,sum,users,p50")]).expect("prepares"), [empty()]).expect("answers");
    assert_eq!(serde_json::to_value(&single.data).expect("json"), json!([{"values": {"count": 0, "sum": null, "users": 0, "p50": null}}]));
    for pairs in [[("step", "1h")], [("group_by", "event")]] {
        assert_eq!(answer(&prepare(&pairs).expect("prepares"), [empty()]).expect("answers").data, Rows::default());
    }
    let filled = answer(&prepare(&[("step", "1h"), ("fill", "zero"), ("range", "3h")]).expect("prepares"), [empty()]).expect("answers");
    assert_eq!(filled.data.iter().map(|r| r.values["count"]).collect::<Vec<_>>(), [Some(0.0); 3]);
}

#[test]
fn an_unknown_metric_is_404_with_the_nearest_name() {
    let prepared = prepare(&[("metric", "page_veiw")]).expect("prepares");
    let problem = answer(&prepared, [Ok(PartialAnswer::default()), Ok(PartialAnswer::default())]).expect_err("nobody knows it");
    assert_eq!((problem.code, problem.status), (ErrorCode::UnknownMetric, 404));
    assert_eq!(unknown_metric("page_veiw", ["signup", "page_view"], false).did_you_mean.as_deref(), Some("page_view"));
    let known = [Ok(PartialAnswer::default()), Ok(PartialAnswer { metric_known: true, ..PartialAnswer::default() })];
    assert!(answer(&prepared, known).is_ok(), "one shard is enough to know it");
    let blank = PartialAnswer { watermark_ms: NOW, applied_index: 3, ..PartialAnswer::default() };
    let nothing_yet = answer(&prepare(&[("metric", "*")]).expect("prepares"), [Ok(blank)]).expect("`*` is always known");
    assert_eq!((nothing_yet.receipt.watermark, nothing_yet.data[0].values["count"]), (None, Some(0.0)));
}

#[test]
fn a_missing_shard_fails_or_is_flagged_and_never_turns_into_zero() {
    let down = || Err(Problem::new(ErrorCode::ShardUnavailable, "no leader"));
    let strict = prepare(&[]).expect("prepares");
    let problem = answer(&strict, [Ok(partial(&[("", 0, 5)])), down()]).expect_err("incomplete");
    assert_eq!((problem.code, problem.status, problem.retry_after_ms), (ErrorCode::ShardUnavailable, 503, Some(1_000)));
    assert!(problem.detail.contains("1 of 2") && problem.detail.contains("no leader"), "{}", problem.detail);

    let lenient = prepare(&[("partial", "allow")]).expect("prepares");
    let flagged = answer(&lenient, [Ok(partial(&[("", 0, 5)])), down()]).expect("allowed");
    assert!(!flagged.receipt.complete);
    assert_eq!((flagged.receipt.shards, flagged.data[0].values["count"]), (ShardsAnswered { asked: 2, answered: 1 }, Some(5.0)));
    assert_eq!(
        answer(&lenient, [Ok(PartialAnswer::default()), down()]).expect("allowed").data,
        Rows::default(),
        "not a 0 that nobody knows"
    );
    assert_eq!(answer(&lenient, [down(), down()]).expect_err("nothing at all").status, 503);

    let silent = lenient.gather(3, shards([Ok(partial(&[]))])).expect("allowed");
    assert!(!lenient.answer(silent, None, 0, 0).expect("answers").receipt.complete, "a shard that is not even listed is missing too");
    let timeout = Err(Problem::new(ErrorCode::QueryTimeout, "30 s"));
    assert_eq!(answer(&strict, [timeout]).expect_err("late").status, 504);
    let too_large = Err(Problem::new(ErrorCode::TooManyCells, "x"));
    assert_eq!(answer(&lenient, [Ok(partial(&[])), too_large]).expect_err("the query's own fault").code, ErrorCode::TooManyCells);
}

#[test]
fn a_range_older_than_anything_kept_is_not_complete() {
    let params = QueryParams::from_pairs([("metric", "*"), ("from", "2000-01-01")]).expect("names");
    let query = MetricQuery::parse(&params, NOW).expect("valid");
    let week = Some(7 * 86_400_000);
    let retention = Retention { minute_ms: week, hour_ms: week, day_ms: week };
    let prepared = PreparedQuery::new(query, "default", &DefinitionSet::default(), retention, NOW).expect("prepares");
    let got = answer(&prepared, [Ok(partial(&[]))]).expect("answers");
    assert!(!got.receipt.complete);
    assert_eq!(got.data, Rows::default());
}

#[test]
fn a_cursor_goes_on_where_the_page_ended_over_the_same_range() {
    let base = [("group_by", "country_code"), ("order", "-value"), ("limit", "2")];
    let cells = [("a", 0, 5), ("b", 0, 9), ("c", 0, 5), ("d", 0, 1)];
    let first = answer(&prepare(&base).expect("prepares"), [Ok(partial(&cells))]).expect("answers");
    let cursor = first.cursor.clone().expect("two more rows");
    // Half an hour later the range has moved on; the second page has not.
    let params =
        QueryParams::from_pairs([("metric", "page_view"), ("range", "24h"), ("cursor", &cursor)].into_iter().chain(base)).expect("names");
    let later = NOW + 1_800_000;
    let query = MetricQuery::parse(&params, later).expect("own cursor");
    let prepared = PreparedQuery::new(query, "default", &DefinitionSet::default(), Retention::default(), later).expect("prepares");
    let second = answer(&prepared, [Ok(partial(&cells))]).expect("answers");
    let names = |answer: &Answer| -> Vec<String> { answer.data.iter().filter_map(|r| r.group.as_ref()?["country_code"].clone()).collect() };
    assert_eq!((names(&first), names(&second)), (vec!["b".to_owned(), "a".to_owned()], vec!["c".to_owned(), "d".to_owned()]));
    assert_eq!((second.cursor, second.receipt.to), (None, first.receipt.to));
    let foreign = prepare(&[("metric", "signup"), ("cursor", &cursor)]).expect_err("another query's");
    assert_eq!((foreign.status, foreign.field.as_deref()), (422, Some("cursor")));
}

#[test]
fn an_earlier_day_is_a_day_of_the_calendar() {
    // Clocks went forward in Berlin on 29 March 2026 at 01:00 UTC.
    let compared = |compare| {
        let pairs = [("from", "2026-03-29T22:00:00Z"), ("to", "2026-03-30T22:00:00Z"), ("tz", "Europe/Berlin"), ("compare", compare)];
        let prepared = prepare(&pairs).expect("prepares");
        let range = prepared.earlier.expect("compares").plan.range;
        (rfc3339(range.from_ms), rfc3339(range.to_ms))
    };
    for (compare, from, to) in [
        ("day", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
        ("week", "2026-03-22T23:00:00Z", "2026-03-23T23:00:00Z"),
        ("previous", "2026-03-28T22:00:00Z", "2026-03-29T22:00:00Z"),
    ] {
        assert_eq!(compared(compare), (from.to_owned(), to.to_owned()), "{compare}");
    }
}

#[test]
fn the_share_beyond_the_budget_is_of_all_that_may_belong_to_the_answer() {
    let share = |answers: &[(u64, u64, u64)]| {
        let prepared = prepare(&[("filter", "country:US")]).expect("prepares");
        let shard = |&(count, counted, unjudged): &(u64, u64, u64)| {
            let cells: &[_] = if count > 0 { &[("", 0, count)] } else { &[] };
            Ok(PartialAnswer { other: OtherEvents { counted, unjudged, names_beyond: false }, ..partial(cells) })
        };
        answer(&prepared, answers.iter().map(shard)).expect("answers").receipt.other_share
    };
    assert_eq!(share(&[(10, 0, 0), (0, 0, 0)]), 0.0);
    assert_eq!(share(&[(10, 0, 5), (20, 0, 5)]), 0.25);
    assert_eq!(share(&[(10, 4, 0), (30, 6, 0)]), 0.25);
    assert_eq!(share(&[(0, 0, 7)]), 1.0, "nothing of it is known");
    assert_eq!(share(&[(0, 0, 0)]), 0.0);

    let compared = prepare(&[("compare", "previous"), ("group_by", "country")]).expect("prepares");
    let leg = |counted| {
        let other = OtherEvents { counted, ..OtherEvents::default() };
        compared.gather(1, shards([Ok(PartialAnswer { other, ..partial(&[("US", 0, 10)]) })])).expect("gathers")
    };
    let got = compared.answer(leg(1), Some(leg(3)), 0, 0).expect("answers");
    assert_eq!(got.receipt.other_share, 0.3, "the worse of the two");
}

#[test]
fn names_beyond_the_budget_may_hide_a_metric_that_nobody_knows() {
    let prepared = prepare(&[]).expect("prepares");
    for names_beyond in [false, true] {
        let other = OtherEvents { names_beyond, ..OtherEvents::default() };
        let problem = prepared.gather(1, shards([Ok(PartialAnswer { other, ..PartialAnswer::default() })])).expect_err("unknown");
        assert_eq!((problem.code, problem.detail.contains(OTHER)), (ErrorCode::UnknownMetric, names_beyond), "{problem:?}");
    }
}

#[test]
fn a_shard_is_asked_only_for_what_the_query_wants() {
    let prepared = prepare(&[("agg", "count,avg,users"), ("group_by", "device"), ("filter", "country:US")]).expect("prepares");
    let asked = &prepared.current.shard_query;
    assert!(asked.wants.values && asked.wants.users);
    assert!(!asked.wants.last && !asked.wants.sessions && !asked.wants.quantiles);
    assert_eq!((asked.group_by.len(), asked.filters.len(), asked.plan.buckets), (1, 1, 1));
    assert_eq!(asked.metric, MetricSelector::Event("page_view".to_owned()));
}

#[test]
fn csv_has_the_columns_in_the_order_asked() {
    let prepared = prepare(&[("agg", "users,count,sum"), ("group_by", "country"), ("step", "1d"), ("range", "12h")]).expect("prepares");
    let got = answer(&prepared, [Ok(partial(&[("a,\"b\"", 0, 1500)]))]).expect("answers");
    let expected = "time,country_code,users,count,sum\r\n2026-01-01T00:00:00Z,\"a,\"\"b\"\"\",0,1500,\r\n";
    assert_eq!(prepared.to_csv(&got), expected);
    let compared = prepare(&[("compare", "day")]).expect("prepares");
    let gather = |count| compared.gather(1, shards([Ok(partial(&[("", 0, count)]))])).expect("answers");
    let got = compared.answer(gather(5), Some(gather(3)), 0, 0).expect("answers");
    assert_eq!(compared.to_csv(&got), "count,compare.count\r\n5,3\r\n");
}
