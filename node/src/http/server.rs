//! The listener: a bounded number of connections, each bounded in what it may hold and how long it may dawdle; HTTP/1.1 and HTTP/2 on one port.

pub(super) mod body;
pub(super) mod context;
mod stream;
pub(super) mod waiting;

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Version;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AppState, answer, router};
use crate::boot::open_files::connections_that_fit;
use crate::limits::{
    ACCEPT_PAUSE, CONNECTION_BUFFER_BYTES_MAX, HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT, HTTP2_STREAMS_MAX, RETRY_AFTER_MS,
};
use context::Peer;
use stream::{ClientStream, Heard};

/// When the node ends, a connection is told so with its next answer; one that brings no request is closed once nothing has come over it for so long.
/// Closed any earlier, a request that is on its way would meet nobody.
const QUIET_TIME_MIN: Duration = Duration::from_millis(500);
/// A handshake that the kernel has begun is over after this time.
const HANDSHAKE_TIME: Duration = Duration::from_millis(20);

pub struct Server {
    app: AppState,
    address: SocketAddr,
    /// No new connections.
    close: CancellationToken,
    /// Open ones finish what they are at.
    stop: CancellationToken,
    /// Whatever is left ends now.
    abort: CancellationToken,
    accepting: JoinHandle<()>,
    connections: TaskTracker,
}

impl Server {
    /// # Errors
    /// The operating system's.
    pub async fn bind(addr: &str) -> std::io::Result<TcpListener> {
        TcpListener::bind(addr).await
    }

    /// # Errors
    /// The listener has no address any more.
    pub fn start(listener: TcpListener, app: AppState) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, abort, connections) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let close = CancellationToken::new();
        let shared = Connections::new(app.clone(), stop.clone(), abort.clone(), connections.clone());
        let accepting = tokio::spawn(accept(listener, shared, close.clone()));
        Ok(Self { app, address, close, stop, abort, accepting, connections })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and waits until open requests are answered, at most `drain_timeout`.
    pub async fn shutdown(self, drain_timeout: Duration) {
        self.close.cancel();
        // Its only way to fail is a panic, which has been printed.
        let _ = self.accepting.await;
        self.connections.close();
        self.stop.cancel();
        if tokio::time::timeout(drain_timeout, self.connections.wait()).await.is_err() {
            let open = self.app.metrics.connections.load(Ordering::Relaxed);
            tracing::warn!(open, "connections did not finish in time and are cut");
            self.abort.cancel();
            self.connections.wait().await;
        }
    }
}

