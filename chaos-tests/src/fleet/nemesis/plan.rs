//! The schedule of a run: what harm is done, to whom, for how long. Pure: the same seed gives the same schedule.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// A kind of harm, as `--faults` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SIGKILL of the leader of some shard.
    KillLeader,
    /// SIGKILL of any node.
    Kill,
    /// SIGKILL of all nodes at once.
    KillAll,
    /// SIGKILL of a majority: nothing may be acked until it is back, and then without an operator.
    KillMajority,
    /// SIGSTOP for a while.
    Pause,
    /// A node is cut off from all others.
    Isolate,
    /// What a node sends is lost, or what is sent to it.
    OneWay,
    /// Two nodes do not reach each other, but both reach the others.
    NonTransitive,
    /// Everything is late and some of it lost.
    Slow,
    /// SIGTERM and a start.
    Restart,
    /// SIGTERM and a start of one node after the other.
    Rolling,
    /// A node loses its disk and comes back under its name.
    Wipe,
    /// An operator has a node give away what it leads, and takes it back.
    Drain,
    /// SIGKILL of as many nodes at once as may fail.
    KillMinority,
    /// As many nodes as may fail are cut off from the others, not from each other.
    IsolateMinority,
    /// An operator has a shard led by a node that has no copy of it: the copy moves there.
    Move,
}

impl Kind {
    pub const ALL: [Self; 16] = [
        Self::KillLeader,
        Self::Kill,
        Self::KillAll,
        Self::KillMajority,
        Self::Pause,
        Self::Isolate,
        Self::OneWay,
        Self::NonTransitive,
        Self::Slow,
        Self::Restart,
        Self::Rolling,
        Self::Wipe,
        Self::Drain,
        Self::KillMinority,
        Self::IsolateMinority,
        Self::Move,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KillLeader => "kill-leader",
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::KillMajority => "kill-majority",
            Self::Pause => "pause",
            Self::Isolate => "isolate",
            Self::OneWay => "one-way",
            Self::NonTransitive => "non-transitive",
            Self::Slow => "slow",
            Self::Restart => "restart",
            Self::Rolling => "rolling",
            Self::Wipe => "wipe",
            Self::Drain => "drain",
            Self::KillMinority => "kill-minority",
            Self::IsolateMinority => "isolate-minority",
            Self::Move => "move",
        }
    }

    /// In a fleet of fewer nodes, with so many copies of each shard, there is nothing to do, or nothing that another kind does not do.
    pub const fn nodes_min(self, copies: usize) -> usize {
        match self {
            Self::KillMinority | Self::IsolateMinority => 5,
            Self::Move => copies + 1,
            _ => 1,
        }
    }

    /// Nobody's request may fail.
    pub const fn is_graceful(self) -> bool {
        matches!(self, Self::Restart | Self::Rolling | Self::Drain | Self::Move)
    }

    /// Clients may find nobody who takes writes.
    pub const fn takes_majority(self) -> bool {
        matches!(self, Self::KillAll | Self::KillMajority)
    }

    /// How long it lasts, in seconds: least and most.
    const fn lasts(self) -> (f64, f64) {
        match self {
            Self::KillLeader | Self::Kill => (0.5, 4.0),
            Self::KillAll => (0.1, 1.0),
            Self::KillMajority | Self::KillMinority => (2.0, 5.0),
            Self::Pause => (1.0, 60.0),
            Self::Isolate | Self::OneWay | Self::NonTransitive | Self::IsolateMinority => (2.0, 20.0),
            Self::Slow => (3.0, 10.0),
            Self::Restart | Self::Rolling => (0.0, 0.5),
            Self::Wipe => (0.5, 3.0),
            Self::Drain => (0.5, 3.0),
            Self::Move => (0.0, 0.0),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("there is no fault `{text}`; there are {}", all.join(", "))
        })
    }
}

