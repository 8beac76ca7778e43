//! `text/event-stream` (WHATWG HTML, "Server-sent events") from the pieces it arrives in.

/// One event of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pub kind: String,
    pub data: String,
}

/// A line that grows past this is not a Tallymesh node's, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Pieces in, whole frames out.
#[derive(Debug, Default)]
pub struct Frames {
    line: Vec<u8>,
    frame: Frame,
    has_data: bool,
}

impl Frames {
    /// The frames that this piece completes.
    ///
    /// # Errors
    /// A line has no end.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Frame>, String> {
        let mut frames = Vec::new();
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            self.take_line(&String::from_utf8_lossy(line), &mut frames);
        }
        if self.line.len() + rest.len() > LINE_BYTES_MAX {
            return Err(format!("the stream has a line of more than {LINE_BYTES_MAX} bytes"));
        }
        self.line.extend_from_slice(rest);
        Ok(frames)
    }

    fn take_line(&mut self, line: &str, frames: &mut Vec<Frame>) {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            if std::mem::take(&mut self.has_data) {
                frames.push(frame);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.frame.kind),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            // Comments, which keep the connection alive, have an empty field name.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_the_stream_is_cut() {
        let text = ": hello\n\nevent: lagged\ndata: {\"missed\":3}\n\ndata:{\"event\":\"départ\"}\r\n\r\ndata: a\ndata: b\nid: 4\n\nevent: nothing\n\ndata: cut";
        let frame = |kind: &str, data: &str| Frame { kind: kind.to_owned(), data: data.to_owned() };
        let expected = [frame("lagged", "{\"missed\":3}"), frame("", "{\"event\":\"départ\"}"), frame("", "a\nb")];
        for size in [1, 2, 3, 7, 1_000] {
            let mut frames = Frames::default();
            let got: Vec<_> = text.as_bytes().chunks(size).flat_map(|piece| frames.push(piece).expect("short lines")).collect();
            assert_eq!(got, expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let mut frames = Frames::default();
        assert!((0..20).any(|_| frames.push(&[b'x'; 100_000]).is_err()));
    }
}
