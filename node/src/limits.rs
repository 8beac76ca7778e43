//! Limits of the process that are not settings, with the unit last in the name.

use std::time::Duration;

/// Rejections that an answer spells out; beyond it only their number is told.
pub const REJECTIONS_SHOWN_MAX: usize = 1_000;
/// Bytes of refused events that one request may put into the dead-letter store; beyond it they are kept cut.
pub const REQUEST_LETTER_BYTES_MAX: usize = 8 << 20;
/// What is left of a refused event beyond that, in bytes.
pub const LETTER_EXCERPT_BYTES: usize = 256;
/// Longest wait for the dead-letter store before an answer goes out without it.
pub const LETTER_WAIT: Duration = Duration::from_secs(5);
/// Letters sent again together.
pub const RETRY_PAGE: usize = 256;
/// Ids that one retry may name.
pub const RETRY_IDS_MAX: usize = 10_000;

/// Room taken ahead for a body of unknown length, in bytes.
pub const CHUNKED_ROOM_STEP_BYTES: usize = 256 << 10;
/// Pieces of a body below this are put together, in bytes: a body of single bytes must not cost a header for each.
pub const PIECE_BYTES_MIN: usize = 4 << 10;
/// Bodies up to this are parsed where they arrive; larger ones on the blocking pool, in bytes.
pub const INLINE_BODY_BYTES_MAX: usize = 256 << 10;
/// The same for compressed bodies: what they unpack to is not known before.
pub const INLINE_COMPRESSED_BYTES_MAX: usize = 1 << 10;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Bodies of requests other than ingest, in bytes.
pub const SMALL_BODY_BYTES_MAX: usize = 1 << 20;
/// Longest request id that is taken over from a client, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Read buffer of one HTTP/1 connection, in bytes: also the longest request head, and the largest piece of a body.
pub const CONNECTION_BUFFER_BYTES_MAX: usize = 256 << 10;
/// Streams of one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 128;
/// How often an HTTP/2 connection is asked whether it is alive, and how long it may take to say so.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system had no room for another connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Letters of one page, when the request does not say and at most.
pub const DEAD_LETTERS_PAGE_DEFAULT: usize = 100;
pub const DEAD_LETTERS_PAGE_MAX: usize = 1_000;

/// What `Retry-After` says to a refused request, in milliseconds.
pub const RETRY_AFTER_MS: u64 = 1_000;
/// The same while the disk is nearly full: nothing quick will change that.
pub const RETRY_AFTER_DISK_MS: u64 = 10_000;

const _: () = {
    assert!(LETTER_EXCERPT_BYTES < PIECE_BYTES_MIN);
    assert!(PIECE_BYTES_MIN < CONNECTION_BUFFER_BYTES_MAX);
    assert!(DEAD_LETTERS_PAGE_DEFAULT <= DEAD_LETTERS_PAGE_MAX);
};
