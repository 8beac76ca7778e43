//! Where the outcome of a proposal goes. It can be awaited, which openraft's own calls do, or handed on the moment it is there, without a task that only
//! waits for it: with small requests such tasks cost more than the work.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use parking_lot::Mutex;

use super::{Command, ShardRaft};

type Outcome = ClientWriteResult<ShardRaft>;
type Hook = Box<dyn FnOnce(Result<Outcome, Lost>) + Send>;

/// The group ended without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its log has ended")]
pub struct Lost;

enum Slot {
    Open(Option<Waker>),
    Hooked(Hook),
    Settled(Result<Outcome, Lost>),
    Taken,
}

/// openraft's end.
pub struct OutcomeSender(Option<Arc<Mutex<Slot>>>);

/// The proposer's end.
pub struct OutcomeReceiver(Arc<Mutex<Slot>>);

impl OutcomeSender {
    fn settle(&mut self, result: Result<Outcome, Lost>) {
        let Some(slot) = self.0.take() else { return };
        let mut guard = slot.lock();
        match std::mem::replace(&mut *guard, Slot::Taken) {
            Slot::Open(waker) => {
                *guard = Slot::Settled(result);
                drop(guard);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Slot::Hooked(hook) => {
                drop(guard);
                hook(result);
            }
            // There is one sender, and it settles once.
            settled => *guard = settled,
        }
    }
}

impl Drop for OutcomeSender {
    fn drop(&mut self) {
        self.settle(Err(Lost));
    }
}

impl Responder<ShardRaft> for OutcomeSender {
    type Receiver = OutcomeReceiver;

    fn from_app_data(command: Command) -> (Command, Self, OutcomeReceiver) {
        let slot = Arc::new(Mutex::new(Slot::Open(None)));
        (command, Self(Some(slot.clone())), OutcomeReceiver(slot))
    }

    fn send(mut self, outcome: Outcome) {
        self.settle(Ok(outcome));
    }
}

impl OutcomeReceiver {
    /// Calls `hook` once: on the thread of whoever settles, or now if that has happened. It must not block.
    pub fn on_settled(self, hook: impl FnOnce(Result<Outcome, Lost>) + Send + 'static) {
        let mut guard = self.0.lock();
        match std::mem::replace(&mut *guard, Slot::Taken) {
            Slot::Settled(result) => {
                drop(guard);
                hook(result);
            }
            Slot::Open(_) | Slot::Hooked(_) | Slot::Taken => *guard = Slot::Hooked(Box::new(hook)),
        }
    }
}

impl Future for OutcomeReceiver {
    type Output = Result<Outcome, Lost>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut guard = self.0.lock();
        match std::mem::replace(&mut *guard, Slot::Taken) {
            Slot::Settled(result) => Poll::Ready(result),
            Slot::Open(_) | Slot::Hooked(_) | Slot::Taken => {
                *guard = Slot::Open(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::raft::ClientWriteResponse;

    use super::super::{CommandOutcome, codec};
    use super::*;

    fn pair() -> (OutcomeSender, OutcomeReceiver) {
        let (_, sender, receiver) = OutcomeSender::from_app_data(Command(Bytes::new()));
        (sender, receiver)
    }

    fn written(index: u64) -> Outcome {
        Ok(ClientWriteResponse { log_id: codec::log_id(1, index), data: CommandOutcome::default(), membership: None })
    }

    fn index(result: Result<Outcome, Lost>) -> Option<u64> {
        result.ok().map(|outcome| outcome.expect("written").log_id.index)
    }

    /// What the hook was told, if it was.
    fn hooked(receiver: OutcomeReceiver) -> Arc<Mutex<Vec<Option<u64>>>> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        receiver.on_settled(move |result| heard.lock().push(index(result)));
        told
    }

    #[test]
    fn a_hook_is_told_once_whichever_comes_first() {
        let (sender, receiver) = pair();
        let told = hooked(receiver);
        assert!(told.lock().is_empty());
        sender.send(written(7));
        assert_eq!(*told.lock(), [Some(7)]);

        let (sender, receiver) = pair();
        sender.send(written(8));
        assert_eq!(*hooked(receiver).lock(), [Some(8)]);
    }

    #[test]
    fn a_group_that_ends_tells_so() {
        let (sender, receiver) = pair();
        let told = hooked(receiver);
        drop(sender);
        assert_eq!(*told.lock(), [None]);

        let (sender, receiver) = pair();
        drop(sender);
        assert_eq!(*hooked(receiver).lock(), [None]);
    }

    #[tokio::test]
    async fn an_outcome_can_be_awaited_before_and_after_it_is_there() {
        let (sender, mut receiver) = pair();
        assert!(futures::poll!(&mut receiver).is_pending());
        let waiting = tokio::spawn(receiver);
        tokio::task::yield_now().await;
        sender.send(written(9));
        assert_eq!(index(waiting.await.expect("no panic")), Some(9));

        let (sender, receiver) = pair();
        drop(sender);
        assert_eq!(index(receiver.await), None);
    }
}
