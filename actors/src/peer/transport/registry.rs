//! Which connections there are: shared by those who call, those who take frames in, and the task that makes and ends connections ([`super`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::super::NodeId;
use super::super::auth::handshake::Hello;
use super::super::limits::{URGENT_WINDOW_BYTES, WINDOW_BYTES};
use super::super::session::Session;
use super::super::session::wire::Frame;

/// Who is connected, and who cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTable {
    pub connected: BTreeMap<NodeId, Hello>,
    /// Which node answered at an address that was dialled, this one too.
    pub at: BTreeMap<String, NodeId>,
    /// Why the last dial of an address came to nothing.
    pub failed: BTreeMap<String, String>,
}

#[derive(Default)]
pub struct Registry {
    sessions: RwLock<HashMap<NodeId, Arc<Session>>>,
    by_connection: Mutex<HashMap<u64, Slot>>,
    pub table: watch::Sender<PeerTable>,
}

enum Slot {
    /// The peer may be ready before this side is: its first frames wait, at most as many as its windows let it send.
    Opening {
        frames: Vec<Frame>,
        bytes: usize,
    },
    Ready(Arc<Session>),
}

impl Registry {
    pub fn session(&self, node: NodeId) -> Option<Arc<Session>> {
        self.sessions.read().get(&node).cloned()
    }

    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.read().values().cloned().collect()
    }

    pub fn opening(&self, connection: u64) {
        self.by_connection.lock().insert(connection, Slot::Opening { frames: Vec::new(), bytes: 0 });
    }

    /// Makes a session the one of its peer; the one that it replaces.
    pub fn ready(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        let replaced = self.sessions.write().insert(session.peer.node, session.clone()).filter(|old| old.connection != session.connection);
        let mut slots = self.by_connection.lock();
        let early = slots.insert(session.connection, Slot::Ready(session.clone()));
        // Still under the lock: what comes now has to wait for what came first.
        if let Some(Slot::Opening { frames, .. }) = early {
            frames.into_iter().for_each(|frame| session.frame(frame));
        }
        drop(slots);
        self.table.send_modify(|table| {
            table.connected.insert(session.peer.node, session.peer.clone());
        });
        replaced
    }

    /// Forgets a connection; its session, if it had become one.
    pub fn gone(&self, connection: u64) -> Option<Arc<Session>> {
        let slot = self.by_connection.lock().remove(&connection)?;
        let Slot::Ready(session) = slot else { return None };
        let mut sessions = self.sessions.write();
        if sessions.get(&session.peer.node).is_some_and(|current| current.connection == connection) {
            sessions.remove(&session.peer.node);
            drop(sessions);
            self.table.send_modify(|table| {
                table.connected.remove(&session.peer.node);
            });
        }
        Some(session)
    }

    /// A connection brought what cannot be right. Its number is known to its two ends only, so nobody ends another's session.
    pub fn violated(&self, connection: u64, what: &str) {
        let session = match self.by_connection.lock().get(&connection) {
            Some(Slot::Ready(session)) => session.clone(),
            // It ends in time if nothing else comes.
            Some(Slot::Opening { .. }) | None => return,
        };
        session.violated(what);
    }

    /// A frame of whichever connection. Frames of connections that have ended are dropped.
    pub fn take(&self, frame: Frame) {
        let session = {
            let mut slots = self.by_connection.lock();
            match slots.get_mut(&frame.head.connection) {
                None => return,
                Some(Slot::Ready(session)) => session.clone(),
                Some(Slot::Opening { frames, bytes }) => {
                    if *bytes + frame.body.len() <= WINDOW_BYTES + URGENT_WINDOW_BYTES {
                        *bytes += frame.body.len();
                        frames.push(frame);
                    }
                    return;
                }
            }
        };
        session.frame(frame);
    }
}
