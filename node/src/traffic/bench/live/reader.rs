//! As much of an event stream over HTTP/1.1 as the bench needs: which events came, and what the first number of an answer is.

/// An incomplete line is kept up to this; a longer one is no event of the bench's queries.
const LINE_BYTES_MAX: usize = 256 << 10;
const COUNT: &[u8] = b"\"count\":";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Snapshot(Option<u64>),
    Delta(Option<u64>),
    Heartbeat,
    Problem,
}

#[derive(Default)]
pub struct SseReader {
    /// The line that is not complete yet.
    line: Vec<u8>,
    event: Vec<u8>,
    is_refused: bool,
    has_status: bool,
}

impl SseReader {
    /// Takes what came next; the events that it completes.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Said> {
        let (mut said, mut start) = (Vec::new(), 0);
        for end in memchr::memchr_iter(b'\n', bytes) {
            let part = bytes.get(start..end).unwrap_or_default();
            start = end + 1;
            if self.line.is_empty() {
                said.extend(self.line_is(part));
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(part);
                said.extend(self.line_is(&line));
            }
        }
        let rest = bytes.get(start..).unwrap_or_default();
        if self.line.len() + rest.len() <= LINE_BYTES_MAX {
            self.line.extend_from_slice(rest);
        }
        said
    }

    fn line_is(&mut self, line: &[u8]) -> Option<Said> {
        if !self.has_status {
            self.has_status = true;
            self.is_refused = !line.starts_with(b"HTTP/1.1 200");
            return None;
        }
        if let Some(event) = line.strip_prefix(b"event: ") {
            self.event = event.to_vec();
            return None;
        }
        let data = line.strip_prefix(b"data: ")?;
        match std::mem::take(&mut self.event).as_slice() {
            b"snapshot" => Some(Said::Snapshot(first_count(data))),
            b"delta" => Some(Said::Delta(first_count(data))),
            b"heartbeat" => Some(Said::Heartbeat),
            b"problem" => Some(Said::Problem),
            _ => None,
        }
    }

    /// Whether the answer was no stream.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// What came last, for whoever has to say why.
    pub fn rest(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }
}

fn first_count(data: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(data, COUNT)? + COUNT.len();
    let digits = data.get(at..)?.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(data.get(at..at + digits)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n10\r\nretry: 1000\n\n\r\n40\r\nevent: snapshot\nid: 1-2-3\n\
        data: {\"query\":0,\"answer\":{\"data\":[{\"values\":{\"count\":7}}]}}\n\n\r\n30\r\nevent: delta\nid: 4\n\
        data: {\"query\":0,\"changed\":[{\"values\":{\"count\":12}}]}\n\n\r\n10\r\nevent: heartbeat\nid: 5\ndata: {}\n\n\r\n\
        10\r\nevent: problem\nid: 6\ndata: {\"query\":0,\"problem\":{}}\n\n\r\n10\r\nevent: delta\nid: 7\ndata: {\"changed\":[]}\n\n\r\n";

    #[test]
    fn events_are_the_same_however_their_bytes_arrive() {
        let wanted = [Said::Snapshot(Some(7)), Said::Delta(Some(12)), Said::Heartbeat, Said::Problem, Said::Delta(None)];
        for size in [1, 2, 7, 64, STREAM.len()] {
            let mut reader = SseReader::default();
            let said: Vec<Said> = STREAM.chunks(size).flat_map(|piece| reader.read(piece)).collect();
            assert_eq!(said, wanted, "pieces of {size} bytes");
            assert!(!reader.is_refused());
        }
    }

    #[test]
    fn a_refusal_is_none_and_its_text_is_kept() {
        let mut reader = SseReader::default();
        assert!(reader.read(b"HTTP/1.1 429 Too Many Requests\r\n\r\n{\"code\":\"overloaded\"}").is_empty());
        assert!(reader.is_refused());
        assert_eq!(reader.rest(), "{\"code\":\"overloaded\"}");
    }
}
