//! What waits to be sent to one peer: two lanes, each with its own window; within a lane messages take turns, a frame at a time.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::wire::{FrameKind, Head};
use super::{slot, window};
use crate::peer::limits::{CHUNK_BYTES_MAX, FRAME_COST_BYTES};
use crate::peer::rpc::Lane;

struct Outgoing {
    head: Head,
    body: Bytes,
    sent: usize,
}

#[derive(Default)]
struct LaneOut {
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    in_flight_bytes: usize,
}

#[derive(Default)]
pub struct Outbox {
    lanes: [LaneOut; 2],
}

impl Outbox {
    pub fn queued_bytes(&self, lane: Lane) -> usize {
        self.lanes[slot(lane)].queued_bytes
    }

    pub fn in_flight_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.in_flight_bytes).sum()
    }

    /// The caller has looked at [`Outbox::queued_bytes`].
    pub fn push(&mut self, lane: Lane, head: Head, body: Bytes) {
        let out = &mut self.lanes[slot(lane)];
        out.queued_bytes += body.len();
        let head = Head { total: body.len() as u32, urgent: lane == Lane::Urgent, ..head };
        out.queue.push_back(Outgoing { head, body, sent: 0 });
    }

    /// The next frame that the windows let pass; what is urgent first.
    pub fn next(&mut self) -> Option<(Head, Bytes)> {
        [Lane::Urgent, Lane::Normal].into_iter().find_map(|lane| self.lanes[slot(lane)].next(window(lane)))
    }

    /// False if more comes back than is on its way.
    pub fn credit(&mut self, lane: Lane, bytes: usize) -> bool {
        let out = &mut self.lanes[slot(lane)];
        match out.in_flight_bytes.checked_sub(bytes) {
            Some(rest) => {
                out.in_flight_bytes = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a message back; true if nothing of it was sent.
    pub fn withdraw(&mut self, kind: FrameKind, request: u64) -> bool {
        for out in &mut self.lanes {
            let at = out.queue.iter().position(|o| o.head.kind == kind as u8 && o.head.request == request);
            if let Some(outgoing) = at.and_then(|at| out.queue.remove(at)) {
                out.queued_bytes -= outgoing.body.len() - outgoing.sent;
                return outgoing.sent == 0;
            }
        }
        false
    }
}

impl LaneOut {
    fn next(&mut self, window: usize) -> Option<(Head, Bytes)> {
        let front = self.queue.front_mut()?;
        let chunk = (front.body.len() - front.sent).min(CHUNK_BYTES_MAX);
        if self.in_flight_bytes + chunk + FRAME_COST_BYTES > window {
            return None;
        }
        self.in_flight_bytes += chunk + FRAME_COST_BYTES;
        self.queued_bytes -= chunk;
        let frame = (Head { offset: front.sent as u32, ..front.head }, front.body.slice(front.sent..front.sent + chunk));
        front.sent += chunk;
        if let Some(outgoing) = self.queue.pop_front().filter(|outgoing| outgoing.sent < outgoing.body.len()) {
            self.queue.push_back(outgoing);
        }
        Some(frame)
    }
}
