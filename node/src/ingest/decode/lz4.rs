//! lz4 frames (`lz4_Frame_format.md`), several in a row, skippable ones passed over.
//!
//! `lz4_flex` takes a stream that ends between two blocks for a finished one: a body cut there would lose its tail without a word. The frames
//! are therefore walked first, by their block lengths alone, and have to end with their end marks.

use std::io::{self, Read};

use lz4_flex::frame::FrameDecoder;

use super::pieces::Pieces;

const MAGIC: u32 = 0x184D_2204;
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;
/// Frames of one body: each costs a set-up that its bytes do not pay for.
const FRAMES_MAX: usize = 4_096;
/// Largest block that the format knows.
const BLOCK_BYTES_MAX: u32 = 4 << 20;

pub struct Decoder(FrameDecoder<Frames>);

impl Decoder {
    /// # Errors
    /// Bytes that are not whole frames.
    pub fn open(body: Pieces) -> io::Result<Self> {
        let segments = walk(body.clone())?;
        Ok(Self(FrameDecoder::new(Frames { body, segments: segments.into_iter().rev().collect() })))
    }
}

impl Read for Decoder {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.0.read(out)?;
            // 0 is the end of a frame; the next may follow.
            if count > 0 || out.is_empty() || self.0.get_ref().segments.is_empty() {
                return Ok(count);
            }
        }
    }
}

/// A stretch of the body.
enum Segment {
    Frame(usize),
    Skip(usize),
}

/// The body without its skippable frames.
struct Frames {
    body: Pieces,
    /// What is left, last first.
    segments: Vec<Segment>,
}

impl Read for Frames {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.segments.last_mut() {
                None => return Ok(0),
                Some(Segment::Skip(count)) => {
                    let count = *count;
                    self.body.skip(count)?;
                    self.segments.pop();
                }
                Some(Segment::Frame(left)) => {
                    let most = out.len().min(*left);
                    let count = self.body.read(&mut out[..most])?;
                    *left -= count;
                    if *left == 0 {
                        self.segments.pop();
                    }
                    return Ok(count);
                }
            }
        }
    }
}

fn walk(mut body: Pieces) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    while !body.is_at_end() {
        if segments.len() == FRAMES_MAX {
            return Err(io::Error::other(format!("more than {FRAMES_MAX} frames")));
        }
        let magic = read_u32(&mut body)?;
        if SKIPPABLE.contains(&magic) {
            let length = read_u32(&mut body)? as usize;
            body.skip(length)?;
            segments.push(Segment::Skip(8 + length));
        } else if magic == MAGIC {
            segments.push(Segment::Frame(4 + walk_frame(&mut body)?));
        } else {
            return Err(io::Error::other(format!("a frame cannot start with {magic:#010x}")));
        }
    }
    // A frame at the end, or none: trailing padding would otherwise be read for a frame that never comes.
    while let Some(Segment::Skip(_)) = segments.last() {
        segments.pop();
    }
    Ok(segments)
}

/// Length of a frame after its magic number.
fn walk_frame(body: &mut Pieces) -> io::Result<usize> {
    let mut descriptor = [0; 2];
    body.read_exact(&mut descriptor)?;
    let flag = |bit: u8| usize::from(descriptor[0] >> bit & 1);
    let rest = 8 * flag(3) + 4 * flag(0) + 1;
    body.skip(rest)?;
    let mut length = 2 + rest;
    loop {
        let size = read_u32(body)?;
        length += 4;
        if size == 0 {
            break;
        }
        let bytes = size & 0x7FFF_FFFF;
        if bytes > BLOCK_BYTES_MAX {
            return Err(io::Error::other(format!("a block of {bytes} bytes; at most {BLOCK_BYTES_MAX}")));
        }
        let block = bytes as usize + 4 * flag(4);
        body.skip(block)?;
        length += block;
    }
    let checksum = 4 * flag(2);
    body.skip(checksum)?;
    Ok(length + checksum)
}

fn read_u32(body: &mut Pieces) -> io::Result<u32> {
    let mut bytes = [0; 4];
    body.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
