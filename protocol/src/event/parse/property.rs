//! Properties of an event that definitions read: all wanted ones in one pass over its text.

use std::borrow::Cow;

use super::fields::Field;
use super::number;
use super::rules::text_of;
use super::scan::Scanner;
use super::token::{Kind, Token};
use crate::event::Event;
use crate::limits::JSON_DEPTH_MAX;

/// Finds the members of those names in the object at `object` within `text`, which has been checked. The last of a name wins.
pub(super) fn find<N: AsRef<str>>(text: &str, object: Token, names: &[N], found: &mut [Token]) {
    visit(text, object.start(), |key, value| {
        if let Some(i) = names.iter().position(|n| n.as_ref() == key) {
            found[i] = value;
        }
    });
}

/// Visits the members of the object at `at`.
fn visit(text: &str, at: usize, mut member: impl FnMut(&str, Token)) {
    let Some(mut scanner) = Scanner::new(text, at) else { return };
    // The text was checked when the event was parsed, so the scan ends behind the object.
    let _ = scanner.members(JSON_DEPTH_MAX, |key, value| {
        match key.kind() {
            Kind::Text => member(key.of(text), value),
            _ => member(&text_of(key, text)?, value),
        }
        Some(())
    });
}

#[derive(Clone, Copy, Debug, Default)]
struct Found {
    token: Token,
    /// In the event's text as a whole, not in its `properties`.
    is_extra: bool,
}

/// Reads properties by name. One reader serves many events, one after the other, without allocating for each.
#[derive(Debug, Default)]
pub struct PropertyReader {
    tokens: Vec<Token>,
    found: Vec<Found>,
}

impl PropertyReader {
    /// Looks the names up in the event's `properties`, and what is not there among its unknown top-level fields. The accessors then take the index
    /// of a name and **the same event**.
    pub fn read<N: AsRef<str>>(&mut self, names: &[N], event: &Event<'_>) {
        self.tokens.clear();
        self.tokens.resize(names.len(), Token::default());
        if let Some(properties) = event.properties {
            find(properties, Token::default(), names, &mut self.tokens);
        }
        self.found.clear();
        self.found.extend(self.tokens.iter().map(|&token| Found { token, is_extra: false }));
        if event.has_extra_fields && self.found.iter().any(|f| f.token.kind() == Kind::Absent) {
            let found = &mut self.found;
            visit(event.raw, 0, |key, value| {
                if Field::of(key.as_bytes()).is_none()
                    && let Some(i) = names.iter().position(|n| n.as_ref() == key)
                    && (found[i].is_extra || found[i].token.kind() == Kind::Absent)
                {
                    found[i] = Found { token: value, is_extra: true };
                }
            });
        }
    }

    /// Strings as they are, numbers and booleans as their JSON text; `None` for null, arrays, objects and what is not there.
    pub fn text<'e>(&self, index: usize, event: &Event<'e>) -> Option<Cow<'e, str>> {
        let (token, text) = self.get(index, event)?;
        scalar_text(token, text)
    }

    /// `None` for anything but a number.
    pub fn number(&self, index: usize, event: &Event<'_>) -> Option<f64> {
        let (token, text) = self.get(index, event)?;
        matches!(token.kind(), Kind::Integer | Kind::Decimal).then(|| number::parse(token.of(text)))
    }

    fn get<'e>(&self, index: usize, event: &Event<'e>) -> Option<(Token, &'e str)> {
        let found = self.found.get(index)?;
        let text = if found.is_extra { event.raw } else { event.properties? };
        Some((found.token, text))
    }
}

fn scalar_text(token: Token, text: &str) -> Option<Cow<'_, str>> {
    match token.kind() {
        Kind::True | Kind::False | Kind::Integer | Kind::Decimal => Some(Cow::Borrowed(token.of(text))),
        _ => text_of(token, text),
    }
}

/// The `value` field as its JSON text.
pub(super) fn value_text<'e>(event: &Event<'e>) -> Option<Cow<'e, str>> {
    let mut last = Token::default();
    visit(event.raw, 0, |key, value| {
        if Field::of(key.as_bytes()) == Some(Field::Value) {
            last = value;
        }
    });
    scalar_text(last, event.raw)
}
