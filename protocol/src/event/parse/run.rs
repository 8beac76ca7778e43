//! How far a string goes on without a quote, a backslash or a control character.

/// Length of the plain run that `bytes` begins with; all of them if nothing stops it.
#[inline]
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((block, behind)) = rest.split_first_chunk::<BLOCK>() {
        let stops = block_stops(block);
        if stops != 0 {
            return bytes.len() - rest.len() + first_stop(stops);
        }
        rest = behind;
    }
    bytes.len() - rest.len() + tail_run(rest)
}

fn tail_run(bytes: &[u8]) -> usize {
    bytes.iter().position(|&b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len())
}

#[cfg(target_arch = "x86_64")]
use sse2::{BLOCK, block_stops, first_stop};
#[cfg(not(target_arch = "x86_64"))]
use swar::{BLOCK, block_stops, first_stop};

/// Part of every x86-64.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8};

    pub const BLOCK: usize = 16;

    /// A bit for each byte that ends a run.
    #[inline]
    #[expect(unsafe_code, reason = "there is no safe way to call SSE2 from code for x86-64 at large")]
    pub fn block_stops(block: &[u8; BLOCK]) -> u32 {
        let word = u128::from_le_bytes(*block);
        // SAFETY: these intrinsics take and give values, no pointers, and need SSE2 alone, which every x86-64 has.
        unsafe {
            let bytes = _mm_set_epi64x((word >> 64) as i64, word as i64);
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control)) as u32
        }
    }

    #[inline]
    pub fn first_stop(stops: u32) -> usize {
        stops.trailing_zeros() as usize
    }
}

/// Eight bytes in a word, for every other machine.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod swar {
    pub const BLOCK: usize = 8;

    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;

    /// The top bit of the first byte that ends a run; bits above it may be wrong, as a borrow only goes upwards.
    #[inline]
    pub fn block_stops(block: &[u8; BLOCK]) -> u64 {
        let word = u64::from_le_bytes(*block);
        let zero_of = |x: u64| x.wrapping_sub(ONES) & !x;
        let quote = zero_of(word ^ (ONES * b'"' as u64));
        let backslash = zero_of(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        (quote | backslash | control) & TOPS
    }

    #[inline]
    pub fn first_stop(stops: u64) -> usize {
        (stops.trailing_zeros() / 8) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_stops_a_run_or_does_not() {
        for byte in 0..=255u8 {
            let stops = matches!(byte, b'"' | b'\\' | 0..0x20);
            for place in 0..40 {
                let mut bytes = [b'~'; 40];
                bytes[place] = byte;
                assert_eq!(plain_run(&bytes), if stops { place } else { 40 }, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn the_portable_search_agrees_on_pairs_of_bytes() {
        for pair in 0..=u16::MAX {
            let [a, b] = pair.to_le_bytes();
            for place in [0, 3, 6] {
                let mut bytes = [b'a'; swar::BLOCK];
                (bytes[place], bytes[place + 1]) = (a, b);
                let stops = swar::block_stops(&bytes);
                let found = if stops == 0 { bytes.len() } else { swar::first_stop(stops) };
                assert_eq!(found, tail_run(&bytes), "{a:#x} {b:#x}");
            }
        }
    }
}
