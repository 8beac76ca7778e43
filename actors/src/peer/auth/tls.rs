//! Mutual TLS around every connection of the peer port.
//!
//! What is verified, and why that: ops/adr/2026-11-28-tls-between-nodes.md. In short: TLS 1.3 only; both sides show a certificate that the fleet's CA vouches for,
//! valid now and for its side of a connection; the name in it is not compared with anything, since a node's name and addresses may change. Who a node is says the
//! [`handshake`](super::handshake) inside, whose proofs of the cookie are bound to this very channel ([`Channel::binding`]): holding a certificate of the fleet is
//! not enough to pass one node's handshake on to another. Sessions are never resumed, so that every connection is verified anew.
//!
//! Files that change are read again when the next connection is made ([`files`]).

mod files;
mod reason;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_storage::clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::limits::{EXPIRY_WARNING, SAY_EXPIRY_AGAIN_AFTER};
use super::super::transport::Stream;
use super::credentials::linger;
use super::handshake::HandshakeError;
use files::{Loaded, Stamps};
pub use files::{TlsError, TlsFiles};
pub(super) use reason::explained;

/// What other protocols under the same CA do not say.
const PROTOCOL: &[u8] = b"tallymesh-peer/1";
/// Asked for because the library wants a name; it is neither sent nor compared.
const NAME: &str = "tallymesh-peer";
const BINDING_LABEL: &[u8] = b"EXPORTER-tallymesh-peer";

/// A connection inside TLS.
pub struct Channel {
    pub stream: Box<dyn Stream>,
    /// Known to the two ends of this TLS connection and to nobody between them.
    pub binding: [u8; 32],
}

/// This node's certificate, and whom it trusts.
pub struct Tls {
    files: TlsFiles,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    loaded: Loaded,
    /// Files as they were when they could not be used; said once.
    refused: Option<Stamps>,
    /// When it was last said that the certificate ends soon, on the monotonic clock.
    said_expiry: Option<Duration>,
}

/// The two ways to begin.
#[derive(Clone)]
pub struct Sides {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// # Errors
    /// What is wrong with the files: unreadable, a key of another certificate, a certificate that peers with this CA would refuse.
    pub fn load(files: TlsFiles, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let loaded = files.load(&clock)?;
        let tls = Self { files, clock, state: Mutex::new(State { loaded, refused: None, said_expiry: None }) };
        tls.look();
        Ok(tls)
    }

    /// The files as they are now; those before as long as the new ones cannot be used. Also says that a certificate ends soon. Reads files: not for the
    /// transport's own task.
    pub fn look(&self) -> Sides {
        let mut state = self.state.lock();
        let stamps = self.files.stamps();
        if stamps != state.loaded.stamps && state.refused.as_ref() != Some(&stamps) {
            match self.files.load(&self.clock) {
                Ok(loaded) => {
                    tracing::info!(certificate = %self.files.cert.display(), "the certificate files changed: new connections use them");
                    *state = State { loaded, refused: None, said_expiry: None };
                }
                Err(error) => {
                    tracing::error!(%error, "the certificate files changed and cannot be used: the ones before stay in use");
                    state.refused = Some(stamps);
                }
            }
        }
        let now = self.clock.monotonic();
        let is_due = state.said_expiry.is_none_or(|said| now >= said + SAY_EXPIRY_AGAIN_AFTER);
        if is_due && let Some(ends) = state.loaded.ends_within(EXPIRY_WARNING, &self.clock) {
            state.said_expiry = Some(now);
            let hours = ends.as_secs() / 3_600;
            tracing::warn!(hours, certificate = %self.files.cert.display(), "the certificate, or what it is signed by, ends soon: renew it; a restart is not needed");
        }
        state.loaded.sides.clone()
    }

    async fn sides(self: &Arc<Self>) -> io::Result<Sides> {
        let tls = self.clone();
        tokio::task::spawn_blocking(move || tls.look()).await.map_err(io::Error::other)
    }

    /// The side that was dialled.
    ///
    /// # Errors
    /// Why there is no channel; the other side has been told.
    pub async fn accept<S>(self: &Arc<Self>, stream: S) -> Result<Channel, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self.sides().await?.acceptor.accept(stream).into_fallible().await {
            Ok(stream) => {
                let binding = stream.get_ref().1.export_keying_material([0; 32], BINDING_LABEL, None).map_err(io::Error::other)?;
                Ok(Channel { stream: Box::new(stream), binding })
            }
            Err((error, stream)) => {
                linger(stream).await;
                Err(explained(error))
            }
        }
    }

    /// The side that dials. It is done before the other side has judged this one's certificate: that verdict comes with the first read, see [`explained`].
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub async fn connect<S>(self: &Arc<Self>, stream: S) -> Result<Channel, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        match self.sides().await?.connector.connect(name, stream).into_fallible().await {
            Ok(stream) => {
                let binding = stream.get_ref().1.export_keying_material([0; 32], BINDING_LABEL, None).map_err(io::Error::other)?;
                Ok(Channel { stream: Box::new(stream), binding })
            }
            Err((error, stream)) => {
                linger(stream).await;
                Err(explained(error))
            }
        }
    }
}
