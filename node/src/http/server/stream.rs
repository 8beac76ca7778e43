//! The bytes of one connection: the HTTP engine's own refusals get a body as every other problem has, and a client that does not read its answers
//! is given up.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::limits::{CONNECTION_BUFFER_BYTES_MAX, WRITE_STALL_MAX};
use crate::unique::UniqueNumbers;

/// When something last came over a connection. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Heard(Arc<Mutex<Instant>>);

impl Default for Heard {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heard {
    fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Ends when nothing has come for so long.
    pub async fn quiet_for(&self, time: Duration) {
        loop {
            let until = *self.0.lock() + time;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// A connection as the HTTP engine sees it.
pub struct ClientStream {
    inner: TcpStream,
    heard: Heard,
    numbers: Arc<UniqueNumbers>,
    /// A problem that is written in place of an empty refusal.
    instead: Bytes,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub fn new(inner: TcpStream, numbers: Arc<UniqueNumbers>, heard: Heard) -> Self {
        Self { inner, heard, numbers, instead: Bytes::new(), stalled: None }
    }

    /// Notes whether a write got on; one that did not for too long fails.
    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_STALL_MAX)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answers")))
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = Pin::new(&mut self.inner).poll_write(cx, &self.instead);
            let written = ready!(self.timed(cx, written))?;
            self.instead.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Puts a problem in the place of an empty refusal; whether it did.
    fn replace(&mut self, head: &[u8]) -> bool {
        let Some(problem) = refusal(head) else { return false };
        self.instead = answer(problem, &self.numbers);
        true
    }
}

/// What the HTTP engine refuses a request with before anybody sees it: a head alone, that ends the connection.
fn refusal(head: &[u8]) -> Option<Problem> {
    let status = head.strip_prefix(b"HTTP/1.1 ")?.get(..4)?.strip_suffix(b" ")?;
    let is_whole = head.ends_with(b"\r\n\r\n") && memchr::memmem::find(head, b"\r\ncontent-length: 0\r\n").is_some();
    // Every answer of ours has one.
    if !is_whole || memchr::memmem::find(head, b"\r\nx-request-id: ").is_some() {
        return None;
    }
    Some(match status {
        b"400" => Problem::new(ErrorCode::BadRequest, "this is not HTTP/1.1: the head of the request does not parse"),
        b"408" => Problem::new(ErrorCode::RequestTimeout, "the head of the request did not arrive in time"),
        b"414" => Problem::new(ErrorCode::UriTooLong, "the address is too long; POST /v1/query takes long questions")
            .limit(u64::from(u16::MAX - 1)),
        b"431" => Problem::new(ErrorCode::HeadTooLarge, "the head of the request has too many or too long headers")
            .limit(CONNECTION_BUFFER_BYTES_MAX as u64),
        _ => return None,
    })
}

/// A whole HTTP/1.1 answer that ends its connection.
pub fn answer(mut problem: Problem, numbers: &UniqueNumbers) -> Bytes {
    let id = format!("{:032x}", numbers.next());
    tracing::debug!(request_id = id, status = problem.status, code = ?problem.code, "refused before it was a request");
    problem.request_id = Some(id.clone());
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let status = axum::http::StatusCode::from_u16(problem.status).unwrap_or(axum::http::StatusCode::BAD_REQUEST);
    let retry = problem.retry_after_ms.map(|ms| format!("retry-after: {}\r\n", ms.div_ceil(1_000).max(1))).unwrap_or_default();
    let reason = status.canonical_reason().unwrap_or_default();
    Bytes::from(format!(
        "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-type: application/problem+json\r\n{retry}x-request-id: {id}\r\ncontent-length: {}\r\n\r\n{body}",
        problem.status,
        body.len(),
    ))
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.note();
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if self.replace(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.timed(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if let [head] = bufs
            && self.replace(head)
        {
            return Poll::Ready(Ok(head.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_refusals_are_replaced() {
        let code = |head: &str| refusal(head.as_bytes()).map(|p| p.code);
        let empty = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(code(empty), Some(ErrorCode::HeadTooLarge));
        assert_eq!(code(&empty.replace("431", "400")), Some(ErrorCode::BadRequest));
        for other in [
            empty.replace("date: x", "x-request-id: x"),
            empty.replace("431", "200"),
            empty.replace("length: 0", "length: 9"),
            format!("{empty}body"),
            "HTTP/1.1 431".to_owned(),
            "time,count\n".to_owned(),
        ] {
            assert_eq!(code(&other), None, "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        use tokio::io::AsyncWriteExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut stream =
            ClientStream::new(accepted.expect("accepted").0, Arc::new(UniqueNumbers::new().expect("randomness")), Heard::default());
        let began = Instant::now();
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 1 << 16]).await {
                break error;
            }
        };
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, WRITE_STALL_MAX.as_secs()));
    }

    #[test]
    fn the_answer_is_a_whole_problem() {
        let numbers = UniqueNumbers::new().expect("randomness");
        let text = answer(Problem::new(ErrorCode::RateLimited, "too many").retry_after_ms(1_500), &numbers);
        let text = std::str::from_utf8(&text).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 429 Too Many Requests\r\n") && head.contains("\r\nretry-after: 2\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let problem: Problem = serde_json::from_str(body).expect("a problem");
        assert!(head.contains(&problem.request_id.expect("an id")));
    }
}
