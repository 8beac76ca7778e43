use serde_json::{Value, json};

use super::*;

/// Three nodes, four shards; `silent` does not live any more, and shards that it led have the leader that is given.
pub fn fleet(silent: Option<&str>, orphans_led_by: Option<&str>) -> Cluster {
    let name = |at: usize| format!("n{}", at + 1);
    let node = |at: usize| {
        json!({ "name": name(at), "me": at == 0, "http": format!("127.0.0.1:{}", 7_070 + at), "version": "0.1.0",
            "alive": Some(name(at).as_str()) != silent, "since_ms": 61_000, "ready": true })
    };
    let shard = |at: usize| {
        let led = name(at % 3);
        let leader = if Some(led.as_str()) == silent { orphans_led_by.map(str::to_owned) } else { Some(led) };
        let replicas: Vec<Value> = (0..3).map(|n| json!({ "node": name(n), "role": "follower", "lag": n })).collect();
        json!({ "shard": at, "leader": leader, "replicas": replicas, "term": 1 })
    };
    let (nodes, shards): (Vec<Value>, Vec<Value>) = ((0..3).map(node).collect(), (0..4).map(shard).collect());
    let whole = json!({ "name": "demo", "replication": 3, "nodes": nodes, "shards": shards, "of_the_future": [] });
    serde_json::from_value(whole).expect("read")
}

#[test]
fn shards_are_counted_by_who_leads_and_holds_them() {
    let cluster = fleet(None, None);
    let n1 = &cluster.nodes[0];
    assert_eq!((cluster.leads(n1), cluster.held(n1), cluster.lag(&cluster.nodes[2])), (2, 4, Some(2)));
    assert_eq!((cluster.of_health(Health::Whole), cluster.seen_by()), (vec![0, 1, 2, 3], Some("n1")));
}

#[test]
fn death_of_a_node_is_told_from_view_to_view() {
    let (before, dead, healed) = (fleet(None, None), fleet(Some("n2"), None), fleet(Some("n2"), Some("n3")));
    assert_eq!(before.changes(&before), []);
    assert_eq!(dead.changes(&before), [Change::Node("n2".to_owned(), State::Silent), Change::NoLeader(vec![1])]);
    assert_eq!((dead.of_health(Health::NoLeader), dead.of_health(Health::Reduced)), (vec![1], vec![0, 2, 3]));
    assert_eq!(healed.changes(&dead), [Change::Leads("n3".to_owned(), vec![1])]);
    assert_eq!(healed.of_health(Health::Reduced), [0, 1, 2, 3]);
    assert_eq!((dead.leads(&dead.nodes[1]), dead.lag(&dead.nodes[1])), (0, None));
    assert_eq!(dead.addresses(), ["127.0.0.1:7070", "127.0.0.1:7072"]);
    // A leader that is told of and does not live is none.
    let mut stale = fleet(None, None);
    stale.nodes[1].alive = Some(false);
    assert_eq!(stale.of_health(Health::NoLeader), [1]);
}

#[test]
fn numbers_are_told_in_ranges() {
    assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    assert_eq!(ranges(&[]), "");
}
