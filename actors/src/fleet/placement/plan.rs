//! What to move where. Pure: a state and who lives make one step; the steps follow each other until there is none, which is also what a dry run shows.

use std::collections::{BTreeMap, BTreeSet};

use super::super::meta::{MemberState, MetaCommand, MetaState, Placement};

/// Why a shard is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The node that it leaves is drained.
    Drain,
    /// The node that it leaves has been gone for long.
    Lost,
    /// It has fewer replicas than it should.
    Missing,
    /// The nodes hold, or lead, unequally many.
    Balance,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Lost => "lost node",
            Self::Missing => "too few replicas",
            Self::Balance => "balance",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub shard: u16,
    pub from_generation: u64,
    pub from: Vec<u64>,
    pub to: Vec<u64>,
    pub reason: Reason,
}

impl Step {
    pub fn command(&self) -> MetaCommand {
        MetaCommand::Place { shard: self.shard, from_generation: self.from_generation, replicas: self.to.clone() }
    }
}

/// Who can be counted on.
#[derive(Clone, Debug, Default)]
pub struct Census {
    pub alive: BTreeSet<u64>,
    /// Not alive, and not for so long that their shards go elsewhere.
    pub lost: BTreeSet<u64>,
}

/// The next step, if there is one to take.
pub fn next(state: &MetaState, census: &Census) -> Option<Step> {
    leave(state, census)
        .or_else(|| fill(state, census))
        .or_else(|| balance_replicas(state, census))
        .or_else(|| balance_leaders(state, census))
}

/// All steps until nothing is left to do, at most `max`.
pub fn all(mut state: MetaState, census: &Census, max: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    while steps.len() < max
        && let Some(step) = next(&state, census)
        && state.apply(step.command()).is_ok()
    {
        steps.push(step);
    }
    steps
}

/// Members that take replicas in.
fn takers<'a>(state: &'a MetaState, census: &'a Census) -> impl Iterator<Item = u64> + 'a {
    let active = state.present().filter(|(_, member)| member.state == MemberState::Active);
    active.map(|(number, _)| number).filter(|number| census.alive.contains(number))
}

fn holds(state: &MetaState, of: impl Fn(&Placement) -> &[u64]) -> BTreeMap<u64, usize> {
    let mut holds: BTreeMap<u64, usize> = state.present().map(|(number, _)| (number, 0)).collect();
    for member in state.placement.iter().flat_map(|placement| of(placement).iter()) {
        *holds.entry(*member).or_default() += 1;
    }
    holds
}

/// The taker with the fewest replicas that has none of this shard.
fn least(state: &MetaState, census: &Census, placement: &Placement) -> Option<u64> {
    let holds = holds(state, |placement| &placement.replicas);
    takers(state, census).filter(|member| !placement.replicas.contains(member)).min_by_key(|member| (holds.get(member).copied(), *member))
}

fn step(shard: usize, placement: &Placement, to: Vec<u64>, reason: Reason) -> Option<Step> {
    Some(Step { shard: shard as u16, from_generation: placement.generation, from: placement.replicas.clone(), to, reason })
}

/// Replicas on nodes that are drained or lost for long go elsewhere, where there is an elsewhere.
fn leave(state: &MetaState, census: &Census) -> Option<Step> {
    let why = |member: &u64| match state.members.get(member).map(|member| member.state) {
        Some(MemberState::Draining) => Some(Reason::Drain),
        _ if census.lost.contains(member) => Some(Reason::Lost),
        _ => None,
    };
    state.placement.iter().enumerate().find_map(|(shard, placement)| {
        let (at, reason) = placement.replicas.iter().enumerate().find_map(|(at, member)| why(member).map(|reason| (at, reason)))?;
        match least(state, census, placement) {
            Some(heir) => {
                let mut to = placement.replicas.clone();
                to[at] = heir;
                step(shard, placement, to, reason)
            }
            // Nobody takes it; a drained node need not lead, at least.
            None if at == 0 => {
                let next = placement.replicas.iter().position(|member| why(member).is_none() && census.alive.contains(member))?;
                let mut to = placement.replicas.clone();
                to.swap(0, next);
                step(shard, placement, to, reason)
            }
            None => None,
        }
    })
}

