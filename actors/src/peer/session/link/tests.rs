use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::peer::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};

const A: NodeId = NodeId::from_u128(0xa);
const B: NodeId = NodeId::from_u128(0xb);
const SECOND: Duration = Duration::from_secs(1);

fn pair() -> (Link, Link) {
    (Link::new(1, B, true), Link::new(1, A, true))
}

fn rpc(lane: Lane, bytes: usize) -> Rpc {
    let body: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    Rpc { kind: RpcKind::AppendEntries, shard: ShardId(3), lane, body: body.into() }
}

fn frames(effects: Vec<Effect>) -> Vec<Frame> {
    let frame = |effect| match effect {
        Effect::Send(bytes) => {
            assert!(bytes.len() <= FRAME_BYTES_MAX);
            wire::decode(bytes).expect("own frame")
        }
        other => panic!("only frames are expected: {other:?}"),
    };
    effects.into_iter().map(frame).collect()
}

fn sent_bytes(frames: &[Frame], urgent: bool) -> usize {
    frames.iter().filter(|f| f.head.urgent == urgent).map(|f| f.body.len() + FRAME_COST_BYTES).sum()
}

#[test]
fn unanswered_bytes_stay_within_the_window_and_votes_pass_all_the_same() {
    let (mut a, _) = pair();
    let mut effects = Vec::new();
    for _ in 0..6 {
        a.ask(rpc(Lane::Normal, 4 << 20), SECOND, &mut effects).expect("queued");
    }
    let first = frames(std::mem::take(&mut effects));
    assert!(sent_bytes(&first, false) <= WINDOW_BYTES && sent_bytes(&first, false) > WINDOW_BYTES / 2);
    a.ask(rpc(Lane::Urgent, 100), SECOND, &mut effects).expect("sent");
    let vote = frames(std::mem::take(&mut effects));
    assert_eq!(vote.len(), 1, "the window of the normal lane does not hold it back");
    assert!(vote[0].head.urgent);
    for _ in 0..100 {
        a.ask(rpc(Lane::Urgent, 10_000), SECOND, &mut effects).expect("queued");
    }
    assert!(sent_bytes(&frames(effects), true) <= URGENT_WINDOW_BYTES);
}

#[test]
fn small_request_passes_a_large_one_that_is_on_its_way() {
    let (mut a, mut b) = pair();
    let mut effects = Vec::new();
    a.ask(rpc(Lane::Normal, 8 << 20), SECOND, &mut effects).expect("sent");
    a.ask(rpc(Lane::Normal, 100), SECOND, &mut effects).expect("queued");
    let (mut served, mut frames_until) = (None, 0);
    let mut wire: VecDeque<Frame> = frames(effects).into();
    while served.is_none() {
        let (mut at_b, mut at_a) = (Vec::new(), Vec::new());
        b.frame(wire.pop_front().expect("something is on its way"), &mut at_b);
        frames_until += 1;
        for effect in at_b {
            match effect {
                Effect::Serve { request, .. } => served = Some(request),
                Effect::Send(bytes) => a.frame(wire::decode(bytes).expect("frame"), &mut at_a),
                other => panic!("{other:?}"),
            }
        }
        wire.extend(frames(at_a));
    }
    assert_eq!(served, Some(2));
    assert!(frames_until * CHUNK_BYTES_MAX < 2 << 20, "it came after {frames_until} frames");
}

#[test]
fn limits_refuse_before_anything_is_sent() {
    let (mut a, _) = pair();
    let mut effects = Vec::new();
    let too_large = a.ask(rpc(Lane::Normal, MESSAGE_BYTES_MAX + 1), SECOND, &mut effects);
    assert!(matches!(too_large, Err(PeerError::TooLarge { .. })));
    assert_eq!(effects, []);
    let mut asked = 0;
    let full = loop {
        match a.ask(rpc(Lane::Normal, 16 << 20), SECOND, &mut effects) {
            Ok(_) => asked += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, PeerError::Overloaded { .. }) && asked >= QUEUED_BYTES_MAX / (16 << 20), "{asked}: {full}");
    a.ask(rpc(Lane::Urgent, 10), SECOND, &mut effects).expect("the other lane has room");

    let mut unfounded = Link::new(1, B, false);
    assert!(matches!(unfounded.ask(rpc(Lane::Normal, 1), SECOND, &mut effects), Err(PeerError::Refused { .. })));
    let founding = Rpc { kind: RpcKind::Founding, ..rpc(Lane::Normal, 1) };
    unfounded.ask(founding, SECOND, &mut effects).expect("the one thing that it may ask");
}

#[test]
fn lost_session_settles_every_question_and_abandons_every_work() {
    let (mut a, mut b) = pair();
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    let first = a.ask(rpc(Lane::Urgent, 10), SECOND, &mut at_a).expect("sent");
    let second = a.ask(rpc(Lane::Normal, 10), SECOND, &mut at_a).expect("sent");
    frames(at_a).into_iter().for_each(|frame| b.frame(frame, &mut at_b));
    assert_eq!(at_b.len(), 2);
    let lost = Err(PeerError::Lost(B));
    assert_eq!(a.lost(), [Effect::Settle { request: first, result: lost.clone() }, Effect::Settle { request: second, result: lost }]);
    assert_eq!(b.lost(), [Effect::Abandon { request: first }, Effect::Abandon { request: second }]);
}

