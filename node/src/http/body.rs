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

use crate::limits::{BODY_RATE_WINDOW, SMALL_BODY_BYTES_MAX};

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
}

struct Waiting {
    deadline: Pin<Box<Sleep>>,
    window: Pin<Box<Sleep>>,
}

impl DeadlineBody {
    pub fn new(inner: Body, pace: Pace) -> Self {
        Self { inner, pace, waiting: None, window_bytes: 0 }
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
            self.window_bytes = 0;
            waiting.window.as_mut().reset(Instant::now() + BODY_RATE_WINDOW);
        }
        Poll::Pending
    }

    fn arrived(&mut self, bytes: u64) {
        self.window_bytes += bytes;
        // The window went by while nobody read: that says nothing about the sender.
        if let Some(waiting) = self.waiting.as_mut().filter(|w| w.window.deadline() <= Instant::now()) {
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

/// Reads on and throws away, up to `bytes_max` and as long as the body keeps its pace.
pub async fn discard(body: &mut Body, bytes_max: usize) {
    let mut left = bytes_max;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