/// What every connection shares.
struct Connections {
    app: AppState,
    router: Router,
    builder: Builder<TokioExecutor>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Connections {
    fn new(app: AppState, stop: CancellationToken, abort: CancellationToken, tasks: TaskTracker) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(app.config.http.header_timeout.duration())
            .max_buf_size(CONNECTION_BUFFER_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT);
        let places = Arc::new(Semaphore::new(connections_that_fit(app.config.http.connections_max)));
        Self { router: router(app.clone()), app, builder, places, stop, abort, tasks }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let Some(own_place) = self.app.clients.connect(peer.ip()) else {
            self.refuse(stream, peer);
            return;
        };
        let (builder, router, app) = (self.builder.clone(), self.router.clone(), self.app.clone());
        let (stop, abort) = (self.stop.clone(), self.abort.clone());
        self.tasks.spawn(async move {
            let _places = (place, own_place);
            app.metrics.connections.fetch_add(1, Ordering::Relaxed);
            // Answers are written whole; waiting for more to send only adds latency.
            let _ = stream.set_nodelay(true);
            tokio::select! {
                () = connection(builder, router, (stream, peer), stop, &app) => {}
                () = abort.cancelled() => {}
            }
            app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Says why, as far as that fits into the connection's empty buffer, and closes it.
    fn refuse(&self, stream: TcpStream, peer: SocketAddr) {
        let limit = self.app.config.clients.connections_max;
        tracing::debug!(%peer, limit, "a client has too many connections");
        let problem = Problem::new(ErrorCode::RateLimited, format!("this client has {limit} connections open already"))
            .limit(limit as u64)
            .retry_after_ms(RETRY_AFTER_MS);
        // Written past the runtime, which does not know yet that there is room. A peer that is gone already need not be told.
        let _ = stream.into_std().and_then(|mut stream| stream.write_all(&stream::answer(problem, &self.app.numbers)));
    }
}

async fn accept(listener: TcpListener, connections: Connections, close: CancellationToken) {
    let mut until = None;
    loop {
        // A place first: beyond the limit, connections wait in the kernel's bounded queue.
        let next = async {
            let place = connections.places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            biased;
            // Whoever has connected already is still heard, and nobody else is let in: a connection left in the queue would be reset.
            () = close.cancelled(), if until.is_none() => {
                until = Some(tokio::time::Instant::now() + HANDSHAKE_TIME);
                refuse_handshakes(&listener);
            }
            () = async { tokio::time::sleep_until(until.unwrap_or_else(tokio::time::Instant::now)).await }, if until.is_some() => {
                // And who did in this very moment.
                let Ok(listener) = listener.into_std() else { return };
                while let (Ok((stream, peer)), Ok(place)) = (listener.accept(), connections.places.clone().try_acquire_owned()) {
                    if stream.set_nonblocking(true).is_ok() && let Ok(stream) = TcpStream::from_std(stream) {
                        connections.serve(stream, peer, place);
                    }
                }
                return;
            }
            () = connections.stop.cancelled() => return,
            (accepted, place) = next => match (accepted, place) {
                (Ok((stream, peer)), Ok(place)) => connections.serve(stream, peer, place),
                (Err(error), _) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                // The semaphore is never closed.
                (Ok(_), Err(_)) => return,
            },
        }
    }
}

/// From here on the kernel drops what asks for a new connection: whoever does asks again in a second, and is refused, or finds the node that comes after.
#[cfg(target_os = "linux")]
fn refuse_handshakes(listener: &TcpListener) {
    use socket2::SockFilter;
    // Classic BPF over the TCP header: no packet whose flags (byte 13) have SYN set.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let program = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(JUMP_IF_SET, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    if let Err(error) = socket2::SockRef::from(listener).attach_filter(&program) {
        tracing::debug!(%error, "new connections may be reset while the listener closes");
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_handshakes(_: &TcpListener) {}

async fn connection(
    builder: Builder<TokioExecutor>,
    router: Router,
    (stream, peer): (TcpStream, SocketAddr),
    stop: CancellationToken,
    app: &AppState,
) {
    let (spoken, multiplexed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let service = {
        let (spoken, multiplexed, app) = (spoken.clone(), multiplexed.clone(), app.clone());
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            spoken.store(true, Ordering::Relaxed);
            multiplexed.store(request.version() >= Version::HTTP_2, Ordering::Relaxed);
            request.extensions_mut().insert(Peer(peer.ip()));
            let (app, router) = (app.clone(), router.clone());
            async move { Ok::<_, Infallible>(answer(&app, &router, request.map(Body::new)).await) }
        })
    };
    let heard = Heard::default();
    let quiet_time = app.config.shutdown_grace().max(QUIET_TIME_MIN);
    let io = TokioIo::new(ClientStream::new(stream, app.numbers.clone(), heard.clone()));
    let serving = builder.serve_connection_with_upgrades(io, service);
    let first_request = app.config.http.header_timeout.duration();
    tokio::pin!(serving);
    // The HTTP engine times the heads of HTTP/1 requests, but not the bytes that tell which version it is to be.
    let silent = tokio::time::sleep(first_request);
    tokio::pin!(silent);
    let mut is_timed = true;
    let mut is_stopping = false;
    loop {
        tokio::select! {
            // Errors here are the peer's: gone away, or not speaking HTTP.
            _ = serving.as_mut() => return,
            () = async {
                stop.cancelled().await;
                // HTTP/2 says itself which requests still count.
                if !multiplexed.load(Ordering::Relaxed) {
                    heard.quiet_for(quiet_time).await;
                }
            }, if !is_stopping => {
                is_stopping = true;
                serving.as_mut().graceful_shutdown();
            }
            () = silent.as_mut(), if is_timed => {
                is_timed = false;
                if !spoken.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }
}
