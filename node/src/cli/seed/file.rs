//! Batches of events from an NDJSON file, plain, gzip or zstd, read in a stream.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tallymesh_protocol::hash::key_hash;

use crate::cli::client::CliError;
use crate::cli::client::sender::Batch;

/// A batch is sent before it grows past this, in bytes of NDJSON; well under what a node takes in one body.
const BATCH_BYTES_MAX: usize = 6 << 20;
/// A longer line is not sent: no node takes an event of that size.
const LINE_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 256 << 10;

/// How much of the file, as it lies on disk, was read.
pub type BytesRead = Arc<AtomicU64>;

struct Counted<R> {
    inner: R,
    read: BytesRead,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A file that is being read.
pub struct OpenFile {
    /// Decompressed.
    pub text: Box<dyn BufRead + Send>,
    pub read: BytesRead,
    /// On disk, when known.
    pub size_bytes: Option<u64>,
}

/// Opens a file (`-` is standard input), by its first bytes as gzip, zstd or text.
///
/// # Errors
/// It cannot be read.
pub fn open(path: &Path) -> Result<OpenFile, CliError> {
    let fail = |e: std::io::Error| CliError::Usage(format!("cannot read {}: {e}", path.display()));
    let read = BytesRead::default();
    let (raw, size_bytes): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
        (Box::new(std::io::stdin()), None)
    } else {
        let file = File::open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        (Box::new(file), Some(size))
    };
    let mut reader = BufReader::with_capacity(READ_BYTES, Counted { inner: raw, read: read.clone() });
    let start = reader.fill_buf().map_err(fail)?;
    let text: Box<dyn BufRead + Send> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(READ_BYTES, flate2::bufread::MultiGzDecoder::new(reader)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(BufReader::with_capacity(READ_BYTES, zstd::stream::read::Decoder::with_buffer(reader).map_err(fail)?))
    } else {
        Box::new(reader)
    };
    Ok(OpenFile { text, read, size_bytes })
}

/// Cuts a stream of lines into batches. Lines that are too long are left out and counted.
pub struct Batches<R> {
    reader: R,
    events_max: u64,
    left: u64,
    line: u64,
    pending: Vec<u8>,
    pub too_long: Arc<AtomicU64>,
}

impl<R: BufRead> Batches<R> {
    /// Batches of `events_max`, of the first `count` events.
    pub fn new(reader: R, events_max: u64, count: Option<u64>) -> Self {
        let left = count.unwrap_or(u64::MAX);
        Self { reader, events_max: events_max.max(1), left, line: 0, pending: Vec::new(), too_long: Arc::default() }
    }

    /// The next batch, or nothing at the end.
    ///
    /// # Errors
    /// The file cannot be read on, does not decompress, or is not NDJSON.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, CliError> {
        let first_line = self.line;
        let mut body = std::mem::take(&mut self.pending);
        let mut events = u64::from(!body.is_empty());
        let mut line = Vec::new();
        while events < self.events_max.min(self.left) {
            line.clear();
            match self.read_line(&mut line).map_err(|e| CliError::Failed(format!("reading line {}: {e}", self.line + 1)))? {
                Line::End => break,
                Line::TooLong => {
                    self.too_long.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Line::Whole => {}
            }
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            if self.line == 1 && text.starts_with(b"[") {
                let hint = "make it one object a line: jq -c '.[]' array.json > events.ndjson";
                return Err(CliError::Usage(format!("the file is a JSON array, and must be NDJSON; {hint}")));
            }
            if body.len() + text.len() + 1 > BATCH_BYTES_MAX {
                self.pending.extend_from_slice(text);
                self.pending.push(b'\n');
                break;
            }
            body.extend_from_slice(text);
            body.push(b'\n');
            events += 1;
        }
        if events == 0 {
            return Ok(None);
        }
        self.left -= events;
        // From content and place alone: the same file cut the same way gives the same keys, and so the same ids to events without one.
        let key = format!("seed-{first_line:x}-{:032x}", key_hash(&body));
        Ok(Some(Batch::new(body, events).with_idempotency_key(key)))
    }

