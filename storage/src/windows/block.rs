//! An immutable block of windows: one allocation (or a slice of a mapped file), checked once, read in place.
//!
//! Layout, little-endian: magic `TMWN`, version `u32`, length of the archive `u64`; then the rkyv archive of [`Columns`]. 16-aligned.

use std::sync::Arc;

use bytes::Bytes;
use rkyv::util::AlignedVec;
use tallymesh_protocol::aggregate::{Last, bin_of};
use tallymesh_protocol::time::Grain;

use super::columns::{ArchivedColumns, Columns, Identities};
use super::totals::Derived;

pub(super) const BLOCK_MAGIC: [u8; 4] = *b"TMWN";
pub(super) const BLOCK_VERSION: u32 = 1;
/// Alignment of a block in memory and in its file, in bytes.
pub(super) const BLOCK_ALIGN: usize = 16;
const HEADER_BYTES: usize = 16;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BlockError {
    #[error("block version {0} is not known here (this build reads {BLOCK_VERSION})")]
    Version(u32),
    #[error("{0}")]
    Damaged(&'static str),
}

/// Windows of one grain and partition.
pub(super) struct Block {
    bytes: Bytes,
    pub grain: Grain,
    pub partition_ms: i64,
    /// Start of the first and of the last window, UTC milliseconds.
    pub first_ms: i64,
    pub last_ms: i64,
    /// How many windows. Kept beside the bytes, so that figures do not bring those of every block into memory.
    windows: usize,
    /// The same block elsewhere in memory has the same totals.
    derived: Arc<Derived>,
}

impl Block {
    /// Encodes columns made by the builder.
    pub fn encode(columns: &Columns, capacity: usize) -> Self {
        let mut out = AlignedVec::<BLOCK_ALIGN>::with_capacity(HEADER_BYTES + capacity);
        out.extend_from_slice(&BLOCK_MAGIC);
        out.extend_from_slice(&BLOCK_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        let mut out = match rkyv::api::high::to_bytes_in::<_, rkyv::rancor::Error>(columns, out) {
            Ok(bytes) => bytes,
            // Plain columns into memory: nothing in it can fail but allocation, which aborts.
            Err(error) => unreachable!("encoding a block: {error}"),
        };
        let archive = (out.len() - HEADER_BYTES) as u64;
        out[8..HEADER_BYTES].copy_from_slice(&archive.to_le_bytes());
        out.shrink_to_fit();
        Self::with_summary(Bytes::from_owner(out))
    }

    /// Checks bytes that come from disk.
    ///
    /// # Errors
    /// Whatever does not hold; hostile bytes never panic or read out of bounds.
    pub fn open(bytes: Bytes) -> Result<Self, BlockError> {
        let bytes = if (bytes.as_ptr() as usize).is_multiple_of(BLOCK_ALIGN) {
            bytes
        } else {
            let mut aligned = AlignedVec::<BLOCK_ALIGN>::with_capacity(bytes.len());
            aligned.extend_from_slice(&bytes);
            Bytes::from_owner(aligned)
        };
        let (header, archive) = bytes.split_at_checked(HEADER_BYTES).ok_or(BlockError::Damaged("the block header is cut off"))?;
        if header[..4] != BLOCK_MAGIC {
            return Err(BlockError::Damaged("not a block of windows"));
        }
        let version = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if version != BLOCK_VERSION {
            return Err(BlockError::Version(version));
        }
        if header[8..] != (archive.len() as u64).to_le_bytes() {
            return Err(BlockError::Damaged("the block's length is not what its header says"));
        }
        let columns =
            rkyv::access::<ArchivedColumns, rkyv::rancor::Error>(archive).map_err(|_| BlockError::Damaged("the archive is malformed"))?;
        columns.check().map_err(BlockError::Damaged)?;
        Ok(Self::with_summary(bytes))
    }

    fn with_summary(bytes: Bytes) -> Self {
        let mut block = Self { bytes, grain: Grain::Minute, partition_ms: 0, first_ms: 0, last_ms: 0, windows: 0, derived: Arc::default() };
        let columns = block.columns();
        let (first_ms, last_ms) = (columns.start_ms(0), columns.start_ms(columns.starts.len() - 1));
        let summary = (columns.grain(), columns.partition_ms.to_native(), first_ms, last_ms, columns.keys.len());
        (block.grain, block.partition_ms, block.first_ms, block.last_ms, block.windows) = summary;
        block
    }

    #[expect(unsafe_code, reason = "read in place without checking the archive again at every scan")]
    #[inline]
    pub fn columns(&self) -> &ArchivedColumns {
        // SAFETY: the bytes are private and immutable, and were either written by `encode` or passed `rkyv::access` for this type in `open`, or equal
        // such ones (`moved_to`: out of the immutable file that they were written to or checked in), at a 16-aligned address; the archive reaches to the
        // end of the bytes in all cases.
        unsafe { rkyv::access_unchecked::<ArchivedColumns>(&self.bytes[HEADER_BYTES..]) }
    }

    /// Totals of its windows, as far as they are kept.
    pub fn derived(&self) -> &Derived {
        &self.derived
    }

    /// The same block read from other bytes that are equal, which is not looked at: bytes out of its file do not come into memory before they are used.
    ///
    /// # Errors
    /// They lie so, or are so long, that they cannot be.
    pub fn moved_to(&self, bytes: Bytes) -> Result<Self, BlockError> {
        if bytes.len() != self.bytes.len() || !(bytes.as_ptr() as usize).is_multiple_of(BLOCK_ALIGN) {
            return Err(BlockError::Damaged("the block is not where it was written"));
        }
        let Self { grain, partition_ms, first_ms, last_ms, windows, .. } = *self;
        Ok(Self { bytes, grain, partition_ms, first_ms, last_ms, windows, derived: self.derived.clone() })
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn windows(&self) -> usize {
        self.windows
    }
}

impl ArchivedColumns {
    pub fn window(&self, index: usize, start_ms: i64) -> WindowRef<'_> {
        WindowRef { columns: self, index, start_ms }
    }
}

/// One window, read in place.
#[derive(Clone, Copy)]
pub(super) struct WindowRef<'a> {
    columns: &'a ArchivedColumns,
    index: usize,
    start_ms: i64,
}

/// The values of a window that has some.
pub(super) struct WindowValues {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub last: Last,
    /// Rank among the windows of several values.
    several: Option<usize>,
}

impl<'a> WindowRef<'a> {
    #[inline]
    pub fn count(&self) -> u64 {
        self.columns.counts.get(self.index)
    }

    #[inline]
    pub fn users(&self) -> Identities<'a> {
        self.columns.users.get(self.index)
    }

    #[inline]
    pub fn sessions(&self) -> Identities<'a> {
        self.columns.sessions.get(self.index)
    }

    #[inline]
    pub fn values(&self) -> Option<WindowValues> {
        let c = self.columns;
        let at = c.valued.rank(self.index)?;
        let sum = c.sums[at].to_native();
        let several = c.several.rank(at);
        let last = |value| Last { time_ms: self.start_ms + c.last_offsets.get(at) as i64, id: c.last_ids[at].to_native(), value };
        Some(match several {
            None => WindowValues { count: 1, sum, min: sum, max: sum, last: last(sum), several },
            Some(s) => WindowValues {
                count: c.value_counts.get(s),
                sum,
                min: c.mins[s].to_native(),
                max: c.maxs[s].to_native(),
                last: last(c.lasts[s].to_native()),
                several,
            },
        })
    }

    /// Calls `each` with every bin of its values and its count.
    #[inline]
    pub fn bins(&self, values: &WindowValues, mut each: impl FnMut(i32, u64)) {
        let c = self.columns;
        match values.several {
            None => each(bin_of(values.sum), 1),
            Some(s) => {
                let base = i64::from(c.bin_base.to_native());
                c.bin_ends.range(s).for_each(|b| each((base + c.bins.get(b) as i64) as i32, c.bin_counts.get(b)));
            }
        }
    }
}
