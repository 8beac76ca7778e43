//! What a node shows and asks for at every connection of the peer port, whichever side it is on: the cookie, and TLS around it where that is set up.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::limits::{HANDSHAKE_BYTES_MAX, LINGER_BYTES_MAX, LINGER_TIME_MAX};
use super::super::transport::Stream;
use super::handshake::{self, Agreed, HandshakeError, Hello, Purpose, Secret, within_time};
use super::tls::{Tls, explained};

pub struct Credentials {
    cookie: String,
    tls: Option<Arc<Tls>>,
    /// Where connections leave from.
    source: Option<IpAddr>,
}

type Made = (Box<dyn Stream>, Agreed);

impl Credentials {
    pub fn new(cookie: String, tls: Option<Arc<Tls>>) -> Self {
        Self { cookie, tls, source: None }
    }

    /// From this address of the host, where it is a certain one.
    pub fn leaving_from(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Makes this node known on a connection that it opened.
    ///
    /// # Errors
    /// Why it cannot be used; the peer has been told.
    pub async fn greet(&self, mut stream: TcpStream, me: &Hello, purpose: Purpose) -> Result<Made, HandshakeError> {
        let made = async {
            let Some(tls) = &self.tls else {
                let agreed = handshake::dial(&mut stream, Secret::of(&self.cookie), me, purpose).await;
                return or_linger(stream, agreed).await;
            };
            let mut channel = tls.connect(stream).await?;
            let secret = Secret { cookie: &self.cookie, binding: &channel.binding };
            let agreed = handshake::dial(&mut channel.stream, secret, me, purpose).await;
            or_linger(channel.stream, agreed).await
        };
        within_time(made).await
    }

    /// Lets somebody make himself known who opened a connection to this node.
    ///
    /// # Errors
    /// As [`Self::greet`].
    pub async fn accept(&self, mut stream: TcpStream, me: &Hello) -> Result<Made, HandshakeError> {
        let made = async {
            let Some(tls) = &self.tls else {
                let agreed = handshake::accept(&mut stream, Secret::of(&self.cookie), me).await;
                return or_linger(stream, agreed).await;
            };
            let mut channel = tls.accept(stream).await?;
            let secret = Secret { cookie: &self.cookie, binding: &channel.binding };
            let agreed = handshake::accept(&mut channel.stream, secret, me).await;
            or_linger(channel.stream, agreed).await
        };
        within_time(made).await
    }
}

async fn or_linger(stream: impl Stream, agreed: Result<Agreed, HandshakeError>) -> Result<Made, HandshakeError> {
    match agreed {
        Ok(agreed) => Ok((Box::new(stream), agreed)),
        Err(HandshakeError::Io(error)) => Err(explained(error)),
        Err(error) => {
            linger(stream).await;
            Err(error)
        }
    }
}

/// Lets the other side read why before the connection goes: closing one with bytes unread takes back what was sent last.
pub async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drained = async {
        stream.shutdown().await?;
        let (mut sink, mut bytes) = ([0; HANDSHAKE_BYTES_MAX], 0);
        while bytes < LINGER_BYTES_MAX {
            match stream.read(&mut sink).await? {
                0 => break,
                read => bytes += read,
            }
        }
        std::io::Result::Ok(())
    };
    // Whatever becomes of it, the connection is over.
    let _ = tokio::time::timeout(LINGER_TIME_MAX, drained).await;
}
