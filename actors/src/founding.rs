//! How nodes come to be one cluster: once, and only one.
//!
//! Founders are each started with the peer addresses of all founders. They found when every one of these addresses answers and reports that its data belongs to
//! no cluster. Everybody else, and a founder who comes back with an empty directory, joins.
//!
//! # Why there is never a second cluster
//!
//! The founder with the lowest id proposes a cluster under a [`Ballot`], naming the node ids of all founders. Each founder makes the proposal durable, and with that gives
//! up any lower one, before it accepts. The proposer's cluster exists when **all** of them accepted and its own acceptance is still the same; the others learn it from
//! a member's report, if theirs is the same ballot. As it takes all founders:
//!
//! - A founder that is a member accepts nothing, so there is no second cluster while any member keeps its data.
//! - A node whose directory was emptied has another id: what its former self accepted does not count for it.
//! - Of two proposals the lower one cannot be completed once any founder accepted the higher one.
//! - A node that is asking to be let in accepts nothing meanwhile, and an answer that comes after it gave up asking does not count.
//!
//! If all members lose their data before anybody else learned of the cluster, nothing of it is left and another one may be founded. Founders know of each other
//! only: if **all** of them lose their data at once, others who had joined keep them from founding again as long as one of those is connected ([`Input::Met`]),
//! not if none is.
//!
//! This is an engine: no I/O, no clock. [`Founding::step`] is driven by `drive` below, and by a simulation with crashes, wipes and a bad network in the tests.
//! What an effect makes durable must be durable before later effects are carried out.

pub mod driver;
pub mod join;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::peer::NodeId;

/// How often others are asked how they stand.
pub const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// A report older than this says nothing about the present.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(2);
/// A proposal or a request to be let in that is not settled by then is given up.
pub const ROUND_TIME_MAX: Duration = Duration::from_secs(2);
/// Founders of one cluster.
pub const FOUNDERS_MAX: usize = 64;

/// Orders proposals. Two of one number are of different proposers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    pub round: u64,
    pub proposer: NodeId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    pub node: NodeId,
    pub name: String,
    pub address: String,
    /// The newest format of log entries that its build reads ([`tallymesh_protocol::event::command::FORMAT`]); 0 where it was not told.
    #[serde(default)]
    pub reads: u16,
}

/// A cluster as it was founded; its first members are the first voters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    pub cluster_id: String,
    pub founders: Vec<Founder>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub ballot: Ballot,
    pub seed: Seed,
}

/// Where a node's data belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Membership {
    /// It was there when the cluster was founded.
    Founded(Accepted),
    /// It was let in, or its data is older than founding by several.
    Joined { cluster_id: String },
}

impl Membership {
    pub fn cluster_id(&self) -> &str {
        match self {
            Self::Founded(accepted) => &accepted.seed.cluster_id,
            Self::Joined { cluster_id } => cluster_id,
        }
    }
}

/// What has to survive a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    pub accepted: Option<Accepted>,
    pub membership: Option<Membership>,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub me: Founder,
    /// The founders it was started with, sorted.
    pub founders: Vec<String>,
    /// What all founders must have the same: shards, replication, definitions. Equal text is equal shape.
    pub shape: String,
    /// Highest ballot it accepted.
    pub ballot: Option<Ballot>,
    pub membership: Option<Membership>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// How do you stand? Answered by a report.
    Ask,
    Report(Report),
    /// Answered by `Accepted`, or by a report that says why not.
    Propose(Accepted),
    Accepted(Ballot),
}

/// What happened. Messages come with who sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Tick,
    Message {
        from: NodeId,
        message: Message,
    },
    /// Somebody is there who belongs to a cluster, founder or not.
    Met {
        member: Founder,
        cluster_id: String,
    },
    /// A member let this node in, after the request with this number.
    LetIn {
        request: u64,
        cluster_id: String,
    },
    /// A member refused it.
    TurnedAway {
        request: u64,
        reason: String,
    },
}

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// Whoever answers there now.
    Address(String),
    /// This node and no successor of it.
    Node(NodeId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Before anything that follows.
    Persist(Durable),
    Send {
        to: To,
        message: Message,
    },
    /// Ask this member to be let in; answered by `LetIn` or `TurnedAway`.
    Join {
        via: NodeId,
        request: u64,
    },
    /// The end: this node is a member.
    Member(Membership),
    /// Why there is no cluster yet; told when it changes.
    Waiting(Waiting),
}

