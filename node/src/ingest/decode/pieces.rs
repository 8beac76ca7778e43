//! A body in the pieces it arrived in, read as one; a piece is freed as soon as it has been read.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};

#[derive(Clone, Debug)]
pub struct Pieces(VecDeque<Bytes>);

impl Pieces {
    pub fn new(pieces: Vec<Bytes>) -> Self {
        Self(pieces.into_iter().filter(|p| !p.is_empty()).collect())
    }

    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Passes over `count` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when there are fewer.
    pub fn skip(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            let step = self.0.front().map(Bytes::len).ok_or(io::ErrorKind::UnexpectedEof)?.min(count);
            self.consume(step);
            count -= step;
        }
        Ok(())
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.0.front().map_or(&[], |piece| piece))
    }

    fn consume(&mut self, count: usize) {
        if let Some(piece) = self.0.front_mut() {
            piece.advance(count.min(piece.len()));
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.front() else { return Ok(0) };
        let count = piece.len().min(out.len());
        out[..count].copy_from_slice(&piece[..count]);
        self.consume(count);
        Ok(count)
    }
}
