//! Texts interned to numbers.

use hashbrown::HashTable;
use tallymesh_protocol::hash::identity_hash;

/// Number of a dimension value.
pub type ValueId = u32;
/// The value null; texts follow from 1.
pub const NULL: ValueId = 0;

#[derive(Clone, Debug, Default)]
pub struct TextTable {
    bytes: String,
    /// End of each text in `bytes`; text `n` has number `n + 1`.
    ends: Vec<u64>,
    ids: HashTable<ValueId>,
}

impl TextTable {
    pub fn text(&self, id: ValueId) -> Option<&str> {
        let index = id.checked_sub(1)? as usize;
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Some(&self.bytes[start..end])
    }

    pub fn find(&self, text: &str) -> Option<ValueId> {
        self.ids.find(identity_hash(text.as_bytes()), |&id| self.text(id) == Some(text)).copied()
    }

    pub fn intern(&mut self, text: &str) -> ValueId {
        if let Some(id) = self.find(text) {
            return id;
        }
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len() as u64);
        let id = self.ends.len() as ValueId;
        let (bytes, ends) = (&self.bytes, &self.ends);
        self.ids.insert_unique(identity_hash(text.as_bytes()), id, |&id| {
            let index = id as usize - 1;
            let start = if index == 0 { 0 } else { ends[index - 1] as usize };
            identity_hash(&bytes.as_bytes()[start..ends[index] as usize])
        });
        id
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 8 + self.ids.capacity() * 5
    }
}
