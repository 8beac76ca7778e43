use super::*;

fn founder(number: u64, name: &str) -> Founder {
    Founder { node: NodeId::from_member(number, 0), name: name.to_owned(), address: format!("127.0.0.1:{number}"), reads: 0 }
}

fn settings() -> ShardSettings {
    ShardSettings { definitions_version: 1, ..tallymesh_storage::shard::initial_settings() }
}

fn founded(nodes: u64, replication: u8, shards: u16) -> MetaState {
    let mut state = MetaState::default();
    let members = (1..=nodes).map(|n| founder(n, &format!("n{n}"))).collect();
    state.apply(MetaCommand::Found { cluster_id: "x".to_owned(), shards, replication, settings: settings(), members }).expect("founded");
    state
}

#[test]
fn founding_spreads_leaders_and_replicas_evenly_and_happens_once() {
    for (nodes, replication, shards) in [(1, 1, 16), (3, 1, 16), (3, 3, 16), (5, 3, 16), (4, 3, 7), (2, 2, 4), (3, 5, 8)] {
        let mut state = founded(nodes, replication, shards);
        let count = |of: &dyn Fn(&Placement) -> Vec<u64>| {
            let all: Vec<u64> = state.placement.iter().flat_map(of).collect();
            (1..=nodes).map(|n| all.iter().filter(|m| **m == n).count()).collect::<Vec<_>>()
        };
        let leads = count(&|p| vec![p.replicas[0]]);
        assert!(leads.iter().max().unwrap() - leads.iter().min().unwrap() <= 1, "{nodes} nodes: {leads:?}");
        let holds = count(&|p| p.replicas.clone());
        assert!(holds.iter().max().unwrap() - holds.iter().min().unwrap() <= 3, "{nodes} nodes: {holds:?}");
        for placement in &state.placement {
            let distinct: std::collections::BTreeSet<_> = placement.replicas.iter().collect();
            assert_eq!(distinct.len(), placement.replicas.len());
            assert_eq!(distinct.len(), usize::from(replication).min(nodes as usize));
        }
        let before = state.clone();
        let again = MetaCommand::Found { cluster_id: "y".to_owned(), shards: 1, replication: 1, settings: settings(), members: Vec::new() };
        state.apply(again).expect("is no fault");
        assert_eq!(state, before);
    }
    // The shards of a lost node are not all led by one other.
    let state = founded(3, 3, 16);
    let heirs: std::collections::BTreeSet<u64> = state.placement.iter().filter(|p| p.replicas[0] == 1).map(|p| p.replicas[1]).collect();
    assert_eq!(heirs.len(), 2);
}

#[test]
fn node_that_replaces_a_dead_one_takes_its_places_and_the_dead_one_never_comes_back() {
    let mut state = founded(3, 3, 4);
    let heir = founder(9, "n2");
    let alive = state.apply(MetaCommand::LetIn { asker: heir.clone(), dead: Vec::new() });
    assert!(alive.is_err_and(|reason| reason.contains("lives")), "while its namesake lives");
    state.apply(MetaCommand::LetIn { asker: heir.clone(), dead: vec![NodeId::from_member(2, 0)] }).expect("let in");
    assert!(state.placement.iter().all(|p| !p.replicas.contains(&2) && p.replicas.contains(&9) && p.generation == 1));
    assert!(state.apply(MetaCommand::LetIn { asker: founder(2, "n2"), dead: Vec::new() }).is_err());
    assert!(state.apply(MetaCommand::Describe { member: founder(2, "other") }).is_err());
    let before = state.clone();
    state.apply(MetaCommand::LetIn { asker: heir, dead: Vec::new() }).expect("asks again");
    assert_eq!(state, before);
}

#[test]
fn change_that_was_planned_on_an_older_state_is_refused() {
    let mut state = founded(4, 3, 2);
    let place = |from_generation, replicas: &[u64]| MetaCommand::Place { shard: 0, from_generation, replicas: replicas.to_vec() };
    state.apply(place(0, &[4, 2, 3])).expect("placed");
    assert!(state.apply(place(0, &[1, 2, 3])).is_err());
    assert!(state.apply(place(1, &[1, 1, 3])).is_err());
    assert!(state.apply(place(1, &[])).is_err());
    assert!(state.apply(place(1, &[7, 2, 3])).is_err());
    assert_eq!((state.placement[0].replicas.as_slice(), state.placement[0].generation), ([4, 2, 3].as_slice(), 1));
    let define = |from_version| MetaCommand::Define { from_version, definitions: Vec::new() };
    state.apply(define(1)).expect("defined");
    assert!(state.apply(define(1)).is_err());
    assert_eq!(state.settings.as_ref().map(|s| s.definitions_version), Some(2));
}

#[test]
fn name_belongs_to_one_node_at_a_time() {
    let mut state = founded(2, 1, 1);
    assert!(state.apply(MetaCommand::Describe { member: founder(1, "n2") }).is_err());
    state.apply(MetaCommand::Describe { member: founder(1, "other") }).expect("renamed");
    state.apply(MetaCommand::LetIn { asker: founder(3, "n1"), dead: Vec::new() }).expect("the name is free");
    assert_eq!(state.present().count(), 3);
}

#[test]
fn entries_are_written_in_a_format_that_every_member_reads() {
    let reads = |number: u64, name: &str, reads: u16| Founder { reads, ..founder(number, name) };
    let mut state = founded(3, 3, 1);
    assert_eq!(state.format(), 0, "nobody has said anything");
    for number in 1..=3 {
        assert_eq!(state.format(), 0);
        state.apply(MetaCommand::Describe { member: reads(number, &format!("n{number}"), 3) }).expect("a member");
    }
    assert_eq!(state.format(), 3);
    let older = state.apply(MetaCommand::LetIn { asker: reads(4, "n4", 2), dead: Vec::new() });
    assert!(older.is_err_and(|reason| reason.contains("log format 3")), "it could not read the log");
    state.apply(MetaCommand::LetIn { asker: reads(4, "n4", 4), dead: Vec::new() }).expect("a newer one can");
    assert_eq!(state.format(), 3);
    // A member that went back to an older build: what is written from now on, it reads.
    state.apply(MetaCommand::Describe { member: reads(2, "n2", 2) }).expect("a member");
    assert_eq!(state.format(), 2);
    state.apply(MetaCommand::SetState { member: 2, state: MemberState::Gone }).expect("a member");
    assert_eq!(state.format(), 3, "who is gone reads nothing");
}

#[test]
fn members_and_commands_of_older_builds_read() {
    let old = r#"{"describe":{"member":{"node":"NODE","name":"n1","address":"127.0.0.1:1"}}}"#;
    let node = serde_json::to_string(&NodeId::from_member(1, 0)).expect("json");
    let command: MetaCommand = serde_json::from_str(&old.replace("\"NODE\"", &node)).expect("as an older build writes it");
    let mut state = founded(1, 1, 1);
    state.apply(command).expect("a member");
    assert_eq!(state.members[&1].reads, 0);
}
