//! One stream or socket: the queries that it watches, and for each what it has been told. What it has not been told waits in the topics, not here.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::EventId;
use super::hub::LiveHub;
use super::topic::{News, Told, Topic};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Snapshot,
    Delta,
    /// There is no newer answer, and why.
    Problem,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Delta => "delta",
            Self::Problem => "problem",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What the watcher calls the query.
    pub name: String,
    pub kind: Kind,
    /// The members of a JSON object, without its opening brace.
    pub body: Bytes,
}

struct Watched {
    name: String,
    id: u64,
    topic: Arc<Topic>,
    told: Told,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.topic.leave(self.id);
    }
}

/// Leaves its topics when dropped.
pub struct Watcher {
    hub: Arc<LiveHub>,
    notify: Arc<Notify>,
    watched: Vec<Watched>,
    /// Where to look first: no query that changes all the time may keep the others from being heard.
    turn: usize,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    pub(super) fn new(hub: Arc<LiveHub>, place: OwnedSemaphorePermit) -> Self {
        Self { hub, notify: Arc::default(), watched: Vec::new(), turn: 0, _place: place }
    }

    pub(super) fn add(&mut self, name: String, id: u64, topic: Arc<Topic>) {
        topic.join(id, self.notify.clone());
        // What is known already is to be told.
        self.notify.notify_one();
        self.watched.push(Watched { name, id, topic, told: Told::default() });
    }

    /// Whether it watched a query of that name.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.watched.len();
        self.watched.retain(|watched| watched.name != name);
        self.watched.len() < before
    }

    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.watched.iter().map(|watched| watched.name.as_str())
    }

    /// Goes on from where an earlier stream of this process over the same queries was; any other id changes nothing.
    pub fn resume(&mut self, id: &EventId) {
        if id.process == self.hub.process() && id.queries == self.queries() && id.versions.len() == self.watched.len() {
            for (watched, version) in self.watched.iter_mut().zip(&id.versions) {
                watched.told.version = *version;
            }
        }
    }

    fn queries(&self) -> u64 {
        EventId::of_queries(self.watched.iter().map(|watched| watched.topic.question.as_str()))
    }

    /// Names what has been told so far.
    pub fn event_id(&self) -> EventId {
        let versions = self.watched.iter().map(|watched| watched.told.version).collect();
        EventId { process: self.hub.process(), queries: self.queries(), versions }
    }

    /// The same for one of its queries, as if that were all.
    pub fn event_id_of(&self, name: &str) -> Option<EventId> {
        let watched = self.watched.iter().find(|watched| watched.name == name)?;
        let queries = EventId::of_queries([watched.topic.question.as_str()]);
        Some(EventId { process: self.hub.process(), queries, versions: vec![watched.told.version] })
    }

    /// Goes on with one query from where [`Self::event_id_of`] was.
    pub fn resume_one(&mut self, name: &str, id: &EventId) {
        let known = self.event_id_of(name).is_some_and(|now| (now.process, now.queries) == (id.process, id.queries));
        if let (true, [version], Some(watched)) = (known, &id.versions[..], self.watched.iter_mut().find(|w| w.name == name)) {
            watched.told.version = *version;
        }
    }

    /// The next thing to tell; may be dropped and called again. For ever when nothing happens.
    pub async fn next(&mut self) -> Message {
        loop {
            if let Some(message) = self.now() {
                return message;
            }
            self.notify.notified().await;
        }
    }

    fn now(&mut self) -> Option<Message> {
        let count = self.watched.len();
        for at in (0..count).map(|i| (self.turn + i) % count) {
            let watched = &mut self.watched[at];
            let Some(news) = watched.topic.news(&mut watched.told) else { continue };
            self.turn = at + 1;
            let figures = &self.hub.figures;
            let (kind, body) = match news {
                News::Snapshot(body) => {
                    figures.snapshots.add(1);
                    (Kind::Snapshot, body)
                }
                News::Delta { body, was_missed } => {
                    figures.deltas.add(1);
                    figures.conflated.add(u64::from(was_missed));
                    (Kind::Delta, body)
                }
                News::Problem(body) => (Kind::Problem, body),
            };
            return Some(Message { name: watched.name.clone(), kind, body });
        }
        None
    }
}
