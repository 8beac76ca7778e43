//! Group keys as columns.

use rkyv::{Archive, Serialize};

use super::{WireError, at_most};
use crate::limits::{DIMENSION_BYTES_MAX, GROUP_BY_MAX};
use crate::question::answer::GroupKey;

#[derive(Archive, Serialize, Default)]
pub(super) struct WireGroups {
    /// End of each group's values.
    ends: Vec<u32>,
    /// 0 for null, else length + 1.
    lengths: Vec<u32>,
    /// One after the other.
    texts: Vec<u8>,
}

impl WireGroups {
    pub(super) fn of(groups: &[GroupKey]) -> Result<Self, WireError> {
        let mut out = Self { ends: Vec::with_capacity(groups.len()), ..Self::default() };
        for group in groups {
            at_most("dimensions of a group", group.len(), GROUP_BY_MAX)?;
            for value in group {
                let text = value.as_deref().unwrap_or_default();
                at_most("bytes of a dimension", text.len(), DIMENSION_BYTES_MAX)?;
                out.texts.extend_from_slice(text.as_bytes());
                out.lengths.push(value.as_ref().map_or(0, |text| text.len() as u32 + 1));
            }
            out.ends.push(out.lengths.len() as u32);
        }
        Ok(out)
    }

    pub(super) fn bytes(&self) -> usize {
        4 * (self.ends.len() + self.lengths.len()) + self.texts.len()
    }
}

impl ArchivedWireGroups {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn read(&self) -> Result<Vec<GroupKey>, WireError> {
        let texts = std::str::from_utf8(&self.texts).map_err(|_| WireError::Damaged("a group is not text"))?;
        let (mut start, mut text_start) = (0, 0);
        let mut value = |stored: u32| {
            let Some(length) = stored.checked_sub(1) else { return Ok(None) };
            let range = text_start..text_start + length as usize;
            text_start = range.end;
            match texts.get(range) {
                Some(text) if text.len() <= DIMENSION_BYTES_MAX => Ok(Some(text.to_owned())),
                _ => Err(WireError::Damaged("a group's text is out of bounds")),
            }
        };
        let mut groups = Vec::with_capacity(self.ends.len());
        for end in self.ends.iter() {
            let end = end.to_native() as usize;
            let lengths = self.lengths.get(start..end).filter(|l| l.len() <= GROUP_BY_MAX);
            let lengths = lengths.ok_or(WireError::Damaged("a group's values are out of bounds"))?;
            // One that begins as another does would have no place in their order.
            if groups.first().is_some_and(|first: &GroupKey| first.len() != lengths.len()) {
                return Err(WireError::Damaged("groups differ in the number of their values"));
            }
            groups.push(lengths.iter().map(|stored| value(stored.to_native())).collect::<Result<_, _>>()?);
            start = end;
        }
        if start != self.lengths.len() || text_start != texts.len() {
            return Err(WireError::Damaged("values behind the last group"));
        }
        Ok(groups)
    }
}