fn fill(state: &MetaState, census: &Census) -> Option<Step> {
    let short = |placement: &&Placement| placement.replicas.len() < usize::from(state.replication);
    let (shard, placement) = state.placement.iter().enumerate().find(|(_, placement)| short(placement))?;
    let heir = least(state, census, placement)?;
    step(shard, placement, placement.replicas.iter().copied().chain([heir]).collect(), Reason::Missing)
}

fn balance_replicas(state: &MetaState, census: &Census) -> Option<Step> {
    let holds = holds(state, |placement| &placement.replicas);
    let takers: BTreeSet<u64> = takers(state, census).collect();
    let count = |member: &u64| holds.get(member).copied().unwrap_or(0);
    let fewest = takers.iter().copied().min_by_key(|member| (count(member), *member))?;
    let mut fullest: Vec<u64> = takers.iter().copied().filter(|member| count(member) > count(&fewest) + 1).collect();
    fullest.sort_by_key(|member| (std::cmp::Reverse(count(member)), *member));
    fullest.into_iter().find_map(|member| {
        let movable = |placement: &Placement| placement.replicas.contains(&member) && !placement.replicas.contains(&fewest);
        let all = state.placement.iter().enumerate().filter(|(_, placement)| movable(placement));
        // One that leads goes last: that costs a lead handed over twice, and would undo what an operator has just moved.
        let (shard, placement) = all.min_by_key(|(shard, placement)| (placement.replicas.first() == Some(&member), *shard))?;
        let to = placement.replicas.iter().map(|replica| if *replica == member { fewest } else { *replica }).collect();
        step(shard, placement, to, Reason::Balance)
    })
}

/// By who comes first of the replicas that are there: no data moves.
fn balance_leaders(state: &MetaState, census: &Census) -> Option<Step> {
    let leads = holds(state, |placement| placement.replicas.get(..1).unwrap_or(&[]));
    let takers: BTreeSet<u64> = takers(state, census).collect();
    let count = |member: &u64| leads.get(member).copied().unwrap_or(0);
    let candidates = state.placement.iter().enumerate().filter_map(|(shard, placement)| {
        let leader = placement.replicas.first()?;
        let rest = placement.replicas.iter().skip(1).filter(|member| takers.contains(member));
        let heir = rest.min_by_key(|member| (count(member), **member))?;
        (count(leader) > count(heir) + 1).then(|| (count(leader) - count(heir), shard, placement, *heir))
    });
    let (_, shard, placement, heir) = candidates.max_by_key(|(gain, shard, ..)| (*gain, std::cmp::Reverse(*shard)))?;
    let mut to = placement.replicas.clone();
    if let Some(at) = to.iter().position(|member| *member == heir) {
        to.swap(0, at);
    }
    step(shard, placement, to, Reason::Balance)
}

#[cfg(test)]
mod tests {
    use tallymesh_storage::shard::initial_settings;

    use super::*;
    use crate::founding::Founder;
    use crate::peer::NodeId;

    fn founder(number: u64) -> Founder {
        Founder { node: NodeId::from_member(number, 0), name: format!("n{number}"), address: format!("h{number}"), reads: 0 }
    }

    fn founded(nodes: u64, replication: u8) -> MetaState {
        let mut state = MetaState::default();
        let members = (1..=nodes).map(founder).collect();
        let found = MetaCommand::Found { cluster_id: "x".to_owned(), shards: 16, replication, settings: initial_settings(), members };
        state.apply(found).expect("founded");
        state
    }

    fn census(alive: impl IntoIterator<Item = u64>) -> Census {
        Census { alive: alive.into_iter().collect(), lost: BTreeSet::new() }
    }

    fn follow(state: &mut MetaState, census: &Census) -> Vec<Step> {
        let steps = all(state.clone(), census, 1_000);
        assert!(steps.len() < 200, "it comes to an end");
        for step in &steps {
            let added = step.to.iter().filter(|member| !step.from.contains(member)).count();
            assert!(added <= 1, "one replica at a time");
            state.apply(step.command()).expect("applies");
        }
        steps
    }

    fn counts(state: &MetaState, of: impl Fn(&Placement) -> &[u64]) -> Vec<usize> {
        holds(state, of).into_values().collect()
    }

