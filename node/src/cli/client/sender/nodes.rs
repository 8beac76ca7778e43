//! Which node a batch goes to: each in turn, those that lately did not answer only when there is no other. Pure: time comes in.

use std::time::Duration;

/// A node that did not answer is left alone for this long.
const AVOID_FOR: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Turns {
    next: usize,
    /// By node: until when it is avoided.
    avoid_until: Vec<Duration>,
}

impl Turns {
    /// At least one node.
    pub fn new(nodes: usize) -> Self {
        Self { next: 0, avoid_until: vec![Duration::ZERO; nodes.max(1)] }
    }

    /// The node for the next attempt.
    pub fn take(&mut self, now: Duration) -> usize {
        let nodes = self.avoid_until.len();
        let in_turn = (0..nodes).map(|step| (self.next + step) % nodes);
        let good = in_turn.clone().find(|&node| now >= self.avoid_until[node]);
        // All are avoided: the one that has been for longest.
        let node = good.or_else(|| in_turn.min_by_key(|&node| self.avoid_until[node])).unwrap_or(0);
        self.next = (node + 1) % nodes;
        node
    }

    /// A node did not answer. Whether there is another one to go to at once.
    pub fn failed(&mut self, node: usize, now: Duration) -> bool {
        self.avoid_until[node] = now + AVOID_FOR;
        self.avoid_until.iter().any(|&until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_and_one_that_fails_is_left_alone_for_a_while() {
        let mut turns = Turns::new(3);
        let take = |turns: &mut Turns, now: Duration| turns.take(now);
        let start = Duration::from_secs(1);
        assert_eq!([0, 1, 2, 3].map(|_| take(&mut turns, start)), [0, 1, 2, 0]);
        assert!(turns.failed(1, start), "there are others");
        assert_eq!([0, 1, 2].map(|_| take(&mut turns, start)), [2, 0, 2]);
        assert!(turns.failed(2, start) && !turns.failed(0, start), "all of them are away");
        assert_eq!(take(&mut turns, start), 0);
        assert_eq!([0, 1, 2].map(|_| take(&mut turns, start + AVOID_FOR)), [1, 2, 0]);
    }
}
