//! Request bodies that arrive in time or not at all.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tallymesh_protocol::error::{ErrorCode, Problem};
use tokio::time::Sleep;

use crate::limits::SMALL_BODY_BYTES_MAX;

/// The body did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request body took longer than {} ms", .limit.as_millis())]
pub struct TooSlow {
    limit: Duration,
}

/// A body whose whole has to arrive within a time. The timer is only made when the body is waited for.
pub struct DeadlineBody {
    inner: Body,
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl DeadlineBody {
    pub fn new(inner: Body, limit: Duration) -> Self {
        Self { inner, limit, deadline: None }
    }
}

impl HttpBody for DeadlineBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|f| f.map_err(Into::into)));
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        deadline.as_mut().poll(cx).map(|()| Some(Err(TooSlow { limit }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What a failure to read a body means for the client.
pub fn body_problem(error: axum::Error) -> Problem {
    let error = error.into_inner();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(e) = cause {
        if let Some(slow) = e.downcast_ref::<TooSlow>() {
            return Problem::new(ErrorCode::RequestTimeout, slow.to_string()).limit(slow.limit.as_millis() as u64);
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

/// Reads on and throws away, up to `bytes_max` and until the body's deadline.
pub async fn discard(body: &mut Body, bytes_max: usize) {
    let mut left = bytes_max;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
