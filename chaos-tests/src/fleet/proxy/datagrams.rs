//! Datagrams between nodes (gossip).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::Counts;
use super::weather::Forecast;

const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Delayed datagrams under way at one door; more are dropped, as a router does.
const DELAYED_MAX: usize = 1_024;

/// What every door of the fleet knows of the others.
pub struct Doors {
    pub sockets: Vec<UdpSocket>,
    /// Where each node really listens.
    pub nodes: Vec<SocketAddr>,
}

/// Serves one door. What comes from node `x` for node `to` leaves through the door of `x`, so that the receiver answers there.
pub async fn carry(doors: Arc<Doors>, to: usize, forecast: Forecast, counts: Arc<Counts>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut delayed = JoinSet::new();
    loop {
        while delayed.try_join_next().is_some() {}
        // Errors are those of datagrams sent before (nobody listens there now).
        let Ok((length, sender)) = doors.sockets[to].recv_from(&mut buffer).await else { continue };
        let Some(from) = number_of(&doors.nodes, sender.ip()) else {
            counts.stranger(sender.ip());
            continue;
        };
        let weather = forecast.now((from, to));
        let lost = weather.cut || (weather.loss > 0.0 && rand::rng().random_bool(weather.loss.min(1.0)));
        counts.datagram(lost);
        if lost {
            continue;
        }
        if weather.delay.is_zero() {
            let _ = doors.sockets[from].send_to(&buffer[..length], doors.nodes[to]).await;
        } else if delayed.len() < DELAYED_MAX {
            let (doors, bytes) = (doors.clone(), buffer[..length].to_vec());
            delayed.spawn(async move {
                tokio::time::sleep(weather.delay).await;
                let _ = doors.sockets[from].send_to(&bytes, doors.nodes[to]).await;
            });
        }
    }
}

pub fn number_of(nodes: &[SocketAddr], address: IpAddr) -> Option<usize> {
    nodes.iter().position(|node| node.ip() == address)
}
