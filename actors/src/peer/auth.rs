//! Who may talk at the peer port: TLS, then a handshake inside it that proves the cookie and names the node, before a connection is used for
//! anything.

pub(super) mod credentials;
pub(super) mod handshake;
pub(super) mod identity;
pub(super) mod tls;
