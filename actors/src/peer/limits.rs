//! Every bound of the transport. What is in flight, queued or taken in is bounded for each peer.

use std::time::Duration;

use tallymesh_protocol::limits::ENTRY_BYTES_MAX;

/// Body of one frame, in bytes. With its header it stays below [`FRAME_BYTES_MAX`]; smaller than that, so that what is urgent waits behind little.
pub const CHUNK_BYTES_MAX: usize = 128 << 10;
/// One message of a session, in bytes.
pub const FRAME_BYTES_MAX: usize = 256 << 10;
/// What a frame costs of the window beside its body, in bytes.
pub const FRAME_COST_BYTES: usize = 256;
/// One request or answer, in bytes: a log entry and what describes it. Larger ones are refused; bulk has its own stream.
pub const MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_MAX + (1 << 20);
/// One request or answer of the urgent lane, in bytes. Larger ones travel in the other lane.
pub const URGENT_BYTES_MAX: usize = 16 << 10;
/// Sent to a peer and not yet taken in by it, in the normal lane, in bytes.
pub const WINDOW_BYTES: usize = 1 << 20;
/// The same for votes and heartbeats; what is in the normal lane never takes it.
pub const URGENT_WINDOW_BYTES: usize = 128 << 10;
/// Waiting to be sent to one peer, for each lane, in bytes. More is refused.
pub const QUEUED_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// Messages of one peer that have begun to arrive, in bytes, as their senders announced them. More is refused.
pub const ARRIVING_BYTES_MAX: usize = 3 * MESSAGE_BYTES_MAX;
/// Requests to one peer without an answer.
pub const CALLS_MAX: usize = 4_096;
/// Requests of one peer that are worked on.
pub const REQUESTS_MAX: usize = 1_024;
/// Detail of a refusal, in bytes; longer ones are cut.
pub const DETAIL_BYTES_MAX: usize = 1_024;

/// Connections at the peer port that have not said who they are.
pub const HANDSHAKES_MAX: usize = 64;
/// The same of one address. Nodes on one host share it.
pub const HANDSHAKES_OF_ONE_MAX: usize = 16;
/// A connection must have said who it is, and be ready for use, within this time.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(3);
/// One message of a handshake, in bytes.
pub const HANDSHAKE_BYTES_MAX: usize = 4 << 10;
/// A refused connection is kept open this long, and this many of its bytes are read, so that the other side learns why.
pub const LINGER_TIME_MAX: Duration = Duration::from_millis(500);
pub const LINGER_BYTES_MAX: usize = 64 << 10;
/// That a certificate ends is said this long before, and again after that time.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3_600);
pub const SAY_EXPIRY_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// How often certificate files are looked at when no connection is made.
pub const LOOK_AT_FILES_EVERY: Duration = Duration::from_secs(3_600);
/// That something came which is no frame is said again after this time.
pub const SAY_NO_FRAME_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// An address must take a connection within this time.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// First wait before a peer is dialled again; it doubles up to [`REDIAL_WAIT_MAX`].
pub const REDIAL_WAIT_MIN: Duration = Duration::from_millis(100);
pub const REDIAL_WAIT_MAX: Duration = Duration::from_secs(2);
/// Of two that know each other the one with the lower id dials; the other waits this long before it tries as well.
pub const DIAL_GRACE: Duration = Duration::from_millis(700);
/// How often the dialer looks what is due.
pub const DIAL_TICK: Duration = Duration::from_millis(50);

/// Bulk streams that are served at the same time, over all peers.
pub const BULK_STREAMS_MAX: usize = 4;
/// One block of a bulk stream, in bytes; each has its checksum.
pub const BULK_BLOCK_BYTES: usize = 256 << 10;
/// Name of a bulk file, in bytes.
pub const BULK_NAME_BYTES_MAX: usize = 256;
/// A bulk stream that does not move for this long is given up.
pub const BULK_STALL_MAX: Duration = Duration::from_secs(10);

const _: () = {
    assert!(CHUNK_BYTES_MAX + FRAME_COST_BYTES <= FRAME_BYTES_MAX);
    // Credit comes back in quarters of a window: a frame must fit into what is left then.
    assert!(CHUNK_BYTES_MAX + FRAME_COST_BYTES <= WINDOW_BYTES / 2);
    assert!(URGENT_BYTES_MAX + FRAME_COST_BYTES <= URGENT_WINDOW_BYTES / 2);
    assert!(URGENT_BYTES_MAX <= CHUNK_BYTES_MAX);
    assert!(QUEUED_BYTES_MAX >= MESSAGE_BYTES_MAX && ARRIVING_BYTES_MAX >= MESSAGE_BYTES_MAX);
    assert!(BULK_BLOCK_BYTES <= FRAME_BYTES_MAX);
    assert!(HANDSHAKES_OF_ONE_MAX <= HANDSHAKES_MAX / 2);
};