#[test]
fn cancel_stops_the_work_of_the_peer_and_takes_back_what_was_not_sent() {
    let (mut a, mut b) = pair();
    let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
    let small = a.ask(rpc(Lane::Normal, 10), SECOND, &mut at_a).expect("sent");
    frames(std::mem::take(&mut at_a)).into_iter().for_each(|frame| b.frame(frame, &mut at_b));
    assert!(matches!(at_b[..], [Effect::Serve { request, .. }] if request == small));
    a.cancel(small, &mut at_a);
    at_b.clear();
    frames(std::mem::take(&mut at_a)).into_iter().for_each(|frame| b.frame(frame, &mut at_b));
    assert_eq!(at_b, [Effect::Abandon { request: small }]);
    at_b.clear();
    b.answer(small, Ok(Bytes::new()), &mut at_b);
    assert_eq!(at_b, [], "nobody waits for it");

    let large = a.ask(rpc(Lane::Normal, 16 << 20), SECOND, &mut at_a).expect("sent");
    let never_sent = a.ask(rpc(Lane::Normal, 16 << 20), SECOND, &mut at_a).expect("queued");
    at_a.clear();
    a.cancel(never_sent, &mut at_a);
    assert_eq!(at_a, [], "the peer never heard of it");
    a.cancel(large, &mut at_a);
    assert_eq!(frames(at_a).len(), 1);
    assert!(a.outgoing_bytes() <= WINDOW_BYTES + URGENT_WINDOW_BYTES);
}

#[test]
fn peer_that_breaks_the_rules_is_found_out() {
    let violation = |head: Head, body: &'static [u8]| {
        let (mut a, _) = pair();
        let mut effects = Vec::new();
        a.frame(Frame { head, body: Bytes::from_static(body) }, &mut effects);
        effects.iter().any(|effect| matches!(effect, Effect::Violation(_)))
    };
    let request = Head { request: 1, rpc: 2, kind: FrameKind::Request as u8, total: 4, ..Head::default() };
    assert!(!violation(request, b"body"));
    assert!(violation(Head { kind: 99, ..request }, b"body"));
    assert!(violation(Head { offset: 2, ..request }, b"body"));
    assert!(violation(Head { total: u32::MAX, ..request }, b"body"));
    assert!(violation(Head { total: 1, kind: FrameKind::Credit as u8, ..request }, b""));
    assert!(!violation(Head { rpc: 999, ..request }, b"body"), "a kind of a later version is refused, the session goes on");
}

/// Two links and the wires between them, driven by chance; what an answer must be is known from the question.
struct World {
    links: [Link; 2],
    wires: [VecDeque<Vec<u8>>; 2],
    /// Asked and not settled: the body that the answer must have.
    expected: [BTreeMap<u64, usize>; 2],
    serving: [Vec<(u64, Bytes)>; 2],
    settled: usize,
}

impl World {
    fn run(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(bytes) => self.wires[1 - at].push_back(bytes),
                Effect::Serve { request, body, .. } => {
                    assert!(body.is_empty() || (body.as_ptr() as usize).is_multiple_of(16));
                    self.serving[at].push((request, body));
                }
                Effect::Abandon { request } => self.serving[at].retain(|(serving, _)| *serving != request),
                Effect::Settle { request, result } => {
                    let expected = self.expected[at].remove(&request).expect("settled once");
                    assert_eq!(result.expect("answered"), rpc(Lane::Normal, expected).body);
                    self.settled += 1;
                }
                Effect::Violation(what) => panic!("{what}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_the_order_every_question_is_answered_with_its_own_answer(seed in any::<u64>()) {
        let mut random = StdRng::seed_from_u64(seed);
        let (a, b) = pair();
        let mut world = World { links: [a, b], wires: Default::default(), expected: Default::default(), serving: Default::default(), settled: 0 };
        let (mut to_ask, mut cancelled) = (60, 0);
        loop {
            let at = random.random_range(0..2);
            let mut effects = Vec::new();
            match random.random_range(0..8) {
                0 if to_ask > 0 => {
                    to_ask -= 1;
                    let bytes = [0, 1, 500, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 400_000][random.random_range(0..6)];
                    let lane = if random.random_bool(0.3) { Lane::Urgent } else { Lane::Normal };
                    let request = world.links[at].ask(rpc(lane, bytes), SECOND, &mut effects).expect("room");
                    world.expected[at].insert(request, bytes);
                }
                1 if cancelled < 10 => {
                    if let Some((&request, _)) = world.expected[at].iter().nth(random.random_range(0..10)) {
                        cancelled += 1;
                        world.expected[at].remove(&request);
                        world.links[at].cancel(request, &mut effects);
                    }
                }
                2 | 3 => {
                    let count = world.serving[at].len();
                    if count > 0 {
                        let (request, body) = world.serving[at].swap_remove(random.random_range(0..count));
                        world.links[at].answer(request, Ok(body), &mut effects);
                    }
                }
                _ => {
                    if let Some(bytes) = world.wires[at].pop_front() {
                        world.links[at].frame(wire::decode(bytes).expect("frame"), &mut effects);
                    }
                }
            }
            world.run(at, effects);
            let idle = world.wires.iter().all(VecDeque::is_empty) && world.serving.iter().all(Vec::is_empty);
            if to_ask == 0 && idle {
                break;
            }
        }
        prop_assert!(world.expected.iter().all(BTreeMap::is_empty), "{:?}", world.expected);
        prop_assert_eq!(world.settled + cancelled, 60);
    }
}
