use super::*;
use crate::http::read::prometheus::expression::{Plan, Root, plan};

type Rows = &'static [(&'static [(&'static str, &'static str)], &'static [f64])];

fn labels(pairs: &[(&str, &str)]) -> LabelSet {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// NaN stands for no value.
fn vector_of(rows: Rows) -> Vec<Series> {
    let one = |(pairs, values): &(&[(&str, &str)], &[f64])| Series {
        labels: labels(pairs),
        values: values.iter().map(|v| (!v.is_nan()).then_some(*v)).collect(),
    };
    rows.iter().map(one).collect()
}

const NONE: f64 = f64::NAN;
const A: Rows = &[
    (&[("__name__", "a"), ("c", "de"), ("d", "tv")], &[1.0, 2.0]),
    (&[("__name__", "a"), ("c", "de"), ("d", "pc")], &[3.0, NONE]),
    (&[("__name__", "a"), ("c", "us"), ("d", "tv")], &[8.0, 4.0]),
];
const B: Rows =
    &[(&[("__name__", "b"), ("c", "de"), ("d", "tv")], &[2.0, 0.0]), (&[("__name__", "b"), ("c", "fr"), ("d", "tv")], &[5.0, 5.0])];

fn run(text: &str) -> Result<Value, Failure> {
    let Plan { root: Root::Node(node), leaves, .. } = plan(text)? else { panic!("{text} is a string") };
    let mut read: Vec<Vec<Series>> = leaves.iter().map(|leaf| vector_of(if leaf.metric.as_deref() == Some("b") { B } else { A })).collect();
    checked(evaluate(&node, &Grid { times_ms: vec![60_000, 120_000], step_ms: Some(60_000) }, &mut read)?)
}

#[track_caller]
fn gives(text: &str, rows: Rows) {
    let Value::Vector(mut got) = run(text).expect(text) else { panic!("{text} is a scalar") };
    got.retain(|s| s.values.iter().any(Option::is_some));
    got.sort_by(|a, b| a.labels.cmp(&b.labels));
    let mut expected = vector_of(rows);
    expected.sort_by(|a, b| a.labels.cmp(&b.labels));
    assert_eq!(got, expected, "{text}");
}

#[test]
fn aggregations_go_by_their_labels() {
    gives("sum by (c) (a)", &[(&[("c", "de")], &[4.0, 2.0]), (&[("c", "us")], &[8.0, 4.0])]);
    gives("sum(a)", &[(&[], &[12.0, 6.0])]);
    gives("sum by () (a)", &[(&[], &[12.0, 6.0])]);
    gives("avg by (d) (a)", &[(&[("d", "pc")], &[3.0, NONE]), (&[("d", "tv")], &[4.5, 3.0])]);
    gives("min without (d) (a)", &[(&[("c", "de")], &[1.0, 2.0]), (&[("c", "us")], &[8.0, 4.0])]);
    gives("max(a)", &[(&[], &[8.0, 4.0])]);
    gives("count(a)", &[(&[], &[3.0, 2.0])]);
    gives("group(a)", &[(&[], &[1.0, 1.0])]);
}

#[test]
fn extremes_are_chosen_point_by_point_and_stay_what_they_are() {
    gives("topk(1, a)", &[(&[("__name__", "a"), ("c", "us"), ("d", "tv")], &[8.0, 4.0])]);
    gives("bottomk(1, a)", &[(&[("__name__", "a"), ("c", "de"), ("d", "tv")], &[1.0, 2.0])]);
    gives(
        "topk by (c) (1, a)",
        &[
            (&[("__name__", "a"), ("c", "de"), ("d", "pc")], &[3.0, NONE]),
            (&[("__name__", "a"), ("c", "de"), ("d", "tv")], &[NONE, 2.0]),
            (&[("__name__", "a"), ("c", "us"), ("d", "tv")], &[8.0, 4.0]),
        ],
    );
    gives("topk(0, a)", &[]);
    gives(
        "topk(99, a) * 0",
        &[
            (&[("c", "de"), ("d", "pc")], &[0.0, NONE]),
            (&[("c", "de"), ("d", "tv")], &[0.0, 0.0]),
            (&[("c", "us"), ("d", "tv")], &[0.0, 0.0]),
        ],
    );
}

#[test]
fn arithmetic_matches_one_to_one() {
    gives("b / a", &[(&[("c", "de"), ("d", "tv")], &[2.0, 0.0])]);
    gives("sum by (c) (a) - on (c) sum by (c) (b)", &[(&[("c", "de")], &[2.0, 2.0])]);
    gives("sum by (c) (a) * ignoring (d) sum by (c) (b)", &[(&[("c", "de")], &[8.0, 0.0])]);
    gives("-b ^ 2", &[(&[("c", "de"), ("d", "tv")], &[-4.0, -0.0]), (&[("c", "fr"), ("d", "tv")], &[-25.0, -25.0])]);
    gives("10 - sum(b) % 4", &[(&[], &[7.0, 9.0])]);
    let twice = run("a + on (c) b").expect_err("two series of de");
    assert!(twice.status == 422 && twice.detail.contains("{c=\"de\"} on the left side"), "{twice:?}");
}

#[test]
fn comparisons_filter_or_tell() {
    gives(
        "b > 1",
        &[(&[("__name__", "b"), ("c", "de"), ("d", "tv")], &[2.0, NONE]), (&[("__name__", "b"), ("c", "fr"), ("d", "tv")], &[5.0, 5.0])],
    );
    gives("1 >= bool b", &[(&[("c", "de"), ("d", "tv")], &[0.0, 1.0]), (&[("c", "fr"), ("d", "tv")], &[0.0, 0.0])]);
    gives("a < b", &[(&[("__name__", "a"), ("c", "de"), ("d", "tv")], &[1.0, NONE])]);
    gives("3 < b", &[(&[("__name__", "b"), ("c", "fr"), ("d", "tv")], &[5.0, 5.0])]);
}

#[test]
fn sets_are_by_labels_and_points() {
    gives("b and a", &[(&[("__name__", "b"), ("c", "de"), ("d", "tv")], &[2.0, 0.0])]);
    gives("b unless a", &[(&[("__name__", "b"), ("c", "fr"), ("d", "tv")], &[5.0, 5.0])]);
    gives("sum by (d) (a{d=\"pc\"}) or vector(0)", &[(&[], &[0.0, 0.0]), (&[("d", "pc")], &[3.0, NONE]), (&[("d", "tv")], &[9.0, 6.0])]);
    gives("(sum(b) > 6) or vector(0)", &[(&[], &[7.0, 0.0])]);
}

#[test]
fn numbers_and_functions() {
    let scalar = |text: &str| match run(text).expect(text) {
        Value::Scalar(values) => values,
        Value::Vector(_) => panic!("{text} is a vector"),
    };
    assert_eq!(scalar("-(1 + 2) * 3 ^ 2 / 2"), [-13.5; 2]);
    assert_eq!(scalar("1 == bool 1"), [1.0; 2]);
    assert_eq!(scalar("time()"), [60.0, 120.0]);
    assert_eq!(scalar("scalar(sum(a)) + 1"), [13.0, 7.0]);
    assert!(scalar("scalar(a)")[0].is_nan(), "of several series none is meant");
    gives("clamp_max(sum(a), 7)", &[(&[], &[7.0, 6.0])]);
    gives("round(sum(a) / 8)", &[(&[], &[2.0, 1.0])]);
    gives("vector(1) / 0 > 5", &[(&[], &[f64::INFINITY; 2])]);
    assert!(run("a or (b + 0) or (a * 1)").is_ok());
    gives("-((a{d=\"tv\"} > 1.5) or b{c=\"de\"}) - 1 > -4", &[(&[("c", "de"), ("d", "tv")], &[-3.0, -3.0])]);
}

#[test]
fn at_one_moment_the_whole_expression_says_the_order() {
    let order = |text: &str| -> Vec<f64> {
        let Plan { root: Root::Node(node), .. } = plan(text).expect(text) else { panic!("{text} is a string") };
        let Value::Vector(series) = ordered(&node, run(text).expect(text)) else { panic!("{text} is a scalar") };
        series.into_iter().filter_map(|s| s.values[0]).collect()
    };
    assert_eq!(order("topk(2, a)"), [8.0, 3.0]);
    assert_eq!(order("bottomk(2, a)"), [1.0, 3.0]);
    assert_eq!(order("sort_desc(a)"), [8.0, 3.0, 1.0]);
    assert_eq!(order("sort(sum by (c) (a))"), [4.0, 8.0]);
}
