//! What names a moment of a stream, so that a client that comes again can go on from there.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The process, the queries in their order, and the version of each that the client has; 0 is none. Opaque to clients; `hex-hex-hex.hex...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId {
    pub process: u64,
    pub queries: u64,
    pub versions: Vec<u64>,
}

impl EventId {
    /// What stands for these queries within this process.
    pub fn of_queries<'a>(questions: impl IntoIterator<Item = &'a str>) -> u64 {
        let mut hasher = DefaultHasher::new();
        questions.into_iter().for_each(|question| question.hash(&mut hasher));
        hasher.finish()
    }

    /// `None` for anything that [`Self::fmt`] does not write.
    pub fn parse(text: &str, versions_max: usize) -> Option<Self> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut parts = text.split('-');
        let (process, queries, versions) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
        let versions = versions.split('.').take(versions_max + 1).map(number).collect::<Option<Vec<u64>>>()?;
        (parts.next().is_none() && versions.len() <= versions_max).then_some(Self { process, queries, versions })
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{:x}-", self.process, self.queries)?;
        for (i, version) in self.versions.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            write!(f, "{dot}{version:x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_nothing_else_does() {
        let id = EventId { process: u64::MAX, queries: 7, versions: vec![0, 18, 3] };
        assert_eq!(id.to_string(), "ffffffffffffffff-7-0.12.3");
        assert_eq!(EventId::parse(&id.to_string(), 3), Some(id.clone()));
        assert_eq!(EventId::parse(&id.to_string(), 2), None, "more queries than there are");
        for text in ["", "-", "--", "1-2-", "1-2-x", "1-2-3-4", "1-2-3.", "é", "1-2-ffffffffffffffffff"] {
            assert_eq!(EventId::parse(text, 3), None, "{text}");
        }
    }

    #[test]
    fn other_queries_have_another_hash() {
        let of = |questions: &[&str]| EventId::of_queries(questions.iter().copied());
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert!(of(&["a", "b"]) != of(&["b", "a"]) && of(&["a", "b"]) != of(&["ab"]));
    }
}