    fn read_line(&mut self, line: &mut Vec<u8>) -> std::io::Result<Line> {
        self.line += 1;
        let mut is_too_long = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if chunk.is_empty() {
                return Ok(match (is_too_long, line.is_empty()) {
                    (true, _) => Line::TooLong,
                    (false, true) => Line::End,
                    (false, false) => Line::Whole,
                });
            }
            let end = chunk.iter().position(|&b| b == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            is_too_long |= line.len() + part.len() > LINE_BYTES_MAX;
            if !is_too_long {
                line.extend_from_slice(part);
            }
            let used = end.map_or(chunk.len(), |e| e + 1);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(if is_too_long { Line::TooLong } else { Line::Whole });
            }
        }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn sizes(mut batches: Batches<impl BufRead>) -> Vec<u64> {
        std::iter::from_fn(|| batches.next_batch().expect("a good file")).map(|b| b.events).collect()
    }

    #[test]
    fn lines_are_cut_into_batches_and_empty_ones_left_out() {
        let text = "{\"event\":\"a\"}\n\n{\"event\":\"b\"}\r\n  \n{\"event\":\"c\"}";
        assert_eq!(sizes(Batches::new(Cursor::new(text), 2, None)), [2, 1]);
        assert_eq!(sizes(Batches::new(Cursor::new(text), 5, Some(2))), [2]);
        assert_eq!(sizes(Batches::new(Cursor::new(""), 5, None)), [0u64; 0]);
    }

    #[test]
    fn a_batch_stays_under_its_bytes_and_loses_no_line() {
        let line = format!("{{\"event\":\"{}\"}}\n", "x".repeat(900_000));
        let sizes = sizes(Batches::new(Cursor::new(line.repeat(20)), 1_000, None));
        assert_eq!(sizes.iter().sum::<u64>(), 20);
        assert!(sizes.len() >= 3, "{sizes:?}");
    }

    #[test]
    fn a_line_without_end_is_left_out_without_being_held() {
        let text = format!("{{\"a\":1}}\n{}\n{{\"b\":2}}\n", "x".repeat(3 * LINE_BYTES_MAX));
        let batches = Batches::new(BufReader::with_capacity(1_000, Cursor::new(text)), 10, None);
        let too_long = batches.too_long.clone();
        assert_eq!((sizes(batches), too_long.load(Ordering::Relaxed)), (vec![2], 1));
    }

    #[test]
    fn the_same_file_gives_the_same_keys_and_each_batch_its_own() {
        let text = "{\"event\":\"a\"}\n".repeat(6);
        let keys = || -> Vec<_> {
            let mut batches = Batches::new(Cursor::new(text.as_bytes()), 2, None);
            std::iter::from_fn(|| batches.next_batch().expect("a good file")).map(|b| b.idempotency_key).collect()
        };
        assert_eq!(keys(), keys());
        assert_eq!(keys().iter().collect::<std::collections::HashSet<_>>().len(), 3);
    }

    #[test]
    fn an_array_is_refused_with_a_hint() {
        let error = Batches::new(Cursor::new("[{\"event\":\"a\"}]"), 2, None).next_batch().expect_err("an array");
        assert!(error.to_string().contains("jq") && error.exit_code() == 2, "{error}");
    }

    #[test]
    fn compressed_files_are_known_by_their_first_bytes() {
        let text = b"{\"event\":\"a\"}\n".repeat(100);
        let dir = tempfile::tempdir().expect("a directory");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("memory");
        let packed =
            [("plain", text.clone()), ("gzip", gzip.finish().expect("memory")), ("zstd", zstd::bulk::compress(&text, 1).expect("memory"))];
        for (name, bytes) in packed {
            let path = dir.path().join(name);
            std::fs::write(&path, &bytes).expect("a writable directory");
            let file = open(&path).expect("a file");
            assert_eq!(sizes(Batches::new(file.text, 60, None)), [60, 40], "{name}");
            assert_eq!((file.read.load(Ordering::Relaxed), file.size_bytes), (bytes.len() as u64, Some(bytes.len() as u64)));
        }
    }

    #[test]
    fn a_cut_off_file_is_an_error_not_a_shorter_one() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&b"{\"event\":\"a\"}\n".repeat(1_000)).expect("memory");
        let bytes = gzip.finish().expect("memory");
        let reader = BufReader::new(flate2::bufread::MultiGzDecoder::new(Cursor::new(&bytes[..bytes.len() - 9])));
        let mut batches = Batches::new(reader, 10_000, None);
        assert!(batches.next_batch().is_err());
    }
}
