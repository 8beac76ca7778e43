//! Takes in the body in the pieces it arrives in, never more than its limit. A piece of a plain body is read at once, while it is in the processor's cache;
//! those of a compressed one are kept, to be unpacked beside the threads that serve requests.
//!
//! Room is taken as the body arrives, a little ahead of it, and not for what its sender claims: a claim costs nothing, and a few idle connections could
//! hold all room by it. While room is short, a body that dawdles gives back what it has.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tallymesh_actors::admission::{Admission, Room};
use tallymesh_protocol::error::{ErrorCode, Problem};
use tokio::time::{Instant, MissedTickBehavior};

use super::decode::Encoding;
use super::read::{Reader, Reading};
use super::{Limits, refused, room_for};
use crate::http::{TooSlow, body_problem};
use crate::limits::{BODY_KEPT_BYTES_MAX, BODY_RATE_WINDOW_BUSY, BODY_ROOM_AHEAD_BYTES_MAX, BODY_ROOM_FIRST_BYTES, PIECE_BYTES_MIN};

/// What came of a body.
pub struct Collected {
    pub room: Room,
    /// As sent.
    pub bytes: usize,
    pub body: Arrived,
    /// The body once more, where it is small enough to be kept.
    pub kept: Option<Kept>,
}

/// A small body as it was sent.
pub struct Kept {
    pub pieces: Vec<Bytes>,
    pub bytes: usize,
}

pub enum Arrived {
    /// Read as it came; the reading is over but for its end.
    Read(Box<Reader>),
    Kept(Reading, Vec<Bytes>),
}

pub async fn collect(
    admission: &Admission,
    limits: &Limits,
    content_length: Option<usize>,
    reading: Reading,
    body: &mut Body,
) -> Result<Collected, Problem> {
    let max = limits.encoded_bytes_max;
    if content_length.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let expected = content_length.unwrap_or(max);
    let mut room = room_for(admission, BODY_ROOM_FIRST_BYTES.min(expected)).await?;
    let mut pace = BusyPace::new(limits.busy_bytes_per_s_min);
    let mut bytes = 0;
    let mut intake = Intake::new(reading);
    let mut keeper = Keeper::new(content_length);
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            slow = pace.fallen_behind(admission) => return Err(slow.into()),
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(body_problem)?.into_data() else { continue };
        bytes += data.len();
        if bytes > max {
            return Err(too_large(max));
        }
        pace.window_bytes += data.len();
        let is_long = data.len() >= YIELD_BYTES_MIN;
        keeper.note(&data);
        intake.push(data);
        if is_long {
            // Others may have waited for as long as reading it took.
            tokio::task::yield_now().await;
        }
        let ahead = bytes.clamp(BODY_ROOM_FIRST_BYTES, BODY_ROOM_AHEAD_BYTES_MAX);
        if bytes + ahead / 2 > room.bytes() && room.bytes() < expected.max(bytes) {
            room.resize_within((bytes + ahead).min(expected).max(bytes), patience(&room, bytes, expected)).await.map_err(refused)?;
            pace.restart();
        }
    }
    Ok(Collected { room, bytes, body: intake.finish()?, kept: keeper.finish() })
}

/// Keeps a body as long as it is small.
struct Keeper {
    pieces: Option<Pieces>,
    bytes: usize,
}

impl Keeper {
    fn new(content_length: Option<usize>) -> Self {
        Self { pieces: content_length.is_none_or(|length| length <= BODY_KEPT_BYTES_MAX).then(Pieces::default), bytes: 0 }
    }

    fn note(&mut self, data: &Bytes) {
        let Some(pieces) = &mut self.pieces else { return };
        self.bytes += data.len();
        if self.bytes > BODY_KEPT_BYTES_MAX {
            self.pieces = None;
        } else if self.bytes == data.len() {
            // Most bodies are one piece, which nothing is copied of.
            pieces.done.push(data.clone());
        } else {
            pieces.push(data.clone());
        }
    }

    fn finish(self) -> Option<Kept> {
        let bytes = self.bytes;
        self.pieces.map(|pieces| Kept { pieces: pieces.finish(), bytes })
    }
}

/// A piece that takes so long to read that others get their turn after it, in bytes.
const YIELD_BYTES_MIN: usize = 64 << 10;

enum Intake {
    Reading(Box<Reader>),
    /// What is wrong with the body; the rest of it is heard out.
    Refused(Problem),
    Keeping(Reading, Pieces),
}

impl Intake {
    fn new(reading: Reading) -> Self {
        match reading.encoding {
            Encoding::Identity => Self::Reading(Box::new(reading.begin())),
            Encoding::Gzip | Encoding::Zstd | Encoding::Lz4 => Self::Keeping(reading, Pieces::default()),
        }
    }

    fn push(&mut self, data: Bytes) {
        match self {
            Self::Reading(reader) => {
                if let Err(problem) = reader.feed(&data) {
                    *self = Self::Refused(problem);
                }
            }
            Self::Refused(_) => {}
            Self::Keeping(_, pieces) => pieces.push(data),
        }
    }

    fn finish(self) -> Result<Arrived, Problem> {
        match self {
            Self::Reading(reader) => Ok(Arrived::Read(reader)),
            Self::Refused(problem) => Err(problem),
            Self::Keeping(reading, pieces) => Ok(Arrived::Kept(reading, pieces.finish())),
        }
    }
}

/// The more of a body is there, the longer it waits for the rest of its room: among bodies that cannot all be finished, those give way that lose least.
fn patience(room: &Room, bytes: usize, expected: usize) -> Duration {
    let arrived = bytes as f64 / expected.max(1) as f64;
    room.patience().mul_f64(1.0 + arrived.min(1.0))
}

/// How fast a body comes while other requests wait for the room that it holds.
struct BusyPace {
    bytes_per_s_min: usize,
    /// Made when the body is first waited for.
    windows: Option<tokio::time::Interval>,
    window_bytes: usize,
}

impl BusyPace {
    fn new(bytes_per_s_min: usize) -> Self {
        Self { bytes_per_s_min, windows: None, window_bytes: 0 }
    }

    /// The window starts again: the sender was not listened to.
    fn restart(&mut self) {
        self.window_bytes = 0;
        if let Some(windows) = &mut self.windows {
            windows.reset();
        }
    }

    /// Ends when too little came in a whole window and room is short.
    async fn fallen_behind(&mut self, admission: &Admission) -> TooSlow {
        loop {
            let windows = self.windows.get_or_insert_with(|| {
                let mut windows = tokio::time::interval_at(Instant::now() + BODY_RATE_WINDOW_BUSY, BODY_RATE_WINDOW_BUSY);
                windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
                windows
            });
            windows.tick().await;
            let came = std::mem::take(&mut self.window_bytes);
            if came < self.bytes_per_s_min * BODY_RATE_WINDOW_BUSY.as_secs() as usize && admission.is_pressed() {
                return TooSlow::Rate { bytes_per_s: self.bytes_per_s_min as u64 };
            }
        }
    }
}

fn too_large(max: usize) -> Problem {
    Problem::new(ErrorCode::BodyTooLarge, format!("the body is over {max} bytes as sent; send it in parts")).limit(max as u64)
}

/// Large pieces are kept as they came, without a copy; small ones are put together.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    small: BytesMut,
}

impl Pieces {
    fn push(&mut self, data: Bytes) {
        if data.len() < PIECE_BYTES_MIN {
            self.small.extend_from_slice(&data);
        } else {
            self.seal();
            self.done.push(data);
        }
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.done.push(self.small.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.seal();
        self.done
    }
}
