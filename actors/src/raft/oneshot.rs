//! The channel of one value that openraft answers through. What comes can be awaited, as openraft's own calls do, or handed on the moment it is there, without
//! a task that only waits for it: with small requests such tasks cost more than the work.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use openraft::OptionalSend;
use openraft::async_runtime::AsyncOneshotSendExt;
use parking_lot::Mutex;

type Hook<T> = Box<dyn FnOnce(Result<T, Lost>) + Send>;

/// The sender went without a value: the group has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its log has ended")]
pub struct Lost;

enum Slot<T> {
    Open(Option<Waker>),
    Hooked(Hook<T>),
    Settled(Result<T, Lost>),
    /// Nobody waits any more, or what came was taken.
    Taken,
}

/// openraft's end.
pub struct Sender<T>(Option<Arc<Mutex<Slot<T>>>>);

/// The end of whoever asked.
pub struct Receiver<T>(Arc<Mutex<Slot<T>>>);

pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Mutex::new(Slot::Open(None)));
    (Sender(Some(slot.clone())), Receiver(slot))
}

impl<T> Sender<T> {
    /// What could not be handed over, because nobody waits.
    fn settle(&mut self, result: Result<T, Lost>) -> Option<Result<T, Lost>> {
        let slot = self.0.take()?;
        let mut guard = slot.lock();
        match std::mem::replace(&mut *guard, Slot::Taken) {
            Slot::Open(waker) => {
                *guard = Slot::Settled(result);
                drop(guard);
                if let Some(waker) = waker {
                    waker.wake();
                }
                None
            }
            Slot::Hooked(hook) => {
                drop(guard);
                hook(result);
                None
            }
            // There is one sender, and it settles once: the receiver is gone.
            Slot::Taken | Slot::Settled(_) => Some(result),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.settle(Err(Lost));
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T: OptionalSend> AsyncOneshotSendExt<T> for Sender<T> {
    fn send(mut self, value: T) -> Result<(), T> {
        match self.settle(Ok(value)) {
            Some(Ok(value)) => Err(value),
            Some(Err(Lost)) | None => Ok(()),
        }
    }
}

impl<T> Receiver<T> {
    /// Calls `hook` once: on the thread of whoever settles, or now if that has happened. It must not block.
    pub fn on_settled(self, hook: impl FnOnce(Result<T, Lost>) + Send + 'static) {
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

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut guard = self.0.lock();
        if matches!(*guard, Slot::Open(_) | Slot::Settled(_)) {
            let before = std::mem::replace(&mut *guard, Slot::Taken);
            drop(guard);
            drop(before);
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Lost>;

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
    use super::*;

    /// What the hook was told, if it was.
    fn hooked(receiver: Receiver<u64>) -> Arc<Mutex<Vec<Option<u64>>>> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        receiver.on_settled(move |result| heard.lock().push(result.ok()));
        told
    }

    #[test]
    fn a_hook_is_told_once_whichever_comes_first() {
        let (sender, receiver) = channel();
        let told = hooked(receiver);
        assert!(told.lock().is_empty());
        assert_eq!(sender.send(7), Ok(()));
        assert_eq!(*told.lock(), [Some(7)]);

        let (sender, receiver) = channel();
        assert_eq!(sender.send(8), Ok(()));
        assert_eq!(*hooked(receiver).lock(), [Some(8)]);
    }

    #[test]
    fn a_group_that_ends_tells_so() {
        let (sender, receiver) = channel();
        let told = hooked(receiver);
        drop(sender);
        assert_eq!(*told.lock(), [None]);

        let (sender, receiver) = channel();
        drop(sender);
        assert_eq!(*hooked(receiver).lock(), [None]);
    }

    #[test]
    fn what_nobody_waits_for_comes_back() {
        let (sender, receiver) = channel::<u64>();
        drop(receiver);
        assert_eq!(sender.send(9), Err(9));
    }

    #[tokio::test]
    async fn an_outcome_can_be_awaited_before_and_after_it_is_there() {
        let (sender, mut receiver) = channel();
        assert!(futures::poll!(&mut receiver).is_pending());
        let waiting = tokio::spawn(receiver);
        tokio::task::yield_now().await;
        assert_eq!(sender.send(9), Ok(()));
        assert_eq!(waiting.await.expect("no panic"), Ok(9));

        let (sender, receiver) = channel::<u64>();
        drop(sender);
        assert_eq!(receiver.await, Err(Lost));
    }
}