    #[test]
    fn founded_fleets_need_no_step() {
        for (nodes, replication) in [(1, 1), (2, 1), (3, 1), (3, 3), (4, 3), (5, 3), (7, 3)] {
            let mut state = founded(nodes, replication);
            let steps = follow(&mut state, &census(1..=nodes));
            assert!(steps.iter().all(|step| step.reason == Reason::Balance));
            assert!(nodes > 3 || steps.is_empty(), "{nodes} nodes, {replication} copies: {steps:?}");
        }
    }

    #[test]
    fn new_node_gets_its_share_of_replicas_and_leaders() {
        let mut state = founded(3, 3);
        state.apply(MetaCommand::LetIn { asker: founder(4), dead: Vec::new() }).expect("let in");
        follow(&mut state, &census(1..=4));
        assert_eq!(counts(&state, |p| &p.replicas), [12, 12, 12, 12]);
        assert_eq!(counts(&state, |p| &p.replicas[..1]), [4, 4, 4, 4]);
    }

    #[test]
    fn drained_node_is_empty_in_the_end_or_leads_nothing_where_nobody_can_take_over() {
        let mut state = founded(4, 3);
        state.apply(MetaCommand::SetState { member: 2, state: MemberState::Draining }).expect("drains");
        follow(&mut state, &census(1..=4));
        assert_eq!(state.shards_of(2).count(), 0);
        assert!(state.placement.iter().all(|p| p.replicas.len() == 3));

        let mut state = founded(3, 3);
        state.apply(MetaCommand::SetState { member: 2, state: MemberState::Draining }).expect("drains");
        follow(&mut state, &census(1..=3));
        assert!(state.placement.iter().all(|p| p.replicas.len() == 3 && p.replicas[0] != 2));
    }

    #[test]
    fn dead_node_keeps_its_places_until_it_is_lost_for_good() {
        let mut state = founded(4, 3);
        let mut seen = census([1, 3, 4]);
        let before = state.shards_of(2).count();
        follow(&mut state, &seen);
        assert_eq!(state.shards_of(2).count(), before);
        seen.lost.insert(2);
        let steps = follow(&mut state, &seen);
        assert!(steps.iter().any(|step| step.reason == Reason::Lost));
        assert_eq!(state.shards_of(2).count(), 0);
    }

    #[test]
    fn leader_with_fewer_shards_than_its_heirs_is_left_alone() {
        let mut state = founded(3, 3);
        for placement in &mut state.placement[..12] {
            placement.replicas = vec![1, 2, 3];
        }
        let seen = census(1..=3);
        follow(&mut state, &seen);
        let leads = counts(&state, |p| &p.replicas[..1]);
        assert!(leads.iter().max().unwrap() - leads.iter().min().unwrap() <= 1, "{leads:?}");
    }

    #[test]
    fn what_an_operator_moved_stays_where_it_is_and_the_rest_makes_up_for_it() {
        for (nodes, replication) in [(4, 3), (5, 3), (7, 3)] {
            let settled = {
                let mut state = founded(nodes, replication);
                follow(&mut state, &census(1..=nodes));
                state
            };
            for shard in 0..settled.placement.len() as u16 {
                let mut state = settled.clone();
                let placement = state.placement[usize::from(shard)].clone();
                let to = (1..=nodes).find(|member| !placement.replicas.contains(member)).expect("one without a copy");
                let replicas = [to].into_iter().chain(placement.replicas[1..].iter().copied()).collect();
                state.apply(MetaCommand::Place { shard, from_generation: placement.generation, replicas }).expect("moved");
                follow(&mut state, &census(1..=nodes));
                assert_eq!(state.placement[usize::from(shard)].replicas[0], to, "{nodes} nodes: shard {shard}");
                let held = counts(&state, |p| &p.replicas);
                assert!(held.iter().max().unwrap() - held.iter().min().unwrap() <= 1, "{held:?}");
            }
        }
    }

    #[test]
    fn missing_replicas_are_made_where_a_node_came() {
        let mut state = founded(2, 3);
        assert!(state.placement.iter().all(|p| p.replicas.len() == 2));
        state.apply(MetaCommand::LetIn { asker: founder(3), dead: Vec::new() }).expect("let in");
        follow(&mut state, &census(1..=3));
        assert!(state.placement.iter().all(|p| p.replicas.len() == 3));
        let leads = counts(&state, |p| &p.replicas[..1]);
        assert!(leads.iter().max().unwrap() - leads.iter().min().unwrap() <= 1, "{leads:?}");
    }
}
