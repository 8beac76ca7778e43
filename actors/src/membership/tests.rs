use super::*;

const ME: NodeId = NodeId::from_u128(1);
const OTHER: NodeId = NodeId::from_u128(2);
const THIRD: NodeId = NodeId::from_u128(3);

fn info(node: NodeId, boot: u64) -> NodeInfo {
    NodeInfo {
        node,
        boot: BootId(boot),
        name: format!("n{node}"),
        peer: format!("{node}:1"),
        http: String::new(),
        gossip: String::new(),
        version: "1".to_owned(),
        state: NodeState::Member,
    }
}

fn see(view: &mut View, alive: &[NodeInfo], second: u64) -> Vec<Effect> {
    view.step(&Sighting { alive: alive.to_vec() }, Duration::from_secs(second))
}

fn target(node: NodeId) -> Target {
    Target { node: Some(node), address: format!("{node}:1") }
}

#[test]
fn node_that_comes_is_dialled_and_one_that_is_silent_loses_its_session() {
    let mut view = View::new(ME);
    assert_eq!(see(&mut view, &[info(ME, 1)], 0), [Effect::Alive(ME)]);
    assert_eq!(see(&mut view, &[info(ME, 1), info(OTHER, 1)], 1), [Effect::Alive(OTHER), Effect::Dial(vec![target(OTHER)])]);
    assert_eq!(see(&mut view, &[info(ME, 1), info(OTHER, 1)], 2), [], "nothing new");
    let dropped = Effect::DropSession { node: OTHER, boot: BootId(1) };
    assert_eq!(see(&mut view, &[info(ME, 1)], 3), [dropped, Effect::Dead(OTHER), Effect::Dial(vec![])]);
    assert!(!view.is_alive(OTHER) && view.nodes[&OTHER].since == Duration::from_secs(3), "known as dead");
    assert_eq!(see(&mut view, &[info(ME, 1), info(OTHER, 1)], 4), [Effect::Alive(OTHER), Effect::Dial(vec![target(OTHER)])]);
}

#[test]
fn later_run_takes_over_and_gossip_about_a_former_one_is_not_believed() {
    let mut view = View::new(ME);
    see(&mut view, &[info(OTHER, 1)], 0);
    let restarted = NodeInfo { peer: "elsewhere:1".to_owned(), ..info(OTHER, 2) };
    let effects = see(&mut view, std::slice::from_ref(&restarted), 1);
    let elsewhere = Target { node: Some(OTHER), address: "elsewhere:1".to_owned() };
    assert_eq!(effects, [Effect::DropSession { node: OTHER, boot: BootId(1) }, Effect::Alive(OTHER), Effect::Dial(vec![elsewhere])]);
    assert_eq!(see(&mut view, &[info(OTHER, 1)], 2), []);
    assert_eq!(view.nodes[&OTHER].info, restarted);
}

#[test]
fn one_name_or_one_id_at_two_places_is_reported_once() {
    let mut view = View::new(ME);
    let twin = NodeInfo { name: info(OTHER, 1).name, ..info(THIRD, 1) };
    let effects = see(&mut view, &[info(OTHER, 1), twin.clone()], 0);
    assert!(effects.contains(&Effect::SameName { name: twin.name.clone(), nodes: [OTHER, THIRD] }));
    assert_eq!(see(&mut view, &[info(OTHER, 1), twin], 1), []);
    let copy = NodeInfo { peer: "copy:1".to_owned(), ..info(OTHER, 5) };
    let effects = see(&mut view, &[info(OTHER, 1), copy.clone()], 2);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SameNode { node: OTHER, .. })), "{effects:?}");
    assert_eq!(see(&mut view, &[info(OTHER, 1), copy], 3), []);
}

#[test]
fn the_dead_are_forgotten_in_time_and_the_living_never() {
    let mut view = View::new(ME);
    see(&mut view, &[info(ME, 1), info(OTHER, 1)], 0);
    see(&mut view, &[info(ME, 1)], 1);
    see(&mut view, &[info(ME, 1)], FORGET_AFTER.as_secs());
    assert!(view.nodes.contains_key(&OTHER));
    see(&mut view, &[info(ME, 1)], FORGET_AFTER.as_secs() + 2);
    assert_eq!(view.nodes.keys().collect::<Vec<_>>(), [&ME]);
    let many: Vec<NodeInfo> = (10..10 + NODES_MAX as u128).map(|node| info(NodeId::from_u128(node), 1)).collect();
    see(&mut view, &many, FORGET_AFTER.as_secs() + 3);
    assert_eq!(view.nodes.len(), NODES_MAX, "the one that is dead went");
    assert!(!view.nodes.contains_key(&ME));
}
