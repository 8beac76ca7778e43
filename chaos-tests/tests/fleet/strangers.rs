//! Whatever comes to the peer port, and whoever does not answer there.

use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tallymesh_chaos_tests::fleet::Fleet;
use tallymesh_chaos_tests::fleet::node::Dressing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::desk::{Desk, PATIENCE, options};

const STRANGERS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_at_the_peer_port_change_nothing() -> Result<()> {
    let mut desk = Desk::start(options(3)?).await?;
    let (tcp, mut random) = (desk.fleet.proxy.subnet.peer(0), StdRng::seed_from_u64(11));
    let udp = UdpSocket::bind("127.0.0.1:0").await?;
    let mut open = Vec::new();
    for stranger in 0..STRANGERS {
        let Ok(mut stream) = TcpStream::connect(tcp).await else { continue };
        let mut bytes = vec![0; random.random_range(1..9_000)];
        random.fill_bytes(&mut bytes);
        match stranger % 4 {
            0 => bytes = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            // The largest length there is, in front.
            1 => bytes[..1].fill(0xff),
            2 => bytes.clear(),
            _ => {}
        }
        let _ = stream.write_all(&bytes).await;
        // Half of them stay and say nothing more.
        if stranger % 2 == 0 {
            open.push(stream);
        } else {
            let _ = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
        }
        let mut datagram = vec![0; random.random_range(0..1_400)];
        random.fill_bytes(&mut datagram);
        let _ = udp.send_to(&datagram, tcp).await;
        if stranger % 30 == 0 {
            desk.write_some(&[0, 1, 2], 1).await?;
        }
    }
    // A session that breaks meanwhile comes back through the crowd.
    desk.fleet.nodes[0].kill().await?;
    desk.fleet.nodes[0].start().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    drop(open);
    desk.settle_and_compare().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_accepts_and_never_answers_keeps_nobody_from_joining() -> Result<()> {
    let mut options = options(4)?;
    options.founders = Some(3);
    let fleet = Fleet::prepare(options).await?;
    for node in &fleet.nodes[..3] {
        node.start().await?;
    }
    fleet.all_ready(PATIENCE).await?;
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let join = format!("{},{}", silent.local_addr()?, fleet.proxy.subnet.door(1));
    fleet.nodes[3].dress(Dressing { flags: vec![("--join", join.into())], ..Dressing::default() }).await;
    fleet.nodes[3].start().await?;
    fleet.all_ready(PATIENCE).await?;
    let mut desk = Desk::at(fleet);
    desk.write_some(&[3, 0], 5).await?;
    desk.settle_and_compare().await
}
