//! Whom to dial, and when. Pure: time comes in, addresses come out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::NodeId;
use super::super::limits::{DIAL_GRACE, REDIAL_WAIT_MAX, REDIAL_WAIT_MIN};

/// Somebody to be connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Not known of an address that an operator gave.
    pub node: Option<NodeId>,
    pub address: String,
}

#[derive(Debug)]
struct Dial {
    node: Option<NodeId>,
    failures: u32,
    next: Duration,
    dialling: bool,
    itself: bool,
}

/// What became of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// This node answered; the connection is made, or there is one already.
    Reached(NodeId),
    Itself,
    Failed,
}

#[derive(Debug)]
pub struct Dialer {
    me: NodeId,
    dials: BTreeMap<String, Dial>,
}

impl Dialer {
    pub fn new(me: NodeId) -> Self {
        Self { me, dials: BTreeMap::new() }
    }

    /// Replaces the targets; what is known of those that stay is kept.
    pub fn set_targets(&mut self, targets: impl IntoIterator<Item = Target>, now: Duration) {
        let mut before = std::mem::take(&mut self.dials);
        for Target { node, address } in targets {
            if node == Some(self.me) {
                continue;
            }
            let dial = match before.remove(&address) {
                Some(dial) if node.is_none() || dial.node == node => dial,
                _ => Dial { node, failures: 0, next: now + self.patience(node), dialling: false, itself: false },
            };
            self.dials.insert(address, dial);
        }
    }

    /// Addresses to dial now; each is dialling from then on.
    pub fn due(&mut self, now: Duration, connected: impl Fn(NodeId) -> bool) -> Vec<String> {
        let due = self.dials.iter_mut().filter(|(_, dial)| {
            let idle = !dial.dialling && !dial.itself && now >= dial.next;
            idle && !dial.node.is_some_and(&connected)
        });
        due.map(|(address, dial)| {
            dial.dialling = true;
            address.clone()
        })
        .collect()
    }

    pub fn dialled(&mut self, address: &str, outcome: Dialled, now: Duration) {
        let Some(dial) = self.dials.get_mut(address) else { return };
        dial.dialling = false;
        match outcome {
            Dialled::Itself => dial.itself = true,
            Dialled::Reached(node) => {
                dial.node = Some(node);
                dial.failures = 0;
                // Time for the session to become ready.
                dial.next = now + DIAL_GRACE;
            }
            Dialled::Failed => {
                let wait = REDIAL_WAIT_MIN.saturating_mul(1 << dial.failures.min(10)).min(REDIAL_WAIT_MAX);
                dial.failures += 1;
                dial.next = now + wait;
            }
        }
    }

    /// The session with a node ended: it is dialled afresh.
    pub fn lost(&mut self, node: NodeId, now: Duration) {
        let patience = self.patience(Some(node));
        for dial in self.dials.values_mut().filter(|dial| dial.node == Some(node)) {
            dial.failures = 0;
            dial.next = now + REDIAL_WAIT_MIN.max(patience);
        }
    }

    fn patience(&self, node: Option<NodeId>) -> Duration {
        match node {
            Some(node) if node < self.me => DIAL_GRACE,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: NodeId = NodeId::from_u128(1);
    const ME: NodeId = NodeId::from_u128(2);
    const HIGH: NodeId = NodeId::from_u128(3);

    fn dialer(targets: &[(Option<NodeId>, &str)]) -> Dialer {
        let mut dialer = Dialer::new(ME);
        dialer.set_targets(targets.iter().map(|&(node, address)| Target { node, address: address.to_owned() }), Duration::ZERO);
        dialer
    }

    #[test]
    fn lower_id_dials_at_once_and_the_other_only_if_nothing_comes() {
        let mut dialer = dialer(&[(Some(LOW), "low"), (Some(HIGH), "high"), (Some(ME), "me"), (None, "seed")]);
        assert_eq!(dialer.due(Duration::ZERO, |_| false), ["high", "seed"]);
        assert_eq!(dialer.due(DIAL_GRACE, |node| node == LOW), [""; 0], "it came by itself");
        assert_eq!(dialer.due(DIAL_GRACE, |_| false), ["low"]);
    }

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew_after_a_session() {
        let mut dialer = dialer(&[(None, "seed")]);
        let (mut now, mut waits) = (Duration::ZERO, Vec::new());
        for _ in 0..12 {
            let began = now;
            while dialer.due(now, |_| false).is_empty() {
                now += Duration::from_millis(10);
            }
            waits.push(now - began);
            dialer.dialled("seed", Dialled::Failed, now);
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(waits.last(), Some(&REDIAL_WAIT_MAX));
        dialer.dialled("seed", Dialled::Reached(HIGH), now);
        assert!(dialer.due(now + REDIAL_WAIT_MAX, |node| node == HIGH).is_empty());
        dialer.lost(HIGH, now);
        assert_eq!(dialer.due(now + REDIAL_WAIT_MIN, |_| false), ["seed"]);
        dialer.dialled("seed", Dialled::Itself, now);
        assert!(dialer.due(now + REDIAL_WAIT_MAX, |_| false).is_empty(), "never again");
    }

    #[test]
    fn target_that_stays_keeps_its_wait_and_one_that_goes_is_not_dialled() {
        let mut dialer = dialer(&[(None, "a"), (None, "b")]);
        dialer.due(Duration::ZERO, |_| false);
        dialer.dialled("a", Dialled::Failed, Duration::ZERO);
        dialer.set_targets([Target { node: None, address: "a".to_owned() }], Duration::ZERO);
        assert!(dialer.due(Duration::ZERO, |_| false).is_empty());
        assert_eq!(dialer.due(REDIAL_WAIT_MAX, |_| false), ["a"]);
    }
}