/// One harm. Nodes and shards by number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    pub kind: Kind,
    /// Of a leader, or for [`Kind::Move`]: the shard, whoever leads it by then. Else the node itself, or the first of several.
    pub target: usize,
    /// A second node, where there is one; for [`Kind::OneWay`] even means what it sends, odd what it gets; for [`Kind::Move`] which of the nodes that may take it.
    pub other: usize,
    #[serde(serialize_with = "seconds")]
    pub lasts: Duration,
    /// Quiet time once all is well again.
    #[serde(serialize_with = "seconds")]
    pub then: Duration,
    /// Of a cut: streams do not go on afterwards but end.
    pub break_off: bool,
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, other, lasts) = (self.target + 1, self.other + 1, self.lasts.as_secs_f64());
        let after = if self.break_off { ", streams broken off" } else { "" };
        match self.kind {
            Kind::KillLeader => write!(f, "kill the leader of shard {}, start it after {lasts:.1} s", self.target),
            Kind::Kill => write!(f, "kill n{n}, start it after {lasts:.1} s"),
            Kind::KillAll => write!(f, "kill all nodes, start them after {lasts:.1} s"),
            Kind::KillMajority => write!(f, "kill a majority from n{n} on, start it after {lasts:.1} s"),
            Kind::Pause => write!(f, "pause the leader of shard {} for {lasts:.1} s", self.target),
            Kind::Isolate => write!(f, "isolate n{n} for {lasts:.1} s{after}"),
            Kind::OneWay if self.other.is_multiple_of(2) => write!(f, "lose what n{n} sends for {lasts:.1} s{after}"),
            Kind::OneWay => write!(f, "lose what n{n} is sent for {lasts:.1} s{after}"),
            Kind::NonTransitive => write!(f, "cut n{n} from n{other} only, for {lasts:.1} s{after}"),
            Kind::Slow => write!(f, "slow, lossy network for {lasts:.1} s"),
            Kind::Restart => write!(f, "terminate n{n}, start it after {lasts:.1} s"),
            Kind::Rolling => write!(f, "terminate and start one node after the other"),
            Kind::Wipe => write!(f, "kill n{n}, wipe it, start it after {lasts:.1} s"),
            Kind::Drain => write!(f, "drain n{n}, take it back {lasts:.1} s after it led nothing"),
            Kind::KillMinority => write!(f, "kill a minority from n{n} on, start it after {lasts:.1} s"),
            Kind::IsolateMinority => write!(f, "isolate a minority from n{n} on for {lasts:.1} s{after}"),
            Kind::Move => write!(f, "move shard {} to a node that has no copy of it", self.target),
        }
    }
}

/// What a schedule is drawn from.
#[derive(Clone, Debug)]
pub struct Outlines {
    pub nodes: usize,
    pub shards: u16,
    pub kinds: Vec<Kind>,
    pub steps: usize,
    /// No harm lasts longer.
    pub lasts_max: Duration,
}

/// Every kind comes up before any comes up again, in an order of its own each time.
pub fn plan(seed: u64, outlines: &Outlines) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut steps = Vec::with_capacity(outlines.steps);
    let mut deck: Vec<Kind> = Vec::new();
    while steps.len() < outlines.steps && !outlines.kinds.is_empty() {
        if deck.is_empty() {
            deck = outlines.kinds.clone();
            deck.shuffle(&mut random);
        }
        let Some(kind) = deck.pop() else { break };
        steps.push(step(kind, outlines, &mut random));
    }
    steps
}

fn step(kind: Kind, outlines: &Outlines, random: &mut StdRng) -> Step {
    let nodes: Vec<usize> = (0..outlines.nodes).collect();
    let pair: Vec<usize> = nodes.choose_multiple(random, 2).copied().collect();
    let target = match kind {
        Kind::KillLeader | Kind::Pause | Kind::Move => usize::from(random.random_range(0..outlines.shards)),
        _ => pair[0],
    };
    let other = if kind == Kind::OneWay { random.random_range(0..2) } else { pair.get(1).copied().unwrap_or_default() };
    let (least, most) = kind.lasts();
    // Long ones are rarer: the square of a uniform number.
    let lasts = least + (most - least) * random.random_range(0.0..1.0f64).powi(2);
    Step {
        kind,
        target,
        other,
        lasts: Duration::from_secs_f64(lasts).min(outlines.lasts_max),
        then: Duration::from_secs_f64(random.random_range(0.5..2.0)),
        break_off: random.random_bool(0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlines() -> Outlines {
        Outlines { nodes: 5, shards: 16, kinds: Kind::ALL.to_vec(), steps: 80, lasts_max: Duration::from_secs(60) }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_one_does_not() {
        assert_eq!(plan(7, &outlines()), plan(7, &outlines()));
        assert_ne!(plan(7, &outlines()), plan(8, &outlines()));
    }

    #[test]
    fn every_kind_comes_up_and_no_node_is_cut_from_itself() {
        let steps = plan(1, &outlines());
        for kind in Kind::ALL {
            assert_eq!(steps.iter().filter(|step| step.kind == kind).count(), 5, "{kind}");
        }
        assert!(steps.iter().all(|step| step.kind != Kind::NonTransitive || step.target != step.other));
    }

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("earthquake".parse::<Kind>().is_err_and(|error| error.contains("kill-leader")));
    }
}
