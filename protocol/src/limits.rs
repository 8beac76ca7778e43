//! Every limit that is not a setting, with its unit last in the name.
//!
//! Settings (what an operator may change) live in the node's configuration; what is here is part of the format or
//! protects the process whatever the configuration says.

/// Shortest and longest `event` name, in bytes.
pub const EVENT_NAME_BYTES_MAX: usize = 200;
/// Longest `event_id`, in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 200;
/// Longest value of a dimension (source, device type, country, or a property that a definition uses), in bytes.
pub const DIMENSION_BYTES_MAX: usize = 1_024;
/// Longest user or session id, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 1_024;
/// Deepest nesting of one event's JSON, in levels.
pub const JSON_DEPTH_MAX: usize = 64;
/// What is kept of an event that was refused because it is too large, in bytes.
pub const REJECTED_BYTES_KEPT: usize = 4 * 1_024;
/// Dimensions of one metric definition.
pub const DIMENSIONS_MAX: usize = 16;
/// Metric definitions of one cluster.
pub const DEFINITIONS_MAX: usize = 256;
/// Longest encoded metric key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 * 1_024;

/// Shards of a cluster.
pub const SHARDS_MAX: usize = 1_024;
/// Batches merged into one log entry.
pub const ENTRY_PARTS_MAX: usize = 1_024;
/// Bytes of one log entry; a shard part is split before it grows past this.
pub const ENTRY_BYTES_MAX: usize = 32 << 20;
/// A shard's part of a request is encoded once it has grown to this, and another one begun, in bytes; it overshoots by one event at most.
pub const PART_BYTES_MAX: usize = 8 << 20;

/// Distinct users or sessions kept exactly in one window before it is promoted to a HyperLogLog sketch, in entries.
pub const WINDOW_EXACT_ENTRIES_MAX: usize = 1_024;
/// Distinct users or sessions kept exactly in one merged answer cell, in entries.
pub const ANSWER_EXACT_ENTRIES_MAX: usize = 16_384;
/// log2 of the registers of a HyperLogLog sketch: 4 KiB as HLL4.
pub const HLL_LG_K: u8 = 13;

/// Rows of an answer when the query names no `limit`.
pub const ROWS_DEFAULT: usize = 1_000;
/// Rows of one answer at most.
pub const ROWS_MAX: usize = 100_000;
/// Steps of one answer for each group at most.
pub const POINTS_PER_GROUP_MAX: usize = 100_000;
/// Cells (group x step) that one answer may build at most, before ordering and limit.
pub const ANSWER_CELLS_MAX: usize = 2_000_000;
/// `group_by` dimensions of one query.
pub const GROUP_BY_MAX: usize = 8;
/// Filters of one query.
pub const FILTERS_MAX: usize = 32;
/// Aggregates of one query.
pub const AGGREGATES_MAX: usize = 16;
/// Values of one filter.
pub const FILTER_VALUES_MAX: usize = 1_000;
/// Steps that `step=auto` aims to stay within.
pub const AUTO_POINTS_MAX: usize = 300;
/// Longest `timeout_ms` of a query.
pub const QUERY_TIMEOUT_MS_MAX: u64 = 300_000;
/// Queries of one `POST /v1/query`.
pub const QUERIES_MAX: usize = 32;
/// Events that one shard's answer counts at most, and the largest count that an answer prints exactly: the sum over [`SHARDS_MAX`] fits 64 bits.
pub const ANSWER_EVENTS_MAX: u64 = 1 << 53;
/// Bytes of one query as it goes between nodes; its slices are most of it, a few for each step.
pub const WIRE_QUERY_BYTES_MAX: usize = 16 << 20;
/// Bytes of the answers of several shards as they go between nodes in one message.
pub const WIRE_ANSWERS_BYTES_MAX: usize = ENTRY_BYTES_MAX;
/// Bytes that a cell takes there when only events are counted.
pub const WIRE_CELL_BYTES: usize = 12;

const _: () = {
    assert!(WINDOW_EXACT_ENTRIES_MAX <= ANSWER_EXACT_ENTRIES_MAX);
    assert!(ROWS_DEFAULT <= ROWS_MAX);
    assert!(AUTO_POINTS_MAX <= POINTS_PER_GROUP_MAX);
    assert!(POINTS_PER_GROUP_MAX <= ANSWER_CELLS_MAX);
    assert!(ANSWER_EVENTS_MAX.checked_mul(SHARDS_MAX as u64).is_some());
    assert!(ANSWER_CELLS_MAX * WIRE_CELL_BYTES < WIRE_ANSWERS_BYTES_MAX);
    assert!(EVENT_NAME_BYTES_MAX + 3 * DIMENSION_BYTES_MAX < KEY_BYTES_MAX);
    assert!(EVENT_NAME_BYTES_MAX + DIMENSIONS_MAX * DIMENSION_BYTES_MAX < KEY_BYTES_MAX);
    assert!(
        PART_BYTES_MAX + (1 + DEFINITIONS_MAX) * (EVENT_NAME_BYTES_MAX + (DIMENSIONS_MAX + 1) * DIMENSION_BYTES_MAX) < ENTRY_BYTES_MAX / 2
    );
};
