//! What requests were answered, for a while: a node that lost an answer asks again under the same number, and is told what the first attempt did (the client
//! sessions of Raft, section 6.3 of its dissertation). Part of the replicated state: changed by entries only, equal on all replicas.

use std::collections::VecDeque;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use tallymesh_protocol::event::batch::ArchivedShardBatch;

/// A node tries again within the deadline of one request, which is far shorter, in milliseconds of the log's time.
pub const ANSWER_LIFE_MS: i64 = 60_000;
/// Answers that a shard remembers; beyond them the oldest go early.
pub const ANSWERS_MAX: usize = 16_384;

/// A request's part for this shard. Numbers are drawn at random: so that two requests that drew the same one are not taken for each other, what they are about
/// is looked at as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Asked {
    number: u64,
    about: u64,
}

impl Asked {
    /// `None`: nobody will ask again.
    pub fn new(number: u64, batch: &ArchivedShardBatch) -> Option<Self> {
        let (first, last) = (batch.ids.first()?.to_native() as u64, batch.ids.last()?.to_native() as u64);
        (number != 0).then(|| Self { number, about: first.rotate_left(1) ^ last ^ batch.ids.len() as u64 })
    }
}

/// What a part did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    pub counted: u32,
    pub duplicates: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Answers {
    by_request: HashMap<Asked, Answered>,
    /// With the stamps of their entries, UTC milliseconds; oldest first.
    order: VecDeque<(i64, Asked)>,
}

/// As a snapshot has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SavedAnswers(Vec<(i64, Asked, Answered)>);

impl SavedAnswers {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Answers {
    /// Forgets what is too old at this stamp.
    pub fn advance(&mut self, stamp_ms: i64) {
        while self.order.front().is_some_and(|(at, _)| stamp_ms.saturating_sub(*at) >= ANSWER_LIFE_MS) {
            self.forget_oldest();
        }
    }

    pub fn find(&self, asked: Asked) -> Option<Answered> {
        self.by_request.get(&asked).copied()
    }

    pub fn remember(&mut self, stamp_ms: i64, asked: Asked, answered: Answered) {
        if self.order.len() == ANSWERS_MAX {
            self.forget_oldest();
        }
        if self.by_request.insert(asked, answered).is_none() {
            self.order.push_back((stamp_ms, asked));
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, asked)) = self.order.pop_front() {
            self.by_request.remove(&asked);
        }
    }

    /// 0 for none; else of all of them in order.
    pub fn digest(&self) -> u64 {
        let words = self.order.iter().filter_map(|(at, asked)| {
            let Answered { counted, duplicates } = self.find(*asked)?;
            Some([*at as u64, asked.number, asked.about, u64::from(counted) << 32 | u64::from(duplicates)])
        });
        words.flatten().fold(0, |sum: u64, word| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn save(&self) -> SavedAnswers {
        SavedAnswers(self.order.iter().filter_map(|(at, asked)| Some((*at, *asked, self.find(*asked)?))).collect())
    }

    pub fn load(saved: &SavedAnswers) -> Self {
        let mut answers = Self::default();
        for (at, asked, answered) in &saved.0 {
            answers.remember(*at, *asked, *answered);
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(number: u64) -> Asked {
        Asked { number, about: 7 }
    }

    fn told(counted: u32) -> Answered {
        Answered { counted, duplicates: 1 }
    }

    #[test]
    fn answers_live_for_their_time_and_come_back_from_a_snapshot() {
        let mut answers = Answers::default();
        answers.remember(1_000, asked(1), told(1));
        answers.remember(31_000, asked(2), told(2));
        answers.advance(1_000 + ANSWER_LIFE_MS - 1);
        assert_eq!((answers.find(asked(1)), answers.find(asked(2)), answers.find(asked(3))), (Some(told(1)), Some(told(2)), None));
        assert_eq!(answers.find(Asked { number: 1, about: 8 }), None, "another request that drew the same number");
        let loaded = Answers::load(&answers.save());
        assert_eq!((loaded.digest(), loaded.find(asked(2))), (answers.digest(), Some(told(2))));
        answers.advance(1_000 + ANSWER_LIFE_MS);
        assert_eq!((answers.find(asked(1)), answers.find(asked(2))), (None, Some(told(2))));
        assert_ne!(loaded.digest(), answers.digest());
        answers.advance(i64::MAX);
        assert_eq!((answers.digest(), answers.save().is_empty()), (0, true));
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let mut answers = Answers::default();
        for number in 1..=ANSWERS_MAX as u64 + 5 {
            answers.remember(1, asked(number), told(1));
        }
        assert_eq!((answers.order.len(), answers.by_request.len()), (ANSWERS_MAX, ANSWERS_MAX));
        assert_eq!((answers.find(asked(5)), answers.find(asked(6))), (None, Some(told(1))));
    }
}
