//! Collects the encoded body in the pieces it arrives in, never more than its limit, never without room taken before.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tallymesh_actors::admission::{Admission, Room};
use tallymesh_protocol::error::{ErrorCode, Problem};

use super::{Limits, refused, room_for};
use crate::http::body_problem;
use crate::limits::{CHUNKED_ROOM_STEP_BYTES, PIECE_BYTES_MIN};

pub async fn collect(
    admission: &Admission,
    limits: &Limits,
    content_length: Option<usize>,
    body: &mut Body,
) -> Result<(Vec<Bytes>, Room), Problem> {
    let max = limits.encoded_bytes_max;
    if content_length.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let mut room = room_for(admission, content_length.unwrap_or(CHUNKED_ROOM_STEP_BYTES.min(max))).await?;
    let mut pieces = Pieces::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(body_problem)?.into_data() else { continue };
        let bytes = pieces.bytes + data.len();
        if bytes > max {
            return Err(too_large(max));
        }
        if bytes > room.bytes() {
            room.resize((bytes + CHUNKED_ROOM_STEP_BYTES).min(max)).await.map_err(refused)?;
        }
        pieces.push(data);
    }
    Ok((pieces.finish(), room))
}

fn too_large(max: usize) -> Problem {
    Problem::new(ErrorCode::BodyTooLarge, format!("the body is over {max} bytes as sent; send it in parts")).limit(max as u64)
}

/// Large pieces are kept as they came, without a copy; small ones are put together.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Pieces {
    fn push(&mut self, data: Bytes) {
        self.bytes += data.len();
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