/// For an operator: what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// These addresses do not answer.
    Unreachable(Vec<String>),
    FoundersDiffer {
        at: String,
        theirs: Vec<String>,
    },
    ShapeDiffers {
        at: String,
        theirs: String,
    },
    /// Two addresses, one node; or two founders with one name.
    NotDistinct {
        at: Vec<String>,
    },
    TwoClusters {
        at: Vec<String>,
    },
    TurnedAway(String),
    /// All is well; the founder with the lowest id does the rest.
    ForProposal,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(at) => write!(f, "founders that are not reached yet: {}; all of them must be, once", at.join(", ")),
            Self::FoundersDiffer { at, theirs } => {
                write!(f, "the node at {at} was started with other founders ({}): give all founders the same --join", theirs.join(", "))
            }
            Self::ShapeDiffers { at, theirs } => {
                write!(f, "the node at {at} is configured differently ({theirs}): founders need the same shards, replication and metrics")
            }
            Self::NotDistinct { at } => write!(f, "{} are one node, or have one name: founders must be different nodes", at.join(" and ")),
            Self::TwoClusters { at } => {
                write!(
                    f,
                    "{} belong to different clusters: start the ones that do not belong here with empty directories",
                    at.join(" and ")
                )
            }
            Self::TurnedAway(reason) => write!(f, "the cluster does not let this node in: {reason}"),
            Self::ForProposal => f.write_str("all founders are there"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    pub me: Founder,
    /// Peer addresses of all founders. This node is one if its own is among them.
    pub founders: Vec<String>,
    pub shape: String,
}

struct Round {
    proposal: Accepted,
    accepted: BTreeSet<NodeId>,
    began: Duration,
}

struct Asking {
    request: u64,
    began: Duration,
}

pub struct Founding {
    config: Config,
    durable: Durable,
    reports: BTreeMap<NodeId, (Report, Duration)>,
    round: Option<Round>,
    asking: Option<Asking>,
    requests: u64,
    asked_at: Option<Duration>,
    highest_round: u64,
    said: Option<Waiting>,
    turned_away: Option<String>,
}

impl Founding {
    pub fn new(mut config: Config, durable: Durable) -> Self {
        config.founders.sort();
        config.founders.dedup();
        let highest_round = durable.accepted.as_ref().map_or(0, |accepted| accepted.ballot.round);
        Self {
            config,
            durable,
            reports: BTreeMap::new(),
            round: None,
            asking: None,
            requests: 0,
            asked_at: None,
            highest_round,
            said: None,
            turned_away: None,
        }
    }

    pub fn membership(&self) -> Option<&Membership> {
        self.durable.membership.as_ref()
    }

    pub fn report(&self) -> Report {
        Report {
            me: self.config.me.clone(),
            founders: self.config.founders.clone(),
            shape: self.config.shape.clone(),
            ballot: self.durable.accepted.as_ref().map(|accepted| accepted.ballot),
            membership: self.durable.membership.clone(),
        }
    }

