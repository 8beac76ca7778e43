use serde_json::json;

use super::*;

/// Three nodes, four shards; `silent` does not live any more, and shards that it led have the leader that is given.
pub fn fleet(silent: Option<&str>, orphans_led_by: Option<&str>) -> Cluster {
    let name = |at: usize| format!("n{}", at + 1);
    let node = |at: usize| {
        json!({ "name": name(at), "member": 1_000 + at, "http": format!("127.0.0.1:{}", 7_070 + at), "version": "0.1.0",
            "alive": Some(name(at).as_str()) != silent, "since_ms": 61_000, "ready": true })
    };
    let shard = |at: usize| {
        let led = name(at % 3);
        let leader = if Some(led.as_str()) == silent {
            orphans_led_by.map(|to| 1_000 + to[1..].parse::<usize>().expect("number") - 1)
        } else {
            Some(1_000 + at % 3)
        };
        let members: Vec<Value> = (0..3).map(|n| json!({ "node": 1_000 + n, "votes": true, "lag": n })).collect();
        json!({ "shard": at, "leader": leader, "members": members, "term": 1 })
    };
    let (nodes, shards): (Vec<Value>, Vec<Value>) = ((0..3).map(node).collect(), (0..4).map(shard).collect());
    let whole = json!({ "name": "demo", "replication": 3, "seen_by": "n1", "nodes": nodes, "shards": shards, "of_the_future": [] });
    serde_json::from_value(whole).expect("read")
}

#[test]
fn numbers_at_shards_are_nodes_and_what_is_not_said_is_counted() {
    let cluster = fleet(None, None);
    assert_eq!(cluster.shards.iter().map(|shard| cluster.leader(shard).expect("led")).collect::<Vec<_>>(), ["n1", "n2", "n3", "n1"]);
    let n1 = &cluster.nodes[0];
    assert_eq!((cluster.leads(n1), cluster.held(n1), cluster.lag(&cluster.nodes[2])), (2, 4, Some(2)));
    assert_eq!(cluster.of_health(Health::Whole), [0, 1, 2, 3]);
}

#[test]
fn answer_of_a_node_of_its_own_is_a_fleet_of_one() {
    let alone = json!({ "name": "tallymesh", "replication": 1,
        "nodes": [{ "name": "node-1", "version": "0.1.0", "ready": true, "draining": false, "read_only": false }],
        "shards": [{ "shard": 0, "leader": 1, "replicas": [1], "term": 1, "lag": 7, "stopped": null }] });
    let cluster: Cluster = serde_json::from_value(alone).expect("read");
    assert_eq!(cluster.leader(&cluster.shards[0]).as_deref(), Some("node-1"));
    let node = &cluster.nodes[0];
    assert_eq!((node.state(), cluster.leads(node), cluster.held(node), cluster.lag(node)), (State::Active, 1, 1, Some(7)));
    assert_eq!(cluster.of_health(Health::Whole), [0]);
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
