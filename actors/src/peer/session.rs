//! A session that is ready for use: carries the [`Link`]'s effects out. Nothing here waits; what a call waits for is its own future.

pub(super) mod endpoint;
mod link;
pub(super) mod wire;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, future};
use parking_lot::Mutex;
use ractor::message::SerializedMessage;
use ractor::{ActorCell, ActorRef};
use ractor_cluster::NodeSessionMessage;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::auth::handshake::Hello;
use super::rpc::{Handler, PeerError, Refusal, RefusalCode, Request, Rpc};
use link::{Effect, Link};
use wire::Frame;

/// Name of the one kind of message that travels through the library.
const VARIANT: &str = "frame";

pub struct Session {
    pub peer: Hello,
    pub connection: u64,
    actor: ActorRef<NodeSessionMessage>,
    /// Stands for the peer's endpoint.
    endpoint: ActorCell,
    handler: Arc<dyn Handler>,
    inner: Mutex<Option<Inner>>,
}

struct Inner {
    link: Link,
    waiting: HashMap<u64, oneshot::Sender<Result<Bytes, PeerError>>>,
    serving: HashMap<u64, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Session {
    pub fn new(
        peer: Hello,
        connection: u64,
        one_cluster: bool,
        actor: ActorRef<NodeSessionMessage>,
        endpoint: ActorCell,
        handler: Arc<dyn Handler>,
    ) -> Arc<Self> {
        let link = Link::new(connection, peer.node, one_cluster);
        let inner = Inner { link, waiting: HashMap::new(), serving: HashMap::new(), tasks: JoinSet::new() };
        Arc::new(Self { peer, connection, actor, endpoint, handler, inner: Mutex::new(Some(inner)) })
    }

    /// Sends at once; the future only waits. Dropping it takes the question back.
    pub fn call(self: &Arc<Self>, rpc: Rpc, deadline: Instant) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let node = self.peer.node;
        let (sender, answer) = oneshot::channel();
        let asked = {
            let mut inner = self.inner.lock();
            let Some(running) = inner.as_mut() else { return future::ready(Err(PeerError::Unreachable(node))).boxed() };
            let mut effects = Vec::new();
            let asked = running.link.ask(rpc, deadline.saturating_duration_since(Instant::now()), &mut effects);
            if let Ok(request) = asked {
                running.waiting.insert(request, sender);
            }
            self.run(&mut inner, effects);
            asked
        };
        let question = match asked {
            Ok(request) => Question { session: Arc::downgrade(self), request },
            Err(error) => return future::ready(Err(error)).boxed(),
        };
        async move {
            let _question = question;
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(PeerError::Lost(node)),
                Err(_) => Err(PeerError::Timeout(node)),
            }
        }
        .boxed()
    }

    pub fn frame(self: &Arc<Self>, frame: Frame) {
        self.with(|inner, effects| inner.link.frame(frame, effects));
    }

    /// Bytes that wait for this peer or are on their way to it.
    pub fn outgoing_bytes(&self) -> usize {
        self.inner.lock().as_ref().map_or(0, |inner| inner.link.outgoing_bytes())
    }

    /// Settles every question at once, as lost; ends all work for this peer; stops the connection. Idempotent.
    pub fn end(&self, reason: &str) {
        self.actor.stop(Some(reason.to_owned()));
        let Some(mut inner) = self.inner.lock().take() else { return };
        for effect in inner.link.lost() {
            if let Effect::Settle { request, result } = effect
                && let Some(waiting) = inner.waiting.remove(&request)
            {
                let _ = waiting.send(result);
            }
        }
        // With them what they were working on is dropped.
        inner.tasks.abort_all();
    }

    /// The peer does what no peer does.
    pub fn violated(&self, what: &str) {
        tracing::error!(node = %self.peer.node, name = self.peer.name, what, "a peer does not keep to the protocol: its session ends");
        self.actor.stop(Some("violation".to_owned()));
    }

    /// What a peer may send that does not keep to the protocol.
    #[cfg(test)]
    pub fn send_raw(&self, bytes: Vec<u8>) {
        let message = SerializedMessage::Cast { variant: VARIANT.to_owned(), args: bytes, metadata: None };
        self.endpoint.send_serialized(message).expect("sent");
    }

    fn cancel(self: &Arc<Self>, request: u64) {
        self.with(|inner, effects| {
            if inner.waiting.remove(&request).is_some() {
                inner.link.cancel(request, effects);
            }
        });
    }

    fn answer(self: &Arc<Self>, request: u64, result: Result<Bytes, Refusal>) {
        self.with(|inner, effects| {
            inner.serving.remove(&request);
            inner.link.answer(request, result, effects);
        });
    }

    fn with(self: &Arc<Self>, step: impl FnOnce(&mut Inner, &mut Vec<Effect>)) {
        let mut inner = self.inner.lock();
        let Some(running) = inner.as_mut() else { return };
        let mut effects = Vec::new();
        step(running, &mut effects);
        self.run(&mut inner, effects);
    }

    /// Under the lock, so that frames leave in the order in which they were made.
    fn run(self: &Arc<Self>, inner: &mut Option<Inner>, effects: Vec<Effect>) {
        let Some(running) = inner.as_mut() else { return };
        for effect in effects {
            match effect {
                Effect::Send(frame) => {
                    let message = SerializedMessage::Cast { variant: VARIANT.to_owned(), args: frame, metadata: None };
                    // A session that has ended takes none; its end settles every call.
                    let _ = self.endpoint.send_serialized(message);
                }
                Effect::Serve { request, kind, shard, timeout, body } => {
                    let deadline = Instant::now() + timeout;
                    let question = Request { from: self.peer.node, kind, shard, deadline, body };
                    running.serve(self, request, question);
                }
                Effect::Abandon { request } => {
                    if let Some(task) = running.serving.remove(&request) {
                        task.abort();
                    }
                }
                Effect::Settle { request, result } => {
                    if let Some(waiting) = running.waiting.remove(&request) {
                        let _ = waiting.send(result);
                    }
                }
                Effect::Violation(what) => self.violated(&what),
            }
        }
    }
}

impl Inner {
    fn serve(&mut self, session: &Arc<Session>, request: u64, question: Request) {
        while self.tasks.try_join_next().is_some() {}
        let session = session.clone();
        let task = self.tasks.spawn(async move {
            let deadline = question.deadline;
            let handled = AssertUnwindSafe(async { session.handler.handle(question).await }).catch_unwind();
            let result = match tokio::time::timeout_at(deadline, handled).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(Refusal::new(RefusalCode::Failed, "the request made its handler fail")),
                Err(_) => Err(Refusal::new(RefusalCode::Failed, "it took longer than its asker waits")),
            };
            session.answer(request, result);
        });
        self.serving.insert(request, task);
    }
}

/// A question that is taken back when nobody waits for it.
struct Question {
    session: Weak<Session>,
    request: u64,
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            session.cancel(self.request);
        }
    }
}
