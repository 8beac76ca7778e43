//! What this node and one peer have in hand with each other, as a state machine: questions asked and to be answered, what waits to be sent, what has begun to
//! arrive. No I/O, no clock: the shell ([`super`]) carries frames in and effects out, and keeps the time.
//!
//! Flow control: each lane has a window of bytes that may be on their way. The receiver gives them back as it takes frames in ([`FrameKind::Credit`]); the
//! library below has no bound of its own. Requests share a lane in turns of one frame, so that a small one passes a large one.

mod arriving;
mod outbox;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use tallymesh_protocol::hash::ShardId;

use super::super::NodeId;
use super::super::limits::{
    CALLS_MAX, DETAIL_BYTES_MAX, FRAME_COST_BYTES, MESSAGE_BYTES_MAX, QUEUED_BYTES_MAX, REQUESTS_MAX, URGENT_BYTES_MAX,
    URGENT_WINDOW_BYTES, WINDOW_BYTES,
};
use super::super::rpc::{Lane, PeerError, Refusal, RefusalCode, Rpc, RpcKind};
use super::wire::{self, Frame, FrameKind, Head};
use arriving::{Arriving, Taken};
use outbox::Outbox;

/// What the shell has to do, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Send(Vec<u8>),
    /// Work on a question of the peer; [`Link::answer`] when it is done.
    Serve {
        request: u64,
        kind: RpcKind,
        shard: ShardId,
        timeout: Duration,
        body: Bytes,
    },
    /// Nobody waits for the answer any more.
    Abandon {
        request: u64,
    },
    /// A question of this node is settled.
    Settle {
        request: u64,
        result: Result<Bytes, PeerError>,
    },
    /// The peer does what no peer does: the session has to end.
    Violation(String),
}

pub(super) fn window(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => URGENT_WINDOW_BYTES,
        Lane::Normal => WINDOW_BYTES,
    }
}

fn slot(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => 0,
        Lane::Normal => 1,
    }
}

/// One session with one run of a peer.
pub struct Link {
    peer: NodeId,
    /// What every frame carries.
    sender: Head,
    next_request: u64,
    out: Outbox,
    arriving: Arriving,
    /// Questions of this node without an answer.
    asked: HashSet<u64>,
    /// Questions of the peer that are worked on.
    serving: HashMap<u64, Lane>,
    /// Taken in and not given back, by lane, in bytes.
    credit_due: [usize; 2],
    /// Whether both sides are known to be of one cluster.
    one_cluster: bool,
}

impl Link {
    pub fn new(connection: u64, peer: NodeId, one_cluster: bool) -> Self {
        Self {
            peer,
            sender: Head { connection, ..Head::default() },
            next_request: 1,
            out: Outbox::default(),
            arriving: Arriving::default(),
            asked: HashSet::new(),
            serving: HashMap::new(),
            credit_due: [0; 2],
            one_cluster,
        }
    }

    /// Asks the peer; the number under which the question is settled.
    ///
    /// # Errors
    /// What is over a limit; nothing was sent then.
    pub fn ask(&mut self, rpc: Rpc, timeout: Duration, effects: &mut Vec<Effect>) -> Result<u64, PeerError> {
        let (node, bytes) = (self.peer, rpc.body.len());
        if bytes > MESSAGE_BYTES_MAX {
            return Err(PeerError::TooLarge { node, bytes, limit_bytes: MESSAGE_BYTES_MAX });
        }
        if !self.one_cluster && !rpc.kind.before_founding() {
            let detail = "one of the two nodes belongs to no cluster yet".to_owned();
            return Err(PeerError::Refused { node, refusal: Refusal { code: RefusalCode::NotMember, detail } });
        }
        if self.asked.len() >= CALLS_MAX {
            return Err(PeerError::Overloaded { node, limit: CALLS_MAX, what: "calls" });
        }
        let lane = if bytes > URGENT_BYTES_MAX { Lane::Normal } else { rpc.lane };
        if self.out.queued_bytes(lane) + bytes > QUEUED_BYTES_MAX {
            return Err(PeerError::Overloaded { node, limit: QUEUED_BYTES_MAX, what: "bytes" });
        }
        let request = self.next_request;
        self.next_request += 1;
        self.asked.insert(request);
        let head = Head {
            request,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            rpc: rpc.kind as u16,
            shard: rpc.shard.0,
            kind: FrameKind::Request as u8,
            ..self.sender
        };
        self.out.push(lane, head, rpc.body);
        self.pump(effects);
        Ok(request)
    }