    /// `new_id` makes the id of a cluster; it must differ from every other one's.
    pub fn step(&mut self, input: Input, now: Duration, new_id: impl FnOnce() -> String) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Tick => {}
            Input::Message { from, message } => self.message(from, message, now, &mut effects),
            Input::Met { member, cluster_id } => {
                // Founders are asked themselves: they know more.
                if !self.config.founders.contains(&member.address) {
                    let membership = Some(Membership::Joined { cluster_id });
                    let (founders, shape) = (Vec::new(), String::new());
                    self.reports.insert(member.node, (Report { me: member, founders, shape, ballot: None, membership }, now));
                }
            }
            Input::LetIn { request, cluster_id } => {
                if self.asking.as_ref().is_some_and(|asking| asking.request == request) && self.membership().is_none() {
                    self.become_member(Membership::Joined { cluster_id }, &mut effects);
                }
            }
            Input::TurnedAway { request, reason } => {
                if self.asking.take_if(|asking| asking.request == request).is_some() {
                    self.turned_away = Some(reason);
                }
            }
        }
        if self.membership().is_none() {
            self.proceed(now, new_id, &mut effects);
        }
        effects
    }

    fn message(&mut self, from: NodeId, message: Message, now: Duration, effects: &mut Vec<Effect>) {
        match message {
            Message::Ask => effects.push(Effect::Send { to: To::Node(from), message: Message::Report(self.report()) }),
            Message::Report(report) if report.me.node == from => {
                self.highest_round = self.highest_round.max(report.ballot.map_or(0, |ballot| ballot.round));
                self.reports.retain(|_, (known, _)| known.me.address != report.me.address);
                self.reports.insert(from, (report, now));
            }
            Message::Report(_) => {}
            Message::Propose(proposal) => {
                self.highest_round = self.highest_round.max(proposal.ballot.round);
                let answer = match self.accept(proposal, effects) {
                    Some(ballot) => Message::Accepted(ballot),
                    None => Message::Report(self.report()),
                };
                effects.push(Effect::Send { to: To::Node(from), message: answer });
            }
            Message::Accepted(ballot) => {
                if let Some(round) = &mut self.round
                    && round.proposal.ballot == ballot
                {
                    round.accepted.insert(from);
                }
            }
        }
    }

    /// The ballot, if the proposal is accepted: now, or it was before.
    fn accept(&mut self, proposal: Accepted, effects: &mut Vec<Effect>) -> Option<Ballot> {
        let ballot = proposal.ballot;
        let names_me = proposal.seed.founders.iter().any(|founder| founder.node == self.config.me.node);
        let given = self.durable.accepted.as_ref().map(|accepted| accepted.ballot);
        if self.membership().is_some() || self.asking.is_some() || !names_me || given > Some(ballot) {
            return None;
        }
        if given != Some(ballot) {
            self.durable.accepted = Some(proposal);
            effects.push(Effect::Persist(self.durable.clone()));
        }
        Some(ballot)
    }

    fn become_member(&mut self, membership: Membership, effects: &mut Vec<Effect>) {
        self.round = None;
        self.asking = None;
        self.durable.membership = Some(membership.clone());
        effects.push(Effect::Persist(self.durable.clone()));
        effects.push(Effect::Member(membership));
    }

    fn proceed(&mut self, now: Duration, new_id: impl FnOnce() -> String, effects: &mut Vec<Effect>) {
        if self.asked_at.is_none_or(|at| now >= at + ASK_INTERVAL) {
            self.asked_at = Some(now);
            let others = self.config.founders.iter().filter(|address| **address != self.config.me.address);
            effects.extend(others.map(|address| Effect::Send { to: To::Address(address.clone()), message: Message::Ask }));
        }
        self.reports.retain(|_, (_, at)| now < *at + REPORT_AGE_MAX);
        if self.round.as_ref().is_some_and(|round| now >= round.began + ROUND_TIME_MAX) {
            self.round = None;
        }
        if self.asking.as_ref().is_some_and(|asking| now >= asking.began + ROUND_TIME_MAX) {
            self.asking = None;
        }
        if let Some(ours) = self.learn() {
            self.become_member(Membership::Founded(ours), effects);
            return;
        }
        if self.complete() {
            if let Some(accepted) = self.durable.accepted.clone() {
                self.become_member(Membership::Founded(accepted), effects);
            }
            return;
        }
        let waiting = self.join_or_found(now, new_id, effects);
        if waiting.is_some() && waiting != self.said {
            self.said = waiting.clone();
            effects.extend(waiting.map(Effect::Waiting));
        }
    }

    /// A member founded its cluster by the very proposal that this node accepted.
    fn learn(&self) -> Option<Accepted> {
        let ours = self.durable.accepted.as_ref()?;
        let same = |report: &Report| matches!(&report.membership, Some(Membership::Founded(theirs)) if theirs == ours);
        self.reports.values().any(|(report, _)| same(report)).then(|| ours.clone())
    }

    /// Everybody named in this node's proposal accepted it, and so does this node still.
    fn complete(&self) -> bool {
        let Some(round) = &self.round else { return false };
        let all = round.proposal.seed.founders.iter().all(|founder| round.accepted.contains(&founder.node));
        all && self.durable.accepted.as_ref() == Some(&round.proposal)
    }

    fn join_or_found(&mut self, now: Duration, new_id: impl FnOnce() -> String, effects: &mut Vec<Effect>) -> Option<Waiting> {
        let members: Vec<&Report> = self.reports.values().map(|(report, _)| report).filter(|report| report.membership.is_some()).collect();
        if let Some(first) = members.first() {
            let id = |report: &Report| report.membership.as_ref().map(|membership| membership.cluster_id().to_owned());
            if let Some(other) = members.iter().find(|other| id(other) != id(first)) {
                return Some(Waiting::TwoClusters { at: vec![first.me.address.clone(), other.me.address.clone()] });
            }
            let via = first.me.node;
            self.round = None;
            if self.asking.is_none() {
                self.requests += 1;
                self.asking = Some(Asking { request: self.requests, began: now });
                effects.push(Effect::Join { via, request: self.requests });
            }
            return self.turned_away.clone().map(Waiting::TurnedAway);
        }
        self.found(now, new_id, effects)
    }

    fn found(&mut self, now: Duration, new_id: impl FnOnce() -> String, effects: &mut Vec<Effect>) -> Option<Waiting> {
        let me = self.report();
        let reports: Vec<&Report> = self.reports.values().map(|(report, _)| report).chain([&me]).collect();
        let at = |address: &String| reports.iter().find(|report| report.me.address == *address).copied();
        let missing: Vec<String> = self.config.founders.iter().filter(|address| at(address).is_none()).cloned().collect();
        if !missing.is_empty() {
            return Some(Waiting::Unreachable(missing));
        }
        if !self.config.founders.contains(&me.me.address) {
            // Not a founder: it waits until there is a cluster to join.
            return Some(Waiting::ForProposal);
        }
        let founders: Vec<&Report> = self.config.founders.iter().filter_map(at).collect();
        for founder in &founders {
            let address = founder.me.address.clone();
            if founder.founders != me.founders {
                return Some(Waiting::FoundersDiffer { at: address, theirs: founder.founders.clone() });
            }
            if founder.shape != me.shape {
                return Some(Waiting::ShapeDiffers { at: address, theirs: founder.shape.clone() });
            }
            let twin =
                |other: &&&Report| other.me.address != address && (other.me.node == founder.me.node || other.me.name == founder.me.name);
            if let Some(twin) = founders.iter().find(twin) {
                return Some(Waiting::NotDistinct { at: vec![address, twin.me.address.clone()] });
            }
        }
        let is_lowest = founders.iter().all(|founder| me.me.node <= founder.me.node);
        if is_lowest && self.round.is_none() && self.asking.is_none() {
            let seed = Seed { cluster_id: new_id(), founders: founders.iter().map(|founder| founder.me.clone()).collect() };
            self.propose(seed, now, effects);
        }
        Some(Waiting::ForProposal)
    }

    fn propose(&mut self, seed: Seed, now: Duration, effects: &mut Vec<Effect>) {
        self.highest_round += 1;
        let proposal = Accepted { ballot: Ballot { round: self.highest_round, proposer: self.config.me.node }, seed };
        let Some(_) = self.accept(proposal.clone(), effects) else { return };
        let me = self.config.me.node;
        let others = proposal.seed.founders.iter().filter(|founder| founder.node != me);
        effects.extend(others.map(|founder| Effect::Send { to: To::Node(founder.node), message: Message::Propose(proposal.clone()) }));
        self.round = Some(Round { proposal, accepted: BTreeSet::from([me]), began: now });
        if self.complete() {
            // The only founder.
            if let Some(accepted) = self.durable.accepted.clone() {
                self.become_member(Membership::Founded(accepted), effects);
            }
        }
    }
}

#[cfg(test)]
mod tests;
