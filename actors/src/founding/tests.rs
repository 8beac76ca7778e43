//! Founding with crashes, wipes and a bad network, by seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const TICK: Duration = Duration::from_millis(50);
/// Faults stop then, and all must be members of one cluster by the end.
const FAULTS_END: Duration = Duration::from_secs(12);
const END: Duration = Duration::from_secs(40);

/// A machine: what its disk holds, and the process if it runs.
struct Machine {
    address: String,
    node: NodeId,
    durable: Durable,
    process: Option<Founding>,
    /// Rises with every start: what was sent to an earlier process does not arrive.
    run: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Tick(usize),
    /// To a machine, and to this node and run of it if it was meant for them.
    Arrives {
        machine: usize,
        node: Option<u128>,
        run: u64,
        input: usize,
    },
    Start(usize),
    Fault,
}

struct World {
    random: StdRng,
    machines: Vec<Machine>,
    founders: Vec<String>,
    now: Duration,
    agenda: BinaryHeap<Reverse<(Duration, u64, Happens)>>,
    sequence: u64,
    /// Messages by number; `Happens` only has to be ordered.
    inputs: Vec<Input>,
    made: u64,
    loss: f64,
    delay_ms: u64,
    faults: [f64; 2],
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let founders = random.random_range(1..=5);
        let others = random.random_range(0..=2);
        let address = |at: usize| format!("10.0.0.{at}:7071");
        let machines = (0..founders + others).map(|at| {
            let node = NodeId::random(&mut random);
            Machine { address: address(at), node, durable: Durable::default(), process: None, run: 0 }
        });
        let machines: Vec<Machine> = machines.collect();
        let mut world = Self {
            founders: (0..founders).map(address).collect(),
            now: Duration::ZERO,
            agenda: BinaryHeap::new(),
            sequence: 0,
            inputs: Vec::new(),
            made: 0,
            loss: random.random_range(0.0..0.4),
            delay_ms: [5, 200, 2_500][random.random_range(0..3)],
            faults: [random.random_range(0.0..1.0), random.random_range(0.0..0.6)],
            machines,
            random,
        };
        for at in 0..world.machines.len() {
            let start = world.random.random_range(0..6_000);
            world.later(Duration::from_millis(start), Happens::Start(at));
        }
        world.later(Duration::ZERO, Happens::Fault);
        world
    }

    fn later(&mut self, wait: Duration, what: Happens) {
        self.sequence += 1;
        self.agenda.push(Reverse((self.now + wait, self.sequence, what)));
    }

    fn run(&mut self) {
        while let Some(Reverse((at, _, what))) = self.agenda.pop() {
            let settled = at > FAULTS_END && self.machines.iter().all(|machine| machine.durable.membership.is_some());
            if at > END || settled {
                break;
            }
            self.now = at;
            match what {
                Happens::Start(machine) => self.start(machine),
                Happens::Fault => self.fault(),
                Happens::Tick(machine) => {
                    if self.machines[machine].process.is_some() {
                        self.step(machine, Input::Tick);
                        self.later(TICK, Happens::Tick(machine));
                    }
                }
                Happens::Arrives { machine, node, run, input } => {
                    let is = &self.machines[machine];
                    if node.is_none_or(|node| node == is.node.as_u128() && run == is.run) && is.process.is_some() {
                        self.step(machine, self.inputs[input].clone());
                    }
                }
            }
            self.check();
        }
    }

    fn start(&mut self, machine: usize) {
        let is = &mut self.machines[machine];
        if is.process.is_some() {
            return;
        }
        is.run += 1;
        let me = Founder { node: is.node, name: format!("n{machine}"), address: is.address.clone(), reads: 0 };
        let config = Config { me, founders: self.founders.clone(), shape: "16".to_owned() };
        is.process = Some(Founding::new(config, is.durable.clone()));
        self.later(Duration::ZERO, Happens::Tick(machine));
    }

    /// Crashes, and wipes now and then, as long as faults last.
    fn fault(&mut self) {
        if self.now >= FAULTS_END {
            return;
        }
        let machine = self.random.random_range(0..self.machines.len());
        if self.random.random_bool(self.faults[0]) {
            self.crash(machine);
        }
        let wait = self.random.random_range(1..1_500);
        self.later(Duration::from_millis(wait), Happens::Fault);
    }

    fn crash(&mut self, machine: usize) {
        let wipe = self.random.random_bool(self.faults[1]) && !self.is_last_founder_of_others(machine);
        let is = &mut self.machines[machine];
        is.process = None;
        if wipe {
            is.durable = Durable::default();
            is.node = NodeId::random(&mut self.random);
        }
        let down = self.random.random_range(0..4_000);
        self.later(Duration::from_millis(down), Happens::Start(machine));
    }

    /// Founders can only know of each other: when all of them lose a cluster that others have joined, nobody tells them of it. That is not promised.
    fn is_last_founder_of_others(&self, machine: usize) -> bool {
        let holds = |at: &usize| self.machines[*at].durable.membership.is_some();
        let founders = 0..self.founders.len();
        let is_last = holds(&machine) && founders.clone().filter(holds).eq([machine]);
        let joins =
            |other: &Machine| other.durable.membership.is_some() || other.process.as_ref().is_some_and(|process| process.asking.is_some());
        is_last && self.machines[founders.end..].iter().any(joins)
    }

    fn step(&mut self, machine: usize, input: Input) {
        self.made += 1;
        let (id, now) = (format!("cluster-{}", self.made), self.now);
        let Some(process) = &mut self.machines[machine].process else { return };
        let effects = process.step(input, now, || id);
        for effect in effects {
            // A crash between any two effects: what was made durable stays, what was to be sent is not.
            if self.now < FAULTS_END && self.random.random_bool(0.01 * self.faults[0]) {
                self.crash(machine);
                return;
            }
            match effect {
                Effect::Persist(durable) => self.machines[machine].durable = durable,
                Effect::Send { to, message } => self.send(machine, &to, message),
                Effect::Join { via, request } => self.join(machine, via, request),
                Effect::Member(_) | Effect::Waiting(_) => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: &To, message: Message) {
        let found = |machine: &Machine| match to {
            To::Address(address) => machine.address == *address,
            To::Node(node) => machine.node == *node,
        };
        let Some(machine) = self.machines.iter().position(found) else { return };
        let input = Input::Message { from: self.machines[from].node, message };
        let copies = usize::from(!self.random.random_bool(self.lossy())) + usize::from(self.random.random_bool(self.lossy() / 4.0));
        for _ in 0..copies {
            // A connection is to a node and a run of it.
            self.deliver(machine, input.clone());
        }
    }

    /// The member decides when the request comes; its answer takes its time too.
    fn join(&mut self, from: usize, via: NodeId, request: u64) {
        let member = self.machines.iter().find(|machine| machine.node == via && machine.process.is_some());
        let Some(membership) = member.and_then(|machine| machine.durable.membership.clone()) else { return };
        if !self.random.random_bool(self.lossy()) {
            let input = if self.random.random_bool(0.2) {
                Input::TurnedAway { request, reason: "busy".to_owned() }
            } else {
                Input::LetIn { request, cluster_id: membership.cluster_id().to_owned() }
            };
            self.deliver(from, input);
        }
    }

    fn lossy(&self) -> f64 {
        if self.now < FAULTS_END { self.loss } else { 0.0 }
    }

    fn deliver(&mut self, machine: usize, input: Input) {
        let most = if self.now < FAULTS_END { self.delay_ms } else { 20 };
        let delay = Duration::from_millis(self.random.random_range(0..=most));
        let is = &self.machines[machine];
        let (node, run) = (Some(is.node.as_u128()), is.run);
        self.inputs.push(input);
        let input = self.inputs.len() - 1;
        self.later(delay, Happens::Arrives { machine, node, run, input });
    }

    /// At no moment do disks hold two clusters.
    fn check(&self) {
        let mut ids: Vec<&str> = self.machines.iter().filter_map(|m| m.durable.membership.as_ref()).map(Membership::cluster_id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() <= 1, "two clusters at {:?}: {ids:?}", self.now);
        let founded = |machine: &Machine| match &machine.durable.membership {
            Some(Membership::Founded(accepted)) => Some(accepted.clone()),
            _ => None,
        };
        let founded: Vec<Accepted> = self.machines.iter().filter_map(founded).collect();
        assert!(founded.windows(2).all(|pair| pair[0] == pair[1]), "its first members are the same for all");
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    world.run();
    for machine in &world.machines {
        let stands = machine.durable.membership.is_some();
        assert!(stands, "seed {seed}: {} ({}) is no member at the end", machine.address, machine.node);
    }
    world
}

#[test]
fn there_is_one_cluster_whatever_crashes_and_whoever_is_wiped() {
    let seeds = std::env::var("FOUNDING_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2_000);
    let (mut joined, mut founded, mut ids) = (0, 0, std::collections::BTreeSet::new());
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        let Ok(world) = result else { panic!("seed {seed} fails: FOUNDING_SEEDS={}", seed + 1) };
        for membership in world.machines.iter().filter_map(|machine| machine.durable.membership.as_ref()) {
            joined += usize::from(matches!(membership, Membership::Joined { .. }));
            founded += usize::from(matches!(membership, Membership::Founded(_)));
            ids.insert((seed, membership.cluster_id().to_owned()));
        }
    }
    assert_eq!(ids.len() as u64, seeds, "one for each seed");
    assert!(joined > founded / 10 && founded > joined / 10, "both ways in are taken: {founded} and {joined}");
}

#[test]
fn same_seed_runs_the_same_way() {
    let trace = |seed| {
        let world = run(seed);
        (world.sequence, world.inputs.len(), world.machines.iter().map(|machine| machine.node).collect::<Vec<_>>())
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

fn config(at: usize, founders: &[&str]) -> Config {
    let me = Founder { node: NodeId::from_u128(at as u128 + 1), name: format!("n{at}"), address: format!("a{at}"), reads: 0 };
    Config { me, founders: founders.iter().map(|&address| address.to_owned()).collect(), shape: "16".to_owned() }
}

fn said(founding: &mut Founding, reports: &[Report]) -> Vec<Waiting> {
    let mut effects = Vec::new();
    for report in reports {
        let message = Message::Report(report.clone());
        effects.extend(founding.step(Input::Message { from: report.me.node, message }, Duration::ZERO, || "id".to_owned()));
    }
    effects.into_iter().filter_map(|effect| if let Effect::Waiting(waiting) = effect { Some(waiting) } else { None }).collect()
}

#[test]
fn what_keeps_founders_apart_is_named() {
    let founders = ["a0", "a1", "a2"];
    let report = |at, change: fn(&mut Config)| {
        let mut config = config(at, &["a0", "a1", "a2"]);
        change(&mut config);
        Founding::new(config, Durable::default()).report()
    };
    let fresh = || Founding::new(config(0, &founders), Durable::default());
    assert_eq!(said(&mut fresh(), &[report(1, |_| {})]), [Waiting::Unreachable(vec!["a2".to_owned()])]);
    let last = |reports: &[Report]| said(&mut fresh(), reports).pop();
    let other_founders = report(2, |config| drop(config.founders.pop()));
    assert!(matches!(last(&[report(1, |_| {}), other_founders]), Some(Waiting::FoundersDiffer { at, .. }) if at == "a2"));
    let other_shape = report(2, |config| config.shape = "32".to_owned());
    assert!(matches!(last(&[report(1, |_| {}), other_shape]), Some(Waiting::ShapeDiffers { at, .. }) if at == "a2"));
    let same_name = report(2, |config| config.me.name = "n1".to_owned());
    assert!(matches!(last(&[report(1, |_| {}), same_name]), Some(Waiting::NotDistinct { .. })));
    let of = |id: &str, mut report: Report| {
        report.membership = Some(Membership::Joined { cluster_id: id.to_owned() });
        report
    };
    assert!(matches!(last(&[of("x", report(1, |_| {})), of("y", report(2, |_| {}))]), Some(Waiting::TwoClusters { .. })));
    assert_eq!(last(&[report(1, |_| {}), report(2, |_| {})]), Some(Waiting::ForProposal));
}

#[test]
fn only_founder_founds_alone_and_at_once() {
    let mut alone = Founding::new(config(0, &["a0"]), Durable::default());
    let effects = alone.step(Input::Tick, Duration::ZERO, || "id".to_owned());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Member(Membership::Founded(_)))));
    let effects = Founding::new(config(3, &["a0"]), Durable::default()).step(Input::Tick, Duration::ZERO, || "id".to_owned());
    assert!(effects.iter().all(|effect| !matches!(effect, Effect::Member(_))), "a node that is no founder waits");
}
