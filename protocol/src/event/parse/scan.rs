//! One pass over JSON text that checks it and says where values are, without building them.
//!
//! It accepts a subset of what serde_json accepts (same grammar, escapes, surrogates and number range) and answers `None` for the rest, whatever
//! the reason: [`super::slow`] finds the reason. No recursion: nesting is a bit stack, so [`JSON_DEPTH_MAX`] bounds it.

use super::number;
use super::run::plain_run;
use super::token::{Kind, TEXT_BYTES_MAX, Token};
use crate::limits::JSON_DEPTH_MAX;

const _: () = assert!(JSON_DEPTH_MAX <= 64, "nesting is kept in the bits of a u64");

pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pub at: usize,
}

/// A number without exponent and no longer than this is finite, in digits.
const FINITE_DIGITS: usize = 300;

impl<'a> Scanner<'a> {
    /// `None` when the text is too long for a [`Token`].
    pub fn new(text: &'a str, at: usize) -> Option<Self> {
        (text.len() <= TEXT_BYTES_MAX).then_some(Self { text, bytes: text.as_bytes(), at })
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    #[inline]
    pub fn space(&mut self) {
        if self.peek().is_some_and(|b| b <= b' ') {
            self.some_space();
        }
    }

    fn some_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The bytes from `at` on.
    #[inline]
    pub fn rest(&self, at: usize) -> &'a [u8] {
        self.bytes.get(at..).unwrap_or_default()
    }

    /// The eight bytes at `at`, first byte lowest.
    #[inline]
    pub fn word(&self, at: usize) -> Option<u64> {
        self.bytes.get(at..)?.first_chunk::<8>().map(|c| u64::from_le_bytes(*c))
    }

    /// A string, from its opening quote.
    #[inline(always)]
    pub fn string(&mut self) -> Option<Token> {
        self.take(b'"')?;
        let start = self.at;
        self.at += plain_run(self.rest(start));
        if self.peek()? == b'"' {
            self.at += 1;
            return Some(Token::new(Kind::Text, start, self.at - 1));
        }
        self.rest_of_string(start)
    }

    #[cold]
    fn rest_of_string(&mut self, start: usize) -> Option<Token> {
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(Token::new(Kind::Escaped, start, self.at - 1));
                }
                b'\\' => self.escape()?,
                _ => return None,
            }
            self.at += plain_run(self.rest(self.at));
        }
    }

    fn escape(&mut self) -> Option<()> {
        let escaped = *self.bytes.get(self.at + 1)?;
        self.at += 2;
        match escaped {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.hex4()? {
                0xD800..=0xDBFF => {
                    self.take(b'\\')?;
                    self.take(b'u')?;
                    matches!(self.hex4()?, 0xDC00..=0xDFFF).then_some(())
                }
                0xDC00..=0xDFFF => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex4(&mut self) -> Option<u16> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0u16, |n, &d| Some(n << 4 | (d as char).to_digit(16)? as u16))
    }

    /// At least one digit.
    #[inline]
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.word(self.at).is_some_and(number::is_eight_digits) {
            self.at += 8;
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<Token> {
        let start = self.at;
        let mut kind = Kind::Integer;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            kind = Kind::Decimal;
            self.at += 1;
            self.digits()?;
        }
        let mut in_doubt = self.at - start > FINITE_DIGITS;
        if let Some(b'e' | b'E') = self.peek() {
            kind = Kind::Decimal;
            in_doubt = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let token = Token::new(kind, start, self.at);
        if in_doubt && !number::parse(token.of(self.text)).is_finite() {
            return None;
        }
        Some(token)
    }

    fn literal(&mut self, literal: &[u8], kind: Kind) -> Option<Token> {
        let end = self.at + literal.len();
        if self.bytes.get(self.at..end)? != literal {
            return None;
        }
        let token = Token::new(kind, self.at, end);
        self.at = end;
        Some(token)
    }

    /// Any value; containers in it may be nested `levels` deep.
    #[inline(always)]
    pub fn value(&mut self, levels: usize) -> Option<Token> {
        match self.peek()? {
            b'"' => self.string(),
            open @ (b'{' | b'[') => {
                let start = self.at;
                self.container(levels)?;
                Some(Token::new(if open == b'{' { Kind::Object } else { Kind::Array }, start, self.at))
            }
            _ => self.scalar(),
        }
    }

    #[inline]
    fn scalar(&mut self) -> Option<Token> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'n' => self.literal(b"null", Kind::Null),
            b't' => self.literal(b"true", Kind::True),
            b'f' => self.literal(b"false", Kind::False),
            _ => None,
        }
    }

    /// From an opening bracket to behind the one that closes it.
    fn container(&mut self, levels: usize) -> Option<()> {
        let mut stack = 0u64;
        let mut depth = 0;
        'open: loop {
            if depth >= levels {
                return None;
            }
            let mut in_object = self.peek()? == b'{';
            depth += 1;
            stack = stack << 1 | u64::from(in_object);
            self.at += 1;
            self.space();
            let mut closes = self.peek()? == if in_object { b'}' } else { b']' };
            loop {
                if !closes {
                    if in_object {
                        self.key()?;
                    }
                    match self.peek()? {
                        b'"' => self.string()?,
                        b'{' | b'[' => continue 'open,
                        _ => self.scalar()?,
                    };
                    self.space();
                }
                // Behind a value, or at the bracket of an empty container.
                loop {
                    match self.peek()? {
                        b',' if !closes => {
                            self.at += 1;
                            self.space();
                            break;
                        }
                        close @ (b'}' | b']') if (close == b'}') == in_object => {
                            self.at += 1;
                            depth -= 1;
                            if depth == 0 {
                                return Some(());
                            }
                            stack >>= 1;
                            in_object = stack & 1 == 1;
                            closes = false;
                            self.space();
                        }
                        _ => return None,
                    }
                }
            }
        }
    }

    /// A key and its colon, up to its value.
    #[inline(always)]
    pub fn key(&mut self) -> Option<Token> {
        let key = self.string()?;
        if self.take(b':').is_none() {
            self.space();
            self.take(b':')?;
        }
        self.space();
        Some(key)
    }

    /// Visits the members of the object at `at`, whose own level counts; leaves `at` behind it. `visit` may refuse a member.
    #[inline]
    pub fn members(&mut self, levels: usize, mut visit: impl FnMut(Token, Token) -> Option<()>) -> Option<()> {
        let inner = levels.checked_sub(1)?;
        self.take(b'{')?;
        self.space();
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            let key = self.key()?;
            let value = self.value(inner)?;
            visit(key, value)?;
            if !self.next_member()? {
                return Some(());
            }
        }
    }

    /// Behind a member's value: whether another one follows. Leaves `at` at its key, or behind the object.
    #[inline]
    pub fn next_member(&mut self) -> Option<bool> {
        self.space();
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b',' => {
                self.space();
                Some(true)
            }
            b'}' => Some(false),
            _ => None,
        }
    }
}
