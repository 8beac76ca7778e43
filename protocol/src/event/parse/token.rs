//! What a scan says about a value: its kind and where it is.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Absent,
    Null,
    True,
    False,
    /// A number without fraction and exponent.
    Integer,
    Decimal,
    /// Between the quotes; what is there is the text itself.
    Text,
    /// Between the quotes; has escapes.
    Escaped,
    Array,
    Object,
}

/// Longest text that is scanned, in bytes: places in it have 30 bits in a [`Token`].
pub(super) const TEXT_BYTES_MAX: usize = (1 << 30) - 1;

/// A value's kind (4 bits) and its place in the text that was scanned, from (30 bits) and to (30 bits).
///
/// One word, so that it stays in a register: as a struct of three it is copied through memory in other widths than it was written in, and each such
/// copy waits for the store buffer, which doubled the time of a scan.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Token(u64);

impl Token {
    /// `start <= end <= TEXT_BYTES_MAX`.
    #[inline]
    pub fn new(kind: Kind, start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= TEXT_BYTES_MAX);
        Self(kind as u64 | (start as u64) << 4 | (end as u64) << 34)
    }

    #[inline]
    pub fn kind(self) -> Kind {
        match self.0 & 15 {
            1 => Kind::Null,
            2 => Kind::True,
            3 => Kind::False,
            4 => Kind::Integer,
            5 => Kind::Decimal,
            6 => Kind::Text,
            7 => Kind::Escaped,
            8 => Kind::Array,
            9 => Kind::Object,
            _ => Kind::Absent,
        }
    }

    /// Null or absent.
    #[inline]
    pub fn is_nothing(self) -> bool {
        self.0 & 15 <= Kind::Null as u64
    }

    /// A string of 1 to `limit` bytes without escapes.
    #[inline]
    pub fn is_text_within(self, limit: usize) -> bool {
        self.0 & 15 == Kind::Text as u64 && self.len().wrapping_sub(1) < limit
    }

    #[inline]
    pub fn start(self) -> usize {
        (self.0 >> 4) as usize & TEXT_BYTES_MAX
    }

    #[inline]
    fn end(self) -> usize {
        (self.0 >> 34) as usize
    }

    #[inline]
    fn len(self) -> usize {
        self.end() - self.start()
    }

    #[inline]
    pub fn of(self, text: &str) -> &str {
        &text[self.start()..self.end()]
    }

    /// With its quotes, if it is a string.
    pub fn quoted(self, text: &str) -> &str {
        &text[self.start() - 1..self.end() + 1]
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {}..{}", self.kind(), self.start(), self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_place_survive_packing() {
        let kinds = [
            Kind::Absent,
            Kind::Null,
            Kind::True,
            Kind::False,
            Kind::Integer,
            Kind::Decimal,
            Kind::Text,
            Kind::Escaped,
            Kind::Array,
            Kind::Object,
        ];
        for kind in kinds {
            for (start, end) in
                [(0, 0), (1, 7), (TEXT_BYTES_MAX - 1, TEXT_BYTES_MAX), (TEXT_BYTES_MAX, TEXT_BYTES_MAX), (0, TEXT_BYTES_MAX)]
            {
                let token = Token::new(kind, start, end);
                assert_eq!((token.kind(), token.start(), token.end(), token.len()), (kind, start, end, end - start));
                assert_eq!(token.is_nothing(), matches!(kind, Kind::Absent | Kind::Null));
            }
        }
        assert_eq!(Token::default().kind(), Kind::Absent);
    }
}
