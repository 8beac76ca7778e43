use super::*;

const NOW: i64 = 1_767_268_800_000;

fn parse(pairs: &[(&str, &str)]) -> Result<MetricQuery, Problem> {
    let params = QueryParams::from_pairs([("metric", "page_view"), ("range", "24h")].iter().chain(pairs).copied())?;
    MetricQuery::parse(&params, NOW)
}

fn refusal(name: &str, value: &str) -> Problem {
    parse(&[(name, value)]).expect_err(&format!("{name}={value}"))
}

#[test]
fn a_metric_and_a_range_are_enough() {
    let query = parse(&[]).expect("valid");
    assert_eq!(query.aggregates, [Aggregate::Count]);
    assert_eq!((query.step, query.order, query.limit, query.partial), (Step::None, Order::Time, ROWS_DEFAULT, Partial::Fail));
    assert_eq!(query.zone, Zone::utc());
    let missing = MetricQuery::parse(&QueryParams::from_pairs([("range", "1h")]).expect("names"), NOW).expect_err("no metric");
    assert_eq!((missing.status, missing.field.as_deref()), (422, Some("metric")));
}

#[test]
fn every_aggregate_is_understood_and_named_once() {
    let query = parse(&[("agg", "count,sum,min,max,avg,last,users,sessions,p50,p99.9,count")]).expect("valid");
    let labels: Vec<&str> = query.aggregates.iter().map(Aggregate::label).collect();
    assert_eq!(labels, ["count", "sum", "min", "max", "avg", "last", "users", "sessions", "p50", "p99.9"]);
    assert!(matches!(query.aggregates[9], Aggregate::Quantile { q, .. } if (q - 0.999).abs() < 1e-12));
    for (text, guess) in [
        ("cuont", Some("count")),
        ("p101", None),
        ("p", None),
        ("p-1", None),
        ("p9e1", None),
        ("p9.", None),
        ("pNaN", None),
        ("mean", Some("avg")),
    ] {
        let problem = refusal("agg", text);
        assert_eq!((problem.code, problem.field.as_deref()), (ErrorCode::BadParameter, Some("agg")));
        if guess.is_some() {
            assert_eq!(problem.did_you_mean.as_deref(), guess);
        }
    }
    let many: Vec<String> = (0..=AGGREGATES_MAX).map(|i| format!("p{i}")).collect();
    assert_eq!(refusal("agg", &many.join(",")).limit, Some(AGGREGATES_MAX as u64));
}

#[test]
fn limits_are_refused_with_their_limit() {
    for (name, value, limit) in [
        ("limit", "0", ROWS_MAX as u64),
        ("limit", "100001", ROWS_MAX as u64),
        ("limit", "-1", ROWS_MAX as u64),
        ("limit", "ten", ROWS_MAX as u64),
        ("timeout_ms", "0", QUERY_TIMEOUT_MS_MAX),
        ("timeout_ms", "300001", QUERY_TIMEOUT_MS_MAX),
        ("group_by", "a,b,c,d,e,f,g,h,i", GROUP_BY_MAX as u64),
    ] {
        let problem = refusal(name, value);
        assert_eq!((problem.status, problem.field.as_deref(), problem.limit), (422, Some(name), Some(limit)), "{name}={value}");
    }
    assert_eq!(parse(&[("limit", "100000")]).map(|q| q.limit), Ok(ROWS_MAX));
}

#[test]
fn choices_name_the_nearest_one() {
    for (name, value, guess) in [
        ("step", "2m", Some("1m")),
        ("step", "atuo", Some("auto")),
        ("order", "-vlaue", Some("-value")),
        ("partial", "allwo", Some("allow")),
        ("fill", "zeros", Some("zero")),
        ("compare", "weeks", Some("week")),
        ("cache", "yes", None),
        ("format", "arow", Some("arrow")),
    ] {
        let problem = refusal(name, value);
        assert_eq!((problem.code, problem.field.as_deref()), (ErrorCode::BadParameter, Some(name)));
        assert_eq!(problem.did_you_mean.as_deref(), guess, "{name}={value}");
    }
    assert_eq!(refusal("tz", "Nowhere").code, ErrorCode::BadTimeZone);
}

#[test]
fn filters_repeat_and_list_with_escapes() {
    let query = parse(&[("filter", r"device_type:mobile|desktop,!city:a\,b"), ("filter", "source:")]).expect("valid");
    let shown: Vec<String> = query.filters.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["device_type:mobile|desktop", r"!city:a\,b", "source:"]);
    for bad in ["mobile", ":x", r"a:b\x", "a:b,,c:d"] {
        assert_eq!(refusal("filter", bad).field.as_deref(), Some("filter"), "{bad}");
    }
    let many = vec!["a:b"; FILTERS_MAX + 1].join(",");
    assert_eq!(refusal("filter", &many).limit, Some(FILTERS_MAX as u64));
}

#[test]
fn group_by_keeps_order_and_drops_repeats() {
    let query = parse(&[("group_by", r"country_code, event,country_code,a\,b")]).expect("valid");
    assert_eq!(query.group_by, ["country_code", "event", "a,b"]);
    assert_eq!(refusal("group_by", "a,,b").field.as_deref(), Some("group_by"));
}

#[test]
fn empty_parameters_are_absent() {
    assert_eq!(parse(&[("group_by", ""), ("tz", ""), ("limit", ""), ("filter", "")]), parse(&[]));
}
