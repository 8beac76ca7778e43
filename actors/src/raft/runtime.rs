//! The runtime that openraft runs on: tokio's, with two hooks per thread, so that a simulation can end all tasks of a node at once (a crash) and draw
//! election time-outs from its own seed.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand_core_06::RngCore;

use super::oneshot;

/// What a simulation hangs into the runtime of its thread.
pub struct Hooks {
    /// Told of every task that is spawned on this thread.
    pub spawned: Box<dyn Fn(tokio::task::AbortHandle)>,
    /// Source of all random numbers.
    pub random: Box<dyn FnMut() -> u64>,
}

thread_local! {
    static HOOKS: RefCell<Option<Hooks>> = const { RefCell::new(None) };
}

/// Sets or removes the hooks of this thread.
pub fn set_hooks(hooks: Option<Hooks>) {
    HOOKS.set(hooks);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshRuntime;

impl MeshRuntime {
    /// Spawns a task where the hooks see it. The caller owns the handle.
    pub fn spawn_task<T>(future: T) -> tokio::task::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let handle = tokio::spawn(future);
        HOOKS.with_borrow(|hooks| {
            if let Some(hooks) = hooks {
                (hooks.spawned)(handle.abort_handle());
            }
        });
        handle
    }
}

/// Random numbers of the thread: the simulation's when it has hooked in, else the machine's.
#[derive(Debug)]
pub struct MeshRng(<TokioRuntime as AsyncRuntime>::ThreadLocalRng);

impl RngCore for MeshRng {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        HOOKS.with_borrow_mut(|hooks| match hooks {
            Some(hooks) => (hooks.random)(),
            None => self.0.next_u64(),
        })
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl AsyncRuntime for MeshRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = MeshRng;
    type OneshotSender<T: OptionalSend> = oneshot::Sender<T>;
    type OneshotReceiver<T: OptionalSend> = oneshot::Receiver<T>;
    type OneshotReceiverError = oneshot::Lost;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Self::spawn_task(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        MeshRng(TokioRuntime::thread_rng())
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        oneshot::channel()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[tokio::test]
    async fn hooks_end_every_task_and_seed_every_number() {
        let tasks = Rc::new(RefCell::new(Vec::new()));
        let seen = tasks.clone();
        let mut next = 41;
        let random = move || {
            next += 1;
            next
        };
        set_hooks(Some(Hooks { spawned: Box::new(move |task| seen.borrow_mut().push(task)), random: Box::new(random) }));
        let mut rng = MeshRuntime::thread_rng();
        assert_eq!((rng.next_u64(), rng.next_u32()), (42, 43));
        let mut bytes = [0; 9];
        rng.fill_bytes(&mut bytes);
        assert_eq!(bytes, [44, 0, 0, 0, 0, 0, 0, 0, 45]);
        let task = <MeshRuntime as AsyncRuntime>::spawn(std::future::pending::<()>());
        tasks.borrow().iter().for_each(tokio::task::AbortHandle::abort);
        assert!(task.await.is_err_and(|e| e.is_cancelled()));
        set_hooks(None);
        assert!((0..8).map(|_| MeshRuntime::thread_rng().next_u64()).any(|n| n > 100), "the machine's again");
    }
}