    /// The asker went away: what was not sent yet is not, and the peer learns that it need not go on.
    pub fn cancel(&mut self, request: u64, effects: &mut Vec<Effect>) {
        if !self.asked.remove(&request) {
            return;
        }
        self.arriving.forget(true, request);
        let untouched = self.out.withdraw(FrameKind::Request, request);
        if !untouched {
            effects.push(self.control(Head { request, kind: FrameKind::Cancel as u8, ..self.sender }));
        }
        self.pump(effects);
    }

    /// The answer to a question of the peer. One that does not fit becomes a refusal: the peer must hear something.
    pub fn answer(&mut self, request: u64, result: Result<Bytes, Refusal>, effects: &mut Vec<Effect>) {
        let Some(lane) = self.serving.remove(&request) else { return };
        let result = result.and_then(|body| {
            let bytes = body.len();
            if bytes > MESSAGE_BYTES_MAX {
                let detail = format!("the answer has {bytes} bytes: at most {MESSAGE_BYTES_MAX}");
                return Err(Refusal { code: RefusalCode::Failed, detail });
            }
            if self.out.queued_bytes(lane) + bytes > QUEUED_BYTES_MAX {
                return Err(Refusal { code: RefusalCode::Overloaded, detail: "the answers that wait are too many".to_owned() });
            }
            Ok(body)
        });
        match result {
            Ok(body) => {
                let lane = if body.len() > URGENT_BYTES_MAX { Lane::Normal } else { lane };
                self.out.push(lane, Head { request, kind: FrameKind::Answer as u8, ..self.sender }, body);
            }
            Err(refusal) => self.refuse(request, lane, &refusal),
        }
        self.pump(effects);
    }

    /// Takes a frame of the peer in.
    pub fn frame(&mut self, frame: Frame, effects: &mut Vec<Effect>) {
        let Frame { head, body } = frame;
        let Some(kind) = FrameKind::from_wire(head.kind) else {
            effects.push(Effect::Violation(format!("a frame of kind {}", head.kind)));
            return;
        };
        match kind {
            FrameKind::Request | FrameKind::Answer | FrameKind::Refusal => {
                self.give_back(head.lane(), FRAME_COST_BYTES + body.len(), effects);
                self.part(kind, head, &body, effects);
            }
            FrameKind::Cancel => {
                self.arriving.forget(false, head.request);
                if self.serving.remove(&head.request).is_some() {
                    effects.push(Effect::Abandon { request: head.request });
                }
            }
            FrameKind::Credit => {
                if !self.out.credit(head.lane(), head.total as usize) {
                    effects.push(Effect::Violation("it gives back more than it was sent".to_owned()));
                }
            }
        }
        self.pump(effects);
    }

    /// The session ended: every question is settled, nothing is worked on.
    pub fn lost(self) -> Vec<Effect> {
        let mut asked: Vec<u64> = self.asked.into_iter().collect();
        asked.sort_unstable();
        let mut serving: Vec<u64> = self.serving.into_keys().collect();
        serving.sort_unstable();
        let settled = asked.into_iter().map(|request| Effect::Settle { request, result: Err(PeerError::Lost(self.peer)) });
        settled.chain(serving.into_iter().map(|request| Effect::Abandon { request })).collect()
    }

    /// Bytes that wait to be sent or are on their way.
    pub fn outgoing_bytes(&self) -> usize {
        self.out.queued_bytes(Lane::Urgent) + self.out.queued_bytes(Lane::Normal) + self.out.in_flight_bytes()
    }

