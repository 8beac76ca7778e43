//! Request bodies that arrive in time or not at all.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tallymesh_protocol::error::{ErrorCode, Problem};
use tokio::time::{Instant, Sleep};

use crate::limits::{BODY_RATE_WINDOW, BODY_RATE_WINDOW_BUSY, SMALL_BODY_BYTES_MAX};

/// The body did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooSlow {
    #[error("the request body took longer than {} ms", .limit.as_millis())]
    Whole { limit: Duration },
    #[error("the request body came slower than {bytes_per_s} bytes a second")]
    Rate { bytes_per_s: u64 },
}

impl TooSlow {
    fn limit(self) -> u64 {
        match self {
            Self::Whole { limit } => limit.as_millis() as u64,
            Self::Rate { bytes_per_s } => bytes_per_s,
        }
    }
}

/// How fast a body has to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// For the whole of it.
    pub limit: Duration,
    /// In every [`BODY_RATE_WINDOW`]; 0 is no limit.
    pub bytes_per_s_min: u64,
}

/// A body that has to arrive at a pace, and whole within a time. The timers are only made when the body is waited for.
pub struct DeadlineBody {
    inner: Body,
    pace: Pace,
    waiting: Option<Waiting>,
    /// Bytes since the window began.
    window_bytes: u64,
    /// The reader was waiting when it was last here.
    was_pending: bool,
    /// The window ended while the reader was waiting; what came in it is yet to be judged.
    overdue: bool,
}

struct Waiting {
    deadline: Pin<Box<Sleep>>,
    window: Pin<Box<Sleep>>,
}

impl DeadlineBody {
    pub fn new(inner: Body, pace: Pace) -> Self {
        Self { inner, pace, waiting: None, window_bytes: 0, was_pending: false, overdue: false }
    }

    /// Called while there is nothing to read.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let Pace { limit, bytes_per_s_min } = self.pace;
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            deadline: Box::pin(tokio::time::sleep(limit)),
            window: Box::pin(tokio::time::sleep(BODY_RATE_WINDOW)),
        });
        if waiting.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(TooSlow::Whole { limit });
        }
        while waiting.window.as_mut().poll(cx).is_ready() {
            if self.window_bytes < bytes_per_s_min.saturating_mul(BODY_RATE_WINDOW.as_secs()) {
                return Poll::Ready(TooSlow::Rate { bytes_per_s: bytes_per_s_min });
            }
            (self.window_bytes, self.overdue) = (0, false);
            waiting.window.as_mut().reset(Instant::now() + BODY_RATE_WINDOW);
        }
        self.was_pending = true;
        Poll::Pending
    }

    fn arrived(&mut self, bytes: u64) {
        self.window_bytes += bytes;
        let was_pending = std::mem::take(&mut self.was_pending);
        let Some(waiting) = self.waiting.as_mut().filter(|w| w.window.deadline() <= Instant::now()) else { return };
        self.overdue |= was_pending;
        // A window that went by while nobody read says nothing about the sender.
        if !self.overdue {
            self.window_bytes = 0;
            waiting.window.as_mut().reset(Instant::now() + BODY_RATE_WINDOW);
        }
    }
}

