//! Content encodings, streamed: what was sent goes in as the pieces it came in, what it says comes out in windows of bounded size.
//!
//! The encoded bytes are bounded by whoever collected them, the decoded ones by whoever takes the windows; both may stop it at any time. So
//! neither a small body that unpacks to terabytes nor one made of padding costs more than its limit.

mod lz4;
mod pieces;
#[cfg(test)]
mod tests;

use std::io::{self, Read};

use bytes::Bytes;
use tallymesh_protocol::error::{ErrorCode, Problem};

use pieces::Pieces;

/// Decoded bytes handed on at once.
pub const DECODE_WINDOW_BYTES_MAX: usize = 256 << 10;
const DECODE_WINDOW_BYTES_MIN: usize = 16 << 10;
/// log2 of the largest zstd window that is decoded: 8 MiB, what RFC 8878 asks of every decoder.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// `Content-Encoding` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
    Lz4,
}

impl Encoding {
    /// # Errors
    /// [`ErrorCode::UnsupportedEncoding`], also for several encodings on top of each other.
    pub fn parse(header: Option<&str>) -> Result<Self, Problem> {
        let text = header.unwrap_or_default().trim();
        for (name, encoding) in [
            ("", Self::Identity),
            ("identity", Self::Identity),
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("zstd", Self::Zstd),
            ("lz4", Self::Lz4),
        ] {
            if text.eq_ignore_ascii_case(name) {
                return Ok(encoding);
            }
        }
        let shown: String = text.chars().take(50).collect();
        Err(Problem::new(ErrorCode::UnsupportedEncoding, format!("`{shown}` is not supported; send gzip, zstd, lz4 or identity"))
            .field("Content-Encoding"))
    }
}

/// Decodes a whole body and hands it on in windows.
///
/// # Errors
/// [`ErrorCode::BadEncoding`] for damaged, cut or foreign bytes, or whatever `take` answers.
pub fn decode(encoding: Encoding, body: Vec<Bytes>, take: &mut dyn FnMut(&[u8]) -> Result<(), Problem>) -> Result<(), Problem> {
    let bad = |name: &str, error: io::Error| {
        let cut = if error.kind() == io::ErrorKind::UnexpectedEof { " (it ends too early)" } else { "" };
        Problem::new(ErrorCode::BadEncoding, format!("the body is not {name}: {error}{cut}"))
    };
    let encoded: usize = body.iter().map(Bytes::len).sum();
    let window = (8 * encoded).clamp(DECODE_WINDOW_BYTES_MIN, DECODE_WINDOW_BYTES_MAX);
    match encoding {
        Encoding::Identity => {
            for piece in body {
                piece.chunks(DECODE_WINDOW_BYTES_MAX).try_for_each(&mut *take)?;
            }
            Ok(())
        }
        _ if encoded == 0 => Ok(()),
        Encoding::Gzip => windows(&mut flate2::bufread::MultiGzDecoder::new(Pieces::new(body)), window, take, |e| bad("gzip", e)),
        Encoding::Zstd => {
            let open = || {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(Pieces::new(body))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(decoder)
            };
            windows(&mut open().map_err(|e| bad("zstd", e))?, window, take, |e| bad("zstd", e))
        }
        Encoding::Lz4 => {
            let mut decoder = lz4::Decoder::open(Pieces::new(body)).map_err(|e| bad("an lz4 frame", e))?;
            windows(&mut decoder, window, take, |e| bad("an lz4 frame", e))
        }
    }
}

fn windows(
    decoder: &mut dyn Read,
    window_bytes: usize,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Problem>,
    bad: impl Fn(io::Error) -> Problem,
) -> Result<(), Problem> {
    let mut window = vec![0; window_bytes];
    loop {
        let mut filled = 0;
        while filled < window.len() {
            match decoder.read(&mut window[filled..]) {
                Ok(0) => {
                    return if filled == 0 { Ok(()) } else { take(&window[..filled]) };
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(bad(e)),
            }
        }
        take(&window)?;
    }
}