    fn part(&mut self, kind: FrameKind, head: Head, body: &[u8], effects: &mut Vec<Effect>) {
        let is_answer = kind != FrameKind::Request;
        let request = head.request;
        if is_answer && !self.asked.contains(&request) {
            // Cancelled meanwhile.
            return;
        }
        match self.arriving.take(is_answer, &head, body) {
            Taken::Partly | Taken::Ignored => {}
            Taken::Violation(what) => effects.push(Effect::Violation(what)),
            Taken::NoRoom => {
                let detail = "what arrives from this node is at its limit";
                if is_answer {
                    self.asked.remove(&request);
                    let refusal = Refusal::new(RefusalCode::Overloaded, detail);
                    effects.push(Effect::Settle { request, result: Err(PeerError::Refused { node: self.peer, refusal }) });
                } else {
                    self.refuse(request, head.lane(), &Refusal::new(RefusalCode::Overloaded, detail));
                }
            }
            Taken::Whole(whole) if is_answer => {
                self.asked.remove(&request);
                let result = match kind {
                    FrameKind::Refusal => {
                        let (code, detail) = (RefusalCode::from_wire(head.code), String::from_utf8_lossy(&whole).into_owned());
                        Err(PeerError::Refused { node: self.peer, refusal: Refusal { code, detail } })
                    }
                    _ => Ok(whole),
                };
                effects.push(Effect::Settle { request, result });
            }
            Taken::Whole(whole) => self.serve(&head, whole, effects),
        }
    }

    fn serve(&mut self, head: &Head, body: Bytes, effects: &mut Vec<Effect>) {
        let request = head.request;
        let refusal = match RpcKind::from_wire(head.rpc) {
            None => Refusal::new(RefusalCode::Unknown, format!("requests of kind {} are not known here", head.rpc)),
            Some(kind) if !self.one_cluster && !kind.before_founding() => {
                Refusal::new(RefusalCode::NotMember, "one of the two nodes belongs to no cluster yet")
            }
            Some(_) if self.serving.len() >= REQUESTS_MAX => {
                Refusal::new(RefusalCode::Overloaded, format!("{REQUESTS_MAX} requests of this node are worked on already"))
            }
            Some(_) if self.serving.contains_key(&request) => {
                effects.push(Effect::Violation(format!("request {request} came twice")));
                return;
            }
            Some(kind) => {
                self.serving.insert(request, head.lane());
                let timeout = Duration::from_millis(u64::from(head.timeout_ms));
                effects.push(Effect::Serve { request, kind, shard: ShardId(head.shard), timeout, body });
                return;
            }
        };
        self.refuse(request, head.lane(), &refusal);
    }

    fn refuse(&mut self, request: u64, lane: Lane, refusal: &Refusal) {
        let detail = refusal.detail.as_bytes();
        let detail = Bytes::copy_from_slice(&detail[..detail.len().min(DETAIL_BYTES_MAX)]);
        let head = Head { request, kind: FrameKind::Refusal as u8, code: refusal.code as u8, ..self.sender };
        self.out.push(lane, head, detail);
    }

    /// Notes what was taken in, and gives it back a quarter of the window at a time.
    fn give_back(&mut self, lane: Lane, bytes: usize, effects: &mut Vec<Effect>) {
        let due = &mut self.credit_due[slot(lane)];
        *due += bytes;
        if *due < window(lane) / 4 {
            return;
        }
        let total = std::mem::take(due) as u32;
        effects.push(self.control(Head { kind: FrameKind::Credit as u8, urgent: lane == Lane::Urgent, total, ..self.sender }));
    }

    /// Small, without a body, outside of the windows: one for each call or each quarter of a window at most.
    fn control(&self, head: Head) -> Effect {
        Effect::Send(wire::encode(head, &[]))
    }

    fn pump(&mut self, effects: &mut Vec<Effect>) {
        while let Some((head, chunk)) = self.out.next() {
            effects.push(Effect::Send(wire::encode(head, &chunk)));
        }
    }
}

#[cfg(test)]
mod tests;
