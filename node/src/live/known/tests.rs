use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tallymesh_protocol::question::answer::ShardsAnswered;

use super::*;

fn receipt(answered: u32, watermark: u32) -> Receipt {
    Receipt {
        complete: answered == 4,
        from: "2026-01-01T00:00:00Z".to_owned(),
        to: "2026-01-02T00:00:00Z".to_owned(),
        shards: ShardsAnswered { asked: 4, answered },
        watermark: Some(format!("2026-01-01T00:00:{watermark:02}Z")),
        freshness_ms: u64::from(watermark),
        error: BTreeMap::new(),
        sampled: 1.0,
        other_share: 0.0,
        sources: vec!["hot".to_owned()],
        grain: "1m".to_owned(),
        cache_age_ms: None,
        took_ms: 1,
    }
}

fn answer(rows: &[(u8, u32)]) -> Answer {
    let row = |&(name, count): &(u8, u32)| Row {
        time: Some(format!("t{name}")),
        group: Some(BTreeMap::from([("source".to_owned(), (!name.is_multiple_of(5)).then(|| format!("\"s\"{name}\n")))])),
        values: BTreeMap::from([("count".to_owned(), Some(f64::from(count)))]),
        compare: None,
    };
    Answer { data: rows.iter().map(row).collect::<Vec<_>>().into(), cursor: None, receipt: receipt(4, 0) }
}

fn parsed(body: &Bytes) -> Value {
    serde_json::from_slice(&[b"{", &body[..]].concat()).expect("an object without its first brace")
}

fn name_of(row: &Value) -> String {
    json!([row["time"], row["group"]]).to_string()
}

/// What a client keeps: rows by name, as the interface tells it to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Client(BTreeMap<String, Value>);

impl Client {
    fn hear(&mut self, body: &Value) {
        if let Some(answer) = body.get("answer") {
            self.0.clear();
            self.0.extend(answer["data"].as_array().expect("rows").iter().map(|row| (name_of(row), row.clone())));
            return;
        }
        for row in body["removed"].as_array().expect("names") {
            // One that came and went in between was never here.
            self.0.remove(&name_of(row));
        }
        self.0.extend(body["changed"].as_array().expect("rows").iter().map(|row| (name_of(row), row.clone())));
    }
}

#[test]
fn nothing_new_is_no_version() {
    let mut known = Known::new(answer(&[(1, 1), (2, 2)]), 10).expect("JSON");
    let mut later = answer(&[(1, 1), (2, 2)]);
    later.receipt = receipt(4, 30);
    assert!(!known.take(later, 11).expect("JSON"));
    assert_eq!((known.version(), parsed(&known.since(10).expect("known"))["changed"].clone()), (10, json!([])));
    assert_eq!(parsed(&known.snapshot())["answer"]["receipt"]["freshness_ms"], 30, "but a newcomer hears of it");
}

#[test]
fn an_answer_that_became_partial_is_news() {
    let mut known = Known::new(answer(&[(1, 1)]), 10).expect("JSON");
    let partial = Answer { receipt: receipt(3, 0), ..answer(&[(1, 1)]) };
    assert!(known.take(partial, 11).expect("JSON"));
    let delta = parsed(&known.since(10).expect("known"));
    assert_eq!(
        (&delta["changed"], &delta["receipt"]["complete"], &delta["receipt"]["shards"]["answered"]),
        (&json!([]), &json!(false), &json!(3))
    );
}

#[test]
fn versions_that_are_not_its_own_are_not_known() {
    let mut known = Known::new(answer(&[(1, 1)]), 10).expect("JSON");
    assert!(known.take(answer(&[(1, 2)]), 12).expect("JSON"));
    assert_eq!([9, 13].map(|version| known.since(version)), [None, None]);
    assert!(known.since(10).is_some() && known.since(12).is_some());
    assert!(!known.was_missed(10) && !known.was_missed(12));
    assert!(known.take(answer(&[(1, 3)]), 15).expect("JSON"));
    assert!(known.was_missed(10) && !known.was_missed(12));
}

#[test]
fn what_went_is_remembered_up_to_a_limit() {
    let mut known = Known::new(answer(&[(0, 0), (1, 1)]), 1).expect("JSON");
    for version in 2..=LIVE_REMOVED_MAX as u64 + 1 {
        // Each answer ends the row of the one before.
        let rows = [(0, 0), (10 + (version % 200) as u8, 1)];
        known.take(answer(&rows), version).expect("JSON");
        assert!(known.since(1).is_some(), "{version}");
    }
    let most = known.bytes();
    for version in 0..500 {
        known.take(answer(&[(0, 0), (10 + (version % 200) as u8, 1)]), 10_000 + version).expect("JSON");
    }
    assert_eq!((known.since(1), known.since(3)), (None, None));
    assert!(known.since(known.version()).is_some() && known.since(10_400).is_some());
    assert!(known.bytes() < most + most / 10, "{} after {most}", known.bytes());
}

proptest! {
    /// Clients that hear at any moments, some seldom, have the present answer whenever they have just heard.
    #[test]
    fn who_hears_what_changed_since_has_the_present_answer(
        answers in prop::collection::vec(prop::collection::btree_map(0u8..12, 0u32..3, 0..12), 1..12),
        hears in prop::collection::vec(prop::collection::vec(any::<bool>(), 12), 1..4),
    ) {
        let rows = |answer: &BTreeMap<u8, u32>| answer.iter().map(|(name, count)| (*name, *count)).collect::<Vec<_>>();
        let mut known = Known::new(answer(&rows(&answers[0])), 1).expect("JSON");
        let mut clients: Vec<(Client, u64)> = hears.iter().map(|_| (Client::default(), 0)).collect();
        for (i, next) in answers.iter().enumerate() {
            known.take(answer(&rows(next)), i as u64 + 2).expect("JSON");
            let mut oracle = Client::default();
            oracle.hear(&json!({"answer": answer(&rows(next))}));
            for ((client, version), hears) in clients.iter_mut().zip(&hears) {
                if hears[i] {
                    let body = known.since(*version).unwrap_or_else(|| known.snapshot());
                    client.hear(&parsed(&body));
                    *version = known.version();
                    prop_assert_eq!(&*client, &oracle);
                }
            }
        }
    }
}
