//! Streams between peers, each way with its own weather.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Counts;
use super::weather::{Forecast, Way};

const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on their way; beyond it the sender's kernel has to keep what it sends, as with a slow network.
const CHUNKS_MAX: usize = 32;
/// What Linux waits at least before it repeats a lost packet.
const REPEAT_AFTER: Duration = Duration::from_millis(200);
/// A connection that is opened into a cut network is held this long, then dropped: whoever opened it gave up before.
const HELD_MAX: Duration = Duration::from_secs(4);

/// Carries one stream until either side ends it. Whoever is first in `way` opened it.
pub async fn carry(
    inner: TcpStream,
    way: Way,
    target: SocketAddr,
    source: SocketAddr,
    forecast: &Forecast,
    counts: &Counts,
) -> io::Result<()> {
    let (generation, back) = (forecast.generation(), (way.1, way.0));
    let both = async {
        forecast.passable(way).await;
        forecast.passable(back).await;
    };
    if tokio::time::timeout(HELD_MAX, both).await.is_err() || forecast.generation() != generation {
        return Ok(());
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind(source)?;
    let outer = socket.connect(target).await?;
    inner.set_nodelay(true)?;
    outer.set_nodelay(true)?;
    let (inner_read, inner_write) = inner.into_split();
    let (outer_read, outer_write) = outer.into_split();
    tokio::select! {
        // The second way ends by itself once both processes have let go; a half-closed stream is carried on.
        _ = async { tokio::join!(pump(inner_read, outer_write, way, forecast, |first| counts.opened_with(first)), pump(outer_read, inner_write, back, forecast, |_| {})) } => {}
        () = forecast.broken_off(generation) => {}
    }
    Ok(())
}

/// One way; `begins` is told its first byte. What was read before a cut and not written yet arrives after it, and so does the stream's end.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way, forecast: &Forecast, begins: impl FnOnce(u8)) {
    let (chunks, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let read = async move {
        let (mut buffer, mut begins) = (vec![0; CHUNK_BYTES], Some(begins));
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if let Some(begins) = begins.take() {
                begins(buffer[0]);
            }
            let arrives = Instant::now() + lateness(forecast, way);
            if chunks.send((arrives, buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async {
        while let Some((arrives, chunk)) = waiting.recv().await {
            tokio::time::sleep_until(arrives).await;
            forecast.passable(way).await;
            if to.write_all(&chunk).await.is_err() {
                waiting.close();
                return;
            }
        }
        forecast.passable(way).await;
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

fn lateness(forecast: &Forecast, way: Way) -> Duration {
    let weather = forecast.now(way);
    let mut random = rand::rng();
    let mut late = weather.delay;
    while weather.loss > 0.0 && random.random_bool(weather.loss.min(0.9)) {
        late += REPEAT_AFTER;
    }
    late
}
