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

/// Room taken for a body before any of it is there, and the least that it grows by, in bytes: what a client can hold that only claims to send.
pub const BODY_ROOM_FIRST_BYTES: usize = 16 << 10;
/// Room taken ahead of what has arrived, at most, in bytes.
pub const BODY_ROOM_AHEAD_BYTES_MAX: usize = 256 << 10;
/// Over which a body's rate is measured.
pub const BODY_RATE_WINDOW: Duration = Duration::from_secs(5);
/// The same while requests wait for room.
pub const BODY_RATE_WINDOW_BUSY: Duration = Duration::from_secs(1);
/// Pieces of a body below this are put together, in bytes: a body of single bytes must not cost a header for each.
pub const PIECE_BYTES_MIN: usize = 4 << 10;
/// Compressed bodies up to this are unpacked where they arrive; larger ones on the blocking pool, in bytes: what they unpack to is not known before.
pub const INLINE_COMPRESSED_BYTES_MAX: usize = 1 << 10;
/// A body up to this, as sent, is kept until its request is answered: should metrics be defined anew meanwhile, its batches are made again of it. In bytes. A larger
/// one is read as it comes and let go of piece by piece, as it would else take its connection's buffer with it; its sender is told to send it again.
pub const BODY_KEPT_BYTES_MAX: usize = 64 << 10;
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
/// Longest that a client may leave an answer unread before it is given up.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// Pause after the system had no room for another connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Files left for the data directory when connections take the rest: segments, blocks, snapshots being read.
pub const FILES_RESERVED: u64 = 1_024;
/// Client addresses that are told apart at once; more share one set of limits.
pub const CLIENTS_TRACKED_MAX: usize = 65_536;
/// Proxies of one request that are looked at.
pub const FORWARDED_HOPS_MAX: usize = 32;
/// What a client may use at once of its rate, in seconds of it.
pub const RATE_BURST_S: f64 = 2.0;

/// Queries that one live stream or socket watches.
pub const LIVE_QUERIES_MAX: usize = 32;
/// One message of a client over a WebSocket, in bytes, and what it may call a query.
pub const LIVE_SOCKET_MESSAGE_BYTES_MAX: usize = 64 << 10;
pub const LIVE_ID_BYTES_MAX: usize = 128;
/// Rows of one live answer: each is held, compared at every evaluation, and sent again whenever it changes.
pub const LIVE_ROWS_MAX: usize = 20_000;
/// Live answers up to this many rows are compared where they arrive; larger ones beside the threads that serve requests.
pub const LIVE_INLINE_ROWS_MAX: usize = 500;
/// Rows that left a live answer and are remembered for who was away meanwhile.
pub const LIVE_REMOVED_MAX: usize = 4_096;
/// Deltas of one live answer that are kept encoded for other watchers: most have the version before, some are slow.
pub const LIVE_DELTAS_SHARED_MAX: usize = 4;
/// Live queries that are evaluated at once, of all that may run: `/v1/query` is to keep places.
pub const LIVE_EVALUATIONS_MAX: usize = 4;
/// How long a query that nobody watches any more is kept up to date, for clients that come again.
pub const LIVE_TOPIC_GRACE: Duration = Duration::from_secs(30);
/// Between two evaluations of one query, for each who watches it: a thousand who watch cost less than twice what one does.
pub const LIVE_SPACING_PER_WATCHER: Duration = Duration::from_micros(700);
/// The longest time between two evaluations of one query for that reason: news are to be seen within a second.
pub const LIVE_SPACING_MAX: Duration = Duration::from_millis(700);
/// Pause after an evaluation that failed for a reason that may go by itself.
pub const LIVE_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long browsers wait before they come again, in milliseconds, and up to how much more: not all at once.
pub const LIVE_RECONNECT_MS: u64 = 1_000;
pub const LIVE_RECONNECT_SPREAD_MS: u64 = 2_000;
/// Bodies up to this are copied behind the head of their event; larger ones are shared by all who are sent them, in bytes.
pub const LIVE_COPIED_BYTES_MAX: usize = 8 << 10;

/// A PromQL expression, in bytes, and in words and signs outside of its strings: its tree is no deeper.
pub const PROMQL_BYTES_MAX: usize = 8 << 10;
pub const PROMQL_TOKENS_MAX: usize = 1_000;
/// Regular expressions of one: each is compiled.
pub const PROMQL_REGEXES_MAX: usize = 8;
/// Selectors of one: each is a query to every shard.
pub const PROMQL_SELECTORS_MAX: usize = 16;
/// Points of a series, as Prometheus has it.
pub const PROMQL_POINTS_MAX: usize = 11_000;
/// Series of one selector.
pub const PROMQL_SERIES_MAX: usize = 10_000;
/// Values (series x points) of all selectors of one expression.
pub const PROMQL_SAMPLES_MAX: usize = 1_000_000;
/// Cells that overlapping ranges of one selector may be merged from, where they cannot be subtracted (all aggregates but counts).
pub const PROMQL_MERGES_MAX: usize = 5_000_000;
/// The longest range, offset or step, in milliseconds: ten years.
pub const PROMQL_RANGE_MS_MAX: i64 = 3_653 * 24 * 60 * 60 * 1_000;
/// What a selector without a range looks back at in a query of one moment, in milliseconds; as Prometheus has it.
pub const PROMQL_LOOKBACK_MS: i64 = 5 * 60 * 1_000;
/// What a look-up of series or label values looks at when it names no time, in milliseconds.
pub const PROMQL_LOOKUP_MS: i64 = 24 * 60 * 60 * 1_000;
/// Selectors of one look-up, and metrics that they may match together.
pub const PROMQL_LOOKUPS_MAX: usize = 16;
pub const PROMQL_LOOKUP_METRICS_MAX: usize = 64;
/// Metrics of one look-up that are asked about at once; each takes a place among the queries that run.
pub const PROMQL_LOOKUPS_AT_ONCE: usize = 4;

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
    assert!(BODY_KEPT_BYTES_MAX < CONNECTION_BUFFER_BYTES_MAX);
    assert!(BODY_ROOM_FIRST_BYTES <= BODY_ROOM_AHEAD_BYTES_MAX);
    assert!(PROMQL_SERIES_MAX <= PROMQL_SAMPLES_MAX);
    assert!(PROMQL_POINTS_MAX * 2 <= tallymesh_protocol::limits::POINTS_PER_GROUP_MAX);
    assert!(DEAD_LETTERS_PAGE_DEFAULT <= DEAD_LETTERS_PAGE_MAX);
};
