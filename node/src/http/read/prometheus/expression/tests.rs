use tallymesh_protocol::question::query::Aggregate;

use super::*;

fn leaf(text: &str) -> Leaf {
    let mut plan = plan(text).expect(text);
    assert_eq!(plan.leaves.len(), 1, "{text}");
    plan.leaves.remove(0)
}

fn names(labels: &[&str]) -> Option<BTreeSet<String>> {
    Some(labels.iter().map(|l| (*l).to_owned()).collect())
}

#[test]
fn what_is_around_a_selector_becomes_part_of_its_question() {
    for (text, aggregate, is_rate, range_ms, needed) in [
        ("page_view", Aggregate::Count, false, None, None),
        ("sum(page_view)", Aggregate::Count, false, None, names(&[])),
        ("sum by (country_code) ((rate(page_view[5m])))", Aggregate::Count, true, Some(300_000), names(&["country_code"])),
        ("sum without (country_code) (rate(page_view[5m]))", Aggregate::Count, true, Some(300_000), None),
        ("avg by (country_code) (rate(page_view[5m]))", Aggregate::Count, true, Some(300_000), None),
        ("sum by (source) (sum_over_time(purchase[1h]))", Aggregate::Sum, false, Some(3_600_000), names(&["source"])),
        ("max by (source) (max_over_time(purchase[1h]))", Aggregate::Max, false, Some(3_600_000), names(&["source"])),
        ("max by (source) (increase(purchase[1h]))", Aggregate::Count, false, Some(3_600_000), None),
        ("max(purchase{__agg__=\"users\"})", Aggregate::Users, false, None, None),
        ("topk(3, increase(page_view[1h]))", Aggregate::Count, false, Some(3_600_000), None),
    ] {
        let leaf = leaf(text);
        assert_eq!((leaf.aggregate, leaf.is_rate, leaf.range_ms, leaf.needed), (aggregate, is_rate, range_ms, needed), "{text}");
    }
}

#[test]
fn quantiles_and_own_labels_are_of_the_selector() {
    let quantile = leaf("quantile_over_time(0.95, load{__by__=\"page, device_type\"}[5m])");
    assert!(matches!(quantile.aggregate, Aggregate::Quantile { q, .. } if q == 0.95));
    assert_eq!(quantile.by, names(&["page", "device_type"]));
    assert_eq!(leaf("{__name__=\"*\",__agg__=\"sessions\",__by__=\"\"}").by, names(&[]));
    assert_eq!(leaf("{__name__=\"page view\",__agg__=\"p99.9\"}").metric.as_deref(), Some("page view"));
    assert_eq!((leaf("a offset 1h").offset_ms, leaf("a offset -1h").offset_ms), (3_600_000, -3_600_000));
    assert_eq!(leaf("sum(a{__agg__=\"users\",__by__=\"source\"})").by, names(&["source"]), "named labels may be added up");
}

#[test]
fn what_is_not_supported_names_itself_and_its_place() {
    for (text, status, what, place) in [
        ("a[5m]", 422, "a range of samples", "a[5m]"),
        ("max_over_time(a[1h:5m])", 422, "a subquery", "max_over_time(a[1h:5m])"),
        ("1 + deriv(a[5m])", 422, "the function `deriv`", "deriv(a[5m])"),
        ("histogram_quantile(0.9, a)", 422, "the function `histogram_quantile`", "histogram_quantile"),
        ("quantile(0.9, a)", 422, "quantile_over_time", "quantile(0.9, a)"),
        ("stddev(a)", 422, "the aggregation `stddev`", "stddev(a)"),
        ("a * on (x) group_left (y) b", 422, "group_left", "group_left (y)"),
        ("a @ 5", 422, "`@`", "a @ 5"),
        ("{source=\"web\"}", 422, "without one exact metric name", "source"),
        ("{__name__=~\"a|b\"}", 422, "without one exact metric name", "__name__"),
        ("rate(a{__agg__=\"users\"}[5m])", 422, "`rate` of users", "users"),
        ("sum by (source) (a{__agg__=\"users\"})", 422, "__by__=\"source\"", "sum by (source)"),
        ("avg_over_time(a{__agg__=\"users\"}[5m])", 422, "__agg__", "avg_over_time"),
        ("quantile_over_time(2, a[5m])", 422, "from 0 to 1", "quantile_over_time"),
        ("a{__agg__=\"usres\"}", 400, "usres", "a{"),
        ("a{__agg__=\"sum,count\"}", 400, "several", "a{"),
        ("a{__agg__=~\"sum\"}", 422, "`__agg__` with anything but `=`", "a{"),
        ("sum(", 400, "parse error", ""),
        ("rate(a)", 400, "", ""),
        ("1 > 2", 400, "", ""),
        ("a[5m] offset 100000d", 422, "", ""),
    ] {
        let failure = plan(text).err().unwrap_or_else(|| panic!("{text} is taken"));
        let detail = failure.detail.to_lowercase();
        assert!(failure.status == status && detail.contains(&what.to_lowercase()) && detail.contains(place), "{text}: {failure:?}");
    }
}

#[test]
fn expressions_have_limits() {
    let refused = |text: &str| plan(text).expect_err("refused").detail;
    assert!(refused(&format!("a{}", " ".repeat(PROMQL_BYTES_MAX))).contains("bytes"));
    assert!(refused(&"(".repeat(1_001)).contains("words and signs"));
    assert!(refused(&format!("1{}", "+1".repeat(501))).contains("words and signs"));
    assert!(refused(&format!("a{{{}}}", "x=~\"y\",".repeat(9))).contains("regular expressions"));
    assert!(refused(&format!("a{}", "+a".repeat(16))).contains("selectors"));
    for named in ["99999999999999999999999999d", "99999999999d5m", "999999999999999999999999999", "1e30"] {
        for text in [format!("increase(a[{named}])"), format!("a offset {named}")] {
            let failure = plan(&text).expect_err(&text);
            assert!(failure.status == 400 && failure.detail.contains(&format!("the duration `{named}`")), "{text}: {failure:?}");
        }
    }
    assert!(plan(&format!("{}a{}", "(".repeat(450), ")".repeat(450))).is_ok(), "as deep as it goes");
    assert!(plan(&format!("{}a", "-".repeat(990))).is_ok());
}

#[test]
fn ranges_that_are_no_whole_minutes_are_told() {
    let infos = |text: &str| plan(text).expect(text).notes.infos;
    assert!(infos("rate(a[5m]) + increase(a[1h])").is_empty());
    assert_eq!(infos("rate(a[90s])"), ["the range of 90s in `rate(a[1m30s])` is read as 2m: windows are minutes"]);
}
