//! Where a JSON value ends, found byte by byte over any number of pieces, without checking it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Container,
    Text,
    /// Ends where something else begins.
    Scalar,
}

/// The state of the search between two pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    shape: Shape,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Extent {
    /// For a value that begins with `first`, which [`Self::find_end`] gets to see too.
    pub fn new(first: u8) -> Self {
        let shape = match first {
            b'{' | b'[' => Shape::Container,
            b'"' => Shape::Text,
            _ => Shape::Scalar,
        };
        Self { shape, depth: 0, in_string: false, escaped: false }
    }

    /// Whether the end of the body may end it.
    pub fn may_end(&self) -> bool {
        self.shape == Shape::Scalar
    }

    /// How many of `bytes` belong to the value when it ends within them.
    pub fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.escaped {
                self.escaped = false;
                at += 1;
                continue;
            }
            if self.in_string {
                let stop = memchr::memchr2(b'"', b'\\', &bytes[at..])?;
                at += stop + 1;
                if bytes[at - 1] == b'\\' {
                    self.escaped = true;
                    continue;
                }
                self.in_string = false;
                if self.shape == Shape::Text {
                    return Some(at);
                }
                continue;
            }
            match (bytes[at], self.shape) {
                (b',' | b']' | b'}' | b' ' | b'\n' | b'\t' | b'\r', Shape::Scalar) => return Some(at),
                (b'"', Shape::Container | Shape::Text) => self.in_string = true,
                (b'{' | b'[', Shape::Container) => self.depth += 1,
                (b'}' | b']', Shape::Container) => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        None
    }
}