impl HttpBody for DeadlineBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            let bytes = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref).map_or(0, Bytes::len);
            self.arrived(bytes as u64);
            return Poll::Ready(frame.map(|f| f.map_err(Into::into)));
        }
        self.poll_patience(cx).map(|slow| Some(Err(slow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl From<TooSlow> for Problem {
    fn from(slow: TooSlow) -> Self {
        Self::new(ErrorCode::RequestTimeout, slow.to_string()).limit(slow.limit())
    }
}

/// What a failure to read a body means for the client.
pub fn body_problem(error: axum::Error) -> Problem {
    let error = error.into_inner();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(e) = cause {
        if let Some(slow) = e.downcast_ref::<TooSlow>() {
            return (*slow).into();
        }
        cause = e.source();
    }
    Problem::new(ErrorCode::BadRequest, format!("the body did not arrive whole: {error}"))
}

/// The JSON object of a request.
///
/// # Errors
/// As [`small_body`]; no body, or not such an object.
pub async fn json_body<T: serde::de::DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let bytes = small_body(body).await?;
    if bytes.trim_ascii().is_empty() {
        return Err(Problem::new(ErrorCode::EmptyBody, "send a JSON object"));
    }
    serde_json::from_slice(&bytes).map_err(|e| Problem::new(ErrorCode::BadJson, e.to_string()))
}

/// The whole of a body that is expected to be small.
///
/// # Errors
/// [`ErrorCode::BodyTooLarge`], [`ErrorCode::RequestTimeout`], or a body that breaks off.
pub async fn small_body(body: Body) -> Result<Bytes, Problem> {
    match Limited::new(body, SMALL_BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => {
            Err(Problem::new(ErrorCode::BodyTooLarge, format!("the body is over {SMALL_BODY_BYTES_MAX} bytes"))
                .limit(SMALL_BODY_BYTES_MAX as u64))
        }
        Err(e) => Err(body_problem(axum::Error::new(e))),
    }
}

/// Reads on and throws away, up to `bytes_max` and as long as the body comes at `bytes_per_s_min` or faster.
pub async fn discard(body: &mut Body, bytes_max: usize, bytes_per_s_min: u64) {
    let began = Instant::now();
    let mut read = 0;
    while read <= bytes_max {
        let patience = BODY_RATE_WINDOW_BUSY + Duration::from_millis(1_000 * read as u64 / bytes_per_s_min.max(1));
        let Ok(Some(Ok(frame))) = tokio::time::timeout_at(began + patience, body.frame()).await else { return };
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    const PACE: Pace = Pace { limit: Duration::from_secs(60), bytes_per_s_min: 10 };

    /// Pieces, each that many milliseconds after the one before, and never an end.
    fn body(pieces: &'static [(u64, usize)]) -> Body {
        let pieces = futures::stream::iter(pieces).then(|(ms, bytes)| async move {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; *bytes]))
        });
        Body::new(DeadlineBody::new(Body::from_stream(pieces.chain(futures::stream::pending())), PACE))
    }

    /// When it failed, in seconds, and why.
    async fn fails(mut body: Body) -> (u64, u64) {
        let began = Instant::now();
        loop {
            match body.frame().await.expect("never ends") {
                Ok(_) => {}
                Err(error) => return (began.elapsed().as_secs(), body_problem(error).limit.expect("a limit")),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_given_up_in_the_first_window_that_is_too_slow() {
        assert_eq!(fails(body(&[(100, 49)])).await, (5, 10));
        assert_eq!(fails(body(&[(4_000, 50), (4_000, 50), (5_000, 49)])).await, (15, 10));
        // A byte that comes at the very end of the window is no way round it.
        assert_eq!(fails(body(&[(5_000, 1), (0, 1), (5_000, 1)])).await, (5, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_is_not_the_senders() {
        let (feed, pieces) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(8);
        let mut body = Body::new(DeadlineBody::new(Body::from_stream(ReceiverStream::new(pieces)), PACE));
        feed.send(Ok(Bytes::from_static(b"1"))).await.expect("room");
        assert!(body.frame().await.expect("there").is_ok());
        assert!(tokio::time::timeout(Duration::from_secs(1), body.frame()).await.is_err(), "waits");
        feed.send(Ok(Bytes::from_static(b"2"))).await.expect("room");
        assert!(body.frame().await.expect("there").is_ok());
        tokio::time::sleep(Duration::from_secs(30)).await;
        feed.send(Ok(Bytes::from_static(b"3"))).await.expect("room");
        assert!(body.frame().await.expect("there").is_ok());
        assert!(tokio::time::timeout(Duration::from_secs(4), body.frame()).await.is_err(), "a new window");
        assert!(body.frame().await.expect("there").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_is_read_out_only_as_long_as_it_comes_fast() {
        let seconds = async |mut body: Body, bytes_max: usize| {
            let began = Instant::now();
            discard(&mut body, bytes_max, 100).await;
            began.elapsed().as_secs()
        };
        assert_eq!(seconds(body(&[]), 1_000).await, 1);
        assert_eq!(seconds(body(&[(500, 100), (500, 100)]), 1_000).await, 3);
        assert_eq!(seconds(body(&[(0, 500), (0, 501)]), 1_000).await, 0);
    }
}
