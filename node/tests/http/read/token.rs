//! Read your writes (Q8): a query with the token of an ack sees that write, or says that it cannot.

use serde_json::json;
use tallymesh_protocol::question::token::WriteToken;

use super::super::harness::{TestNode, lines};

#[tokio::test(flavor = "multi_thread")]
async fn a_query_with_the_token_of_an_ack_sees_the_write() {
    let mut node = TestNode::start().await;
    for round in 1..=20u32 {
        let ack = node.post_ndjson(lines(100 * (round - 1)..100 * round)).await;
        let token = ack.body["token"].as_str().expect("a token").to_owned();
        let got = node.get(&format!("/v1/query?metric=page_view&range=1h&token={token}")).await;
        assert_eq!(got.body["data"][0]["values"]["count"], 100 * round, "{got:?}");
        if round == 10 {
            node.restart_with(|_| {}).await;
            let again = node.get(&format!("/v1/query?metric=page_view&range=1h&token={token}")).await;
            assert_eq!(again.body["data"][0]["values"]["count"], 100 * round, "{again:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_kept_is_refused_wherever_it_is_used() {
    let node = TestNode::start().await;
    let other = TestNode::start().await;
    let token = |ack: &super::super::harness::Answer| ack.body["token"].as_str().expect("a token").to_owned();
    let own = token(&node.post_ndjson(lines(0..100)).await);
    let foreign = token(&other.post_ndjson(lines(0..100)).await);
    let made = WriteToken::decode(&own).expect("an ack's token");
    let ahead = made.positions().iter().map(|(shard, index)| (*shard, index + 1_000)).collect();
    let ahead = WriteToken::new(made.cluster, ahead).encode();
    let beyond = WriteToken::new(made.cluster, vec![(tallymesh_protocol::hash::ShardId(900), 1)]).encode();
    let forged = own.replacen(&own[4..5], if &own[4..5] == "A" { "B" } else { "A" }, 1);
    let used = |token: &str| {
        [
            format!("/v1/query?metric=*&range=1h&timeout_ms=100&token={token}"),
            format!("/v1/query?metric=*&range=1h&timeout_ms=100&partial=allow&token={token}"),
            format!("/v1/named/error_rate?timeout_ms=100&token={token}"),
            format!("/metrics?name=page_view&range=1h&timeout_ms=100&token={token}"),
        ]
    };
    for (what, token, expected) in [
        ("forged", &forged, (422, "bad_parameter")),
        ("foreign", &foreign, (422, "bad_parameter")),
        ("a shard that is not there", &beyond, (422, "bad_parameter")),
        ("ahead", &ahead, (503, "write_not_visible")),
    ] {
        for path in used(token) {
            let got = node.get(&path).await;
            assert_eq!((got.problem(), got.body["field"].as_str()), (expected, Some("token")), "{what}: {path}");
        }
    }
    let several = json!({"queries": [
        {"metric": "*", "range": "1h", "token": own},
        {"metric": "*", "range": "1h", "token": foreign},
        {"metric": "*", "range": "1h", "token": ahead, "timeout_ms": 100},
    ]});
    let got = node.post_json("/v1/query", &several).await;
    let results = &got.body["results"];
    assert_eq!(results[0]["data"][0]["values"]["count"], 100);
    assert_eq!((&results[1]["code"], &results[2]["code"]), (&json!("bad_parameter"), &json!("write_not_visible")));
}
