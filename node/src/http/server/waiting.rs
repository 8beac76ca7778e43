//! What a node answers before it belongs to a cluster: that it waits, and for what.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Duration;

/// Connections that are answered at once; more wait.
const CONNECTIONS_MAX: usize = 64;
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const RETRY_AFTER_MS: u64 = 1_000;

/// A member that comes back is usually ready within this time: who connects meanwhile waits in the listener's queue and is answered by then.
pub const COME_BACK_TIME: Duration = Duration::from_secs(5);

/// Answers every request with 503 and what `why` says last, after `patience`. Ends when it is dropped; connections end with it.
pub async fn refuse_while_waiting(listener: &TcpListener, patience: Duration, why: watch::Receiver<String>) -> Infallible {
    tokio::time::sleep(patience).await;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn(refuse(stream, why.clone()))),
                // No file descriptors, most likely: at once it would fail again.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn refuse(stream: TcpStream, why: watch::Receiver<String>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let reason = why.borrow().clone();
        async move { Ok::<_, Infallible>(answer(request.uri().path(), &reason)) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).serve_connection(TokioIo::new(stream), answer);
    // A client that goes away is no fault.
    let _ = connection.await;
}

fn answer(path: &str, reason: &str) -> Response<Full<Bytes>> {
    let reason = if reason.is_empty() { "the node is starting" } else { reason };
    let (kind, body) = if path == "/health" {
        let health = json!({"status": "failing", "reasons": [format!("this node belongs to no cluster yet: {reason}")], "version": env!("CARGO_PKG_VERSION")});
        ("application/json", health.to_string())
    } else {
        let detail = format!("this node belongs to no cluster yet: {reason}");
        let problem = Problem::new(ErrorCode::ShardUnavailable, detail).retry_after_ms(RETRY_AFTER_MS);
        ("application/problem+json", serde_json::to_string(&problem).unwrap_or_default())
    };
    let built = Response::builder()
        .status(StatusCode::SERVICE_UNAVAILABLE)
        .header(CONTENT_TYPE, kind)
        .header(RETRY_AFTER, RETRY_AFTER_MS / 1_000)
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)));
    built.unwrap_or_default()
}
