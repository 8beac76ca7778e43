//! The runtime that openraft runs on: tokio's, with hooks per thread, so that a simulation can end all tasks of a node at once (a crash), hold them (a stopped
//! process), let blocking work take time, draw election time-outs from its own seed, and see what is applied.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use rand_core_06::RngCore;
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::shard::ShardState;

use super::{CommandOutcome, LogId, oneshot};

/// Whose task this is: a node's number in a simulation. What a task spawns has the scope of the task.
pub type Scope = u64;

/// Whether tasks of a scope run now; if not, whom to wake when they do.
pub type MayRun = Box<dyn Fn(Scope, &Waker) -> bool>;

/// What a simulation hangs into the runtime of its thread. They are called one at a time and must not spawn.
pub struct Hooks {
    /// Told of every task that is spawned on this thread.
    pub spawned: Box<dyn Fn(Scope, tokio::task::AbortHandle)>,
    /// Source of all random numbers.
    pub random: Box<dyn FnMut(Scope) -> u64>,
    /// How long blocking work takes, asked before and after it.
    pub pause: Box<dyn FnMut(Scope) -> Duration>,
    /// Asked before a task runs; one that may not waits until its waker is used.
    pub may_run: MayRun,
    /// Told of every change of a state.
    pub changed: Box<dyn FnMut(Scope, StateChange<'_>)>,
}

/// A state as an entry or a snapshot left it.
pub struct StateChange<'a> {
    pub shard: ShardId,
    pub log_id: LogId,
    pub state: &'a ShardState,
    pub by: ChangedBy<'a>,
}

pub enum ChangedBy<'a> {
    /// `None`: an entry of the log's own.
    Entry(Option<(&'a Bytes, &'a CommandOutcome)>),
    Snapshot,
}

thread_local! {
    static HOOKS: RefCell<Option<Hooks>> = const { RefCell::new(None) };
    static SCOPE: Cell<Scope> = const { Cell::new(0) };
}

/// Sets or removes the hooks of this thread.
pub fn set_hooks(hooks: Option<Hooks>) {
    HOOKS.set(hooks);
}

pub(super) fn tell(change: StateChange<'_>) {
    HOOKS.with_borrow_mut(|hooks| {
        if let Some(hooks) = hooks {
            (hooks.changed)(SCOPE.get(), change);
        }
    });
}

/// Waits as long as the hooks say that blocking work takes.
pub(super) async fn pause() {
    let time = HOOKS.with_borrow_mut(|hooks| hooks.as_mut().map_or(Duration::ZERO, |hooks| (hooks.pause)(SCOPE.get())));
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Runs a future, and all that it spawns, in a scope.
pub fn scoped<F: Future>(scope: Scope, future: F) -> Scoped<F> {
    Scoped { scope, future: Box::pin(future) }
}

pub struct Scoped<F> {
    scope: Scope,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let scope = self.scope;
        if !HOOKS.with_borrow(|hooks| hooks.as_ref().is_none_or(|hooks| (hooks.may_run)(scope, cx.waker()))) {
            return Poll::Pending;
        }
        let before = SCOPE.replace(scope);
        let polled = self.future.as_mut().poll(cx);
        SCOPE.set(before);
        polled
    }
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
        if HOOKS.with_borrow(Option::is_none) {
            return tokio::spawn(future);
        }
        let scope = SCOPE.get();
        let handle = tokio::spawn(scoped(scope, future));
        HOOKS.with_borrow(|hooks| {
            if let Some(hooks) = hooks {
                (hooks.spawned)(scope, handle.abort_handle());
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
            Some(hooks) => (hooks.random)(SCOPE.get()),
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

    type Spawned = Rc<RefCell<Vec<(Scope, tokio::task::AbortHandle)>>>;

    fn hooks(next: Rc<Cell<u64>>) -> (Hooks, Spawned) {
        let tasks = Rc::new(RefCell::new(Vec::new()));
        let seen = tasks.clone();
        let hooks = Hooks {
            spawned: Box::new(move |scope, task| seen.borrow_mut().push((scope, task))),
            random: Box::new(move |scope| {
                next.set(next.get() + 1);
                next.get() + scope
            }),
            pause: Box::new(Duration::from_secs),
            may_run: Box::new(|scope, _| scope != 13),
            changed: Box::new(|_, _| {}),
        };
        (hooks, tasks)
    }

    #[tokio::test]
    async fn hooks_end_every_task_and_seed_every_number() {
        let (installed, tasks) = hooks(Rc::new(Cell::new(41)));
        set_hooks(Some(installed));
        let mut rng = MeshRuntime::thread_rng();
        assert_eq!((rng.next_u64(), rng.next_u32()), (42, 43));
        let mut bytes = [0; 9];
        rng.fill_bytes(&mut bytes);
        assert_eq!(bytes, [44, 0, 0, 0, 0, 0, 0, 0, 45]);
        let task = <MeshRuntime as AsyncRuntime>::spawn(std::future::pending::<()>());
        tasks.borrow().iter().for_each(|(_, task)| task.abort());
        assert!(task.await.is_err_and(|e| e.is_cancelled()));
        set_hooks(None);
        assert!((0..8).map(|_| MeshRuntime::thread_rng().next_u64()).any(|n| n > 100), "the machine's again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_task_spawns_has_its_scope_and_a_held_scope_does_not_run() {
        let (installed, tasks) = hooks(Rc::new(Cell::new(0)));
        set_hooks(Some(installed));
        let grandchild = || MeshRuntime::spawn_task(async { MeshRuntime::thread_rng().next_u64() });
        let number = scoped(7, async move { MeshRuntime::spawn_task(async move { grandchild().await }).await }).await;
        assert_eq!(number.expect("no panic").expect("no panic"), 8);
        assert_eq!(tasks.borrow().iter().map(|(scope, _)| *scope).collect::<Vec<_>>(), [7, 7]);
        let began = tokio::time::Instant::now();
        scoped(3, pause()).await;
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        assert!(futures::poll!(scoped(13, async {})).is_pending(), "held");
        set_hooks(None);
    }
}
