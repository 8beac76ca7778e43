use proptest::prelude::*;

use super::*;
use crate::replicator::AppliedPart;

const SHARD: ShardId = ShardId(3);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn part(ticket: u32, bytes: usize, deadline: u64) -> Input<u32> {
    Input::Append(Part { request: 0, bytes: Bytes::from(vec![ticket as u8; bytes]), arrived: ms(0), deadline: ms(deadline), ticket })
}

struct Run {
    engine: GroupCommit<u32>,
    proposed: Vec<(u64, usize)>,
    answers: Vec<(u32, Result<PartOutcome, AppendError>)>,
}

impl Run {
    fn new() -> Self {
        Self { engine: GroupCommit::new(SHARD), proposed: Vec::new(), answers: Vec::new() }
    }

    fn step(&mut self, input: Input<u32>, now: u64) {
        let mut effects = Vec::new();
        self.engine.step(input, ms(now), &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect<u32>>) {
        for effect in effects {
            match effect {
                Effect::Propose { proposal, parts } => self.proposed.push((proposal, parts.len())),
                Effect::Answer { ticket, result } => self.answers.push((ticket, result)),
            }
        }
    }

    fn commit(&mut self, proposal: u64, parts: usize) {
        let parts = (0..parts).map(|i| AppliedPart { counted: i as u32, ..AppliedPart::default() }).collect();
        self.step(Input::Settled { proposal, result: Ok(Committed { index: 100 + proposal, parts }) }, 0);
    }
}

#[test]
fn parts_that_wait_for_the_log_become_one_entry() {
    let mut run = Run::new();
    for ticket in 0..7 {
        run.step(part(ticket, 10, 1_000), 0);
    }
    assert_eq!(run.proposed, [(0, 1), (1, 1)], "the first two go at once, the others wait");
    run.commit(0, 1);
    assert_eq!(run.proposed, [(0, 1), (1, 1), (2, 5)]);
    run.commit(1, 1);
    run.commit(2, 5);
    assert!(run.engine.is_idle());
    let expected = [(0, 0, 100), (1, 0, 101), (2, 0, 102), (3, 1, 102), (4, 2, 102), (5, 3, 102), (6, 4, 102)];
    let expected = expected.map(|(ticket, counted, index)| (ticket, Ok(PartOutcome { counted, duplicates: 0, index })));
    assert_eq!(run.answers, expected);
}

#[test]
fn entries_stay_below_their_limits() {
    let mut run = Run::new();
    run.step(part(0, 1, 1_000), 0);
    run.step(part(1, 1, 1_000), 0);
    for ticket in 2..5 {
        run.step(part(ticket, MERGED_ENTRY_BYTES_MAX / 2, 1_000), 0);
    }
    run.step(part(5, MERGED_ENTRY_BYTES_MAX + 1, 1_000), 0);
    for ticket in 0..ENTRY_PARTS_MAX as u32 + 1 {
        run.step(part(ticket, 1, 1_000), 0);
    }
    for proposal in 0..6 {
        let parts = run.proposed[proposal].1;
        run.commit(proposal as u64, parts);
    }
    let sizes: Vec<usize> = run.proposed.iter().map(|p| p.1).collect();
    assert_eq!(sizes, [1, 1, 2, 1, 1, ENTRY_PARTS_MAX, 1], "a part over the limit travels alone");
}

#[test]
fn what_nobody_waits_for_is_dropped_before_it_is_proposed() {
    let mut run = Run::new();
    for ticket in 0..4 {
        run.step(part(ticket, 1, if ticket == 2 { 50 } else { 1_000 }), 0);
    }
    run.step(Input::Time { tick_wanted: false }, 60);
    assert_eq!(run.answers, [(2, Err(AppendError::Timeout { shard: SHARD, waited_ms: 60 }))]);
    run.commit(0, 1);
    assert_eq!(run.proposed.last(), Some(&(2, 1)), "ticket 3 alone");
}

#[test]
fn stop_answers_everything_and_refuses_what_comes_after() {
    let mut run = Run::new();
    for ticket in 0..4 {
        run.step(part(ticket, 1, 1_000), 0);
    }
    run.step(Input::Settled { proposal: 0, result: Err(ReplicatorError::Stopped("sync failed".to_owned())) }, 0);
    run.step(part(4, 1, 1_000), 0);
    let tickets: Vec<u32> = run.answers.iter().map(|a| a.0).collect();
    assert_eq!(tickets, [0, 1, 2, 3, 4]);
    assert!(run.answers.iter().all(|a| a.1 == Err(AppendError::Stopped { shard: SHARD, detail: "sync failed".to_owned() })));
    run.step(Input::Time { tick_wanted: true }, 0);
    assert_eq!(run.proposed.len(), 2, "a stopped shard proposes nothing");
}

#[test]
fn tick_is_proposed_only_by_an_idle_shard_that_wants_one() {
    let mut run = Run::new();
    run.step(Input::Time { tick_wanted: false }, 0);
    assert!(run.proposed.is_empty());
    run.step(Input::Time { tick_wanted: true }, 0);
    run.step(Input::Time { tick_wanted: true }, 1);
    assert_eq!(run.proposed, [(0, 0)], "one at a time");
    run.commit(0, 0);
    run.step(part(1, 1, 1_000), 2);
    run.step(Input::Time { tick_wanted: true }, 3);
    assert_eq!(run.proposed, [(0, 0), (1, 1)]);
}

#[test]
fn refused_part_does_not_spoil_its_neighbours() {
    let mut run = Run::new();
    run.step(part(0, 1, 1_000), 0);
    let refused = AppliedPart { refused: Some("damaged".to_owned()), ..AppliedPart::default() };
    run.step(Input::Settled { proposal: 0, result: Ok(Committed { index: 1, parts: vec![refused] }) }, 0);
    assert_eq!(run.answers, [(0, Err(AppendError::Refused { shard: SHARD, detail: "damaged".to_owned() }))]);
}

proptest! {
    /// Whatever happens in whatever order, each part is answered once and the order of proposals is the order of arrival.
    #[test]
    fn every_part_is_answered_exactly_once(actions in prop::collection::vec((0u8..10, 1u64..100, 0usize..3_000_000), 1..200)) {
        let mut run = Run::new();
        let (mut now, mut tickets) = (0u64, 0u32);
        let mut settled = std::collections::BTreeSet::new();
        for (action, wait, bytes) in actions {
            now += wait / 4;
            match action {
                0..6 => {
                    run.step(part(tickets, bytes, now + wait), now);
                    tickets += 1;
                }
                6..9 => {
                    if let Some(&(proposal, parts)) = run.proposed.iter().find(|p| !settled.contains(&p.0)) {
                        settled.insert(proposal);
                        run.commit(proposal, parts);
                    }
                }
                _ => run.step(Input::Time { tick_wanted: wait % 2 == 0 }, now),
            }
            prop_assert!(run.proposed.len() - settled.len() <= ENTRIES_IN_FLIGHT_MAX);
        }
        let mut effects = Vec::new();
        run.engine.stop("end", &mut effects);
        run.take(effects);
        let mut answered: Vec<u32> = run.answers.iter().map(|a| a.0).collect();
        answered.sort_unstable();
        prop_assert_eq!(answered, (0..tickets).collect::<Vec<_>>());
        prop_assert!(run.proposed.is_sorted_by_key(|p| p.0));
    }
}

#[test]
fn what_an_earlier_term_left_open_blocks_nothing() {
    let mut engine = GroupCommit::new(ShardId(0));
    let mut effects = Vec::new();
    let part = |ticket: u32| Part {
        request: 0,
        bytes: Bytes::from_static(b"x"),
        arrived: Duration::ZERO,
        deadline: Duration::from_secs(100),
        ticket,
    };
    for ticket in 0..5 {
        engine.step(Input::Append(part(ticket)), Duration::ZERO, &mut effects);
    }
    effects.clear();
    engine.step(Input::NewTerm, Duration::ZERO, &mut effects);
    let answered = |effect: &Effect<u32>| match effect {
        Effect::Answer { ticket, result: Err(AppendError::NotLeader { .. }) } => Some(*ticket),
        _ => None,
    };
    assert_eq!(effects.iter().filter_map(answered).collect::<Vec<_>>(), [0, 1]);
    assert!(matches!(effects.last(), Some(Effect::Propose { parts, .. }) if parts.len() == 3), "{effects:?}");
    effects.clear();
    // A late outcome of the earlier term is nobody's any more.
    engine.step(Input::Settled { proposal: 0, result: Ok(Committed::default()) }, Duration::ZERO, &mut effects);
    assert!(effects.is_empty(), "{effects:?}");
}
