//! An actor without a task: whoever brings a message handles what is there, unless somebody is at it already (flat combining; Hendler, Incze, Shavit and
//! Tzafrir, SPAA 2010). Messages are handled one after the other, in the order in which they were brought, and nobody waits for anybody. What it saves over
//! a task is two trips through the scheduler for each message, which is most of what a small request costs.

use parking_lot::Mutex;

pub struct Turns<S, M> {
    inbox: Mutex<Inbox<S, M>>,
}

struct Inbox<S, M> {
    waiting: Vec<M>,
    seat: Seat<S>,
}

enum Seat<S> {
    Free(S),
    /// Somebody is at it, and looks at the inbox again before they leave.
    Taken,
    /// A handler panicked: the state is gone, messages are dropped.
    Ended,
}

impl<S, M> Turns<S, M> {
    pub fn new(state: S) -> Self {
        Self { inbox: Mutex::new(Inbox { waiting: Vec::new(), seat: Seat::Free(state) }) }
    }

    /// Has `message` handled, by the caller or by whoever is at it. `handle` must not block; it may bring further messages, which are handled after this one.
    pub fn bring(&self, message: M, mut handle: impl FnMut(&mut S, M)) {
        let mut state = {
            let mut inbox = self.inbox.lock();
            match std::mem::replace(&mut inbox.seat, Seat::Taken) {
                Seat::Free(state) => state,
                Seat::Taken => return inbox.waiting.push(message),
                Seat::Ended => {
                    inbox.seat = Seat::Ended;
                    // Outside the lock: a message may tell others that it was dropped.
                    drop(inbox);
                    return drop(message);
                }
            }
        };
        let end = EndOnUnwind(self);
        handle(&mut state, message);
        let mut messages = Vec::new();
        loop {
            {
                let mut inbox = self.inbox.lock();
                if inbox.waiting.is_empty() {
                    inbox.seat = Seat::Free(state);
                    // Not by asking whether the thread panics: it may have done so before it came here.
                    return std::mem::forget(end);
                }
                std::mem::swap(&mut messages, &mut inbox.waiting);
            }
            messages.drain(..).for_each(|message| handle(&mut state, message));
        }
    }
}

struct EndOnUnwind<'a, S, M>(&'a Turns<S, M>);

impl<S, M> Drop for EndOnUnwind<'_, S, M> {
    fn drop(&mut self) {
        let mut inbox = self.0.inbox.lock();
        inbox.seat = Seat::Ended;
        let waiting = std::mem::take(&mut inbox.waiting);
        drop(inbox);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn messages_of_all_threads_are_handled_once_each_and_those_of_one_in_order() {
        const THREADS: usize = 4;
        const EACH: u64 = 5_000;
        let turns = Turns::new(vec![Vec::new(); THREADS]);
        let (start, busy) = (Barrier::new(THREADS), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (turns, start, busy) = (&turns, &start, &busy);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..EACH {
                        turns.bring((thread, n), |seen, (thread, n): (usize, u64)| {
                            assert!(!busy.swap(true, Ordering::SeqCst), "one at a time");
                            seen[thread].push(n);
                            busy.store(false, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        turns.bring((THREADS, 0), |seen, _| {
            for seen in seen.iter() {
                assert!(seen.iter().copied().eq(0..EACH));
            }
        });
    }

    #[test]
    fn what_a_handler_brings_comes_after_what_it_handles() {
        struct Step<'a>(&'a Turns<Vec<u32>, Step<'a>>, u32);
        fn handle<'a>(seen: &mut Vec<u32>, step: Step<'a>) {
            if step.1 < 3 {
                step.0.bring(Step(step.0, step.1 + 1), handle);
            }
            seen.push(step.1);
        }
        let turns = Turns::new(Vec::new());
        turns.bring(Step(&turns, 0), handle);
        let mut result = Vec::new();
        turns.bring(Step(&turns, 9), |seen, _| result.clone_from(seen));
        assert_eq!(result, [0, 1, 2, 3]);
    }

    #[test]
    fn after_a_panic_messages_are_dropped_and_nobody_hangs() {
        let turns = Turns::new(());
        let gone = std::sync::Arc::new(());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            turns.bring(gone.clone(), |(), _| {
                turns.bring(gone.clone(), |(), _| unreachable!("the seat is taken"));
                panic!("on purpose");
            });
        }));
        assert!(panicked.is_err());
        turns.bring(gone.clone(), |(), _| unreachable!("it has ended"));
        assert_eq!(std::sync::Arc::strong_count(&gone), 1);
    }
}
