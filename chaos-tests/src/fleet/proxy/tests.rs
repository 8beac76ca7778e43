use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use super::weather::Weather;
use super::*;

const SOON: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);
const CUT: Weather = Weather { cut: true, delay: Duration::ZERO, loss: 0.0 };

/// Node 0 dials node 1.
async fn connected(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let socket = TcpSocket::new_v4().expect("socket");
    let mut source = proxy.subnet.peer(0);
    source.set_port(0);
    socket.bind(source).expect("own address");
    let (dialled, accepted) = tokio::join!(socket.connect(proxy.subnet.door(1)), listener.accept());
    (dialled.expect("connected"), accepted.expect("accepted").0)
}

async fn says(stream: &mut TcpStream, byte: u8) {
    stream.write_all(&[byte]).await.expect("sent");
}

async fn hears(stream: &mut TcpStream) -> u8 {
    timeout(PATIENCE, stream.read_u8()).await.expect("in time").expect("a byte")
}

async fn hears_nothing(stream: &mut TcpStream) {
    assert!(timeout(SOON, stream.read_u8()).await.is_err(), "nothing may come, no end either");
}

#[tokio::test]
async fn a_cut_of_one_way_holds_that_way_and_its_end_until_it_is_over() {
    let proxy = Proxy::open(2).await.expect("opens");
    let listener = TcpListener::bind(proxy.subnet.peer(1)).await.expect("port");
    let (mut dialled, mut accepted) = connected(&proxy, &listener).await;
    says(&mut dialled, 1).await;
    assert_eq!(hears(&mut accepted).await, 1);
    proxy.forecast.set([(0, 1)], CUT);
    says(&mut dialled, 2).await;
    says(&mut accepted, 3).await;
    assert_eq!(hears(&mut dialled).await, 3, "the other way is open");
    drop(dialled);
    hears_nothing(&mut accepted).await;
    proxy.forecast.clear(false);
    assert_eq!(hears(&mut accepted).await, 2);
    assert!(timeout(PATIENCE, accepted.read_u8()).await.expect("in time").is_err(), "then the end");
}

#[tokio::test]
async fn connections_into_a_cut_network_are_not_made_and_broken_off_ones_end() {
    let proxy = Proxy::open(2).await.expect("opens");
    let listener = TcpListener::bind(proxy.subnet.peer(1)).await.expect("port");
    let (mut dialled, _accepted) = connected(&proxy, &listener).await;
    proxy.forecast.set([(1, 0)], CUT);
    assert!(timeout(SOON, connected(&proxy, &listener)).await.is_err());
    proxy.forecast.clear(true);
    assert!(timeout(PATIENCE, dialled.read_u8()).await.expect("in time").is_err());
    let (mut dialled, mut accepted) = timeout(PATIENCE, connected(&proxy, &listener)).await.expect("as if nothing had been");
    says(&mut dialled, 1).await;
    assert_eq!(hears(&mut accepted).await, 1);
}

#[tokio::test]
async fn what_is_delayed_comes_late_and_in_order() {
    let proxy = Proxy::open(2).await.expect("opens");
    let listener = TcpListener::bind(proxy.subnet.peer(1)).await.expect("port");
    let (mut dialled, mut accepted) = connected(&proxy, &listener).await;
    proxy.forecast.set([(0, 1)], Weather { cut: false, delay: SOON, loss: 0.2 });
    let began = Instant::now();
    for byte in 0..20 {
        says(&mut dialled, byte).await;
    }
    for byte in 0..20 {
        assert_eq!(hears(&mut accepted).await, byte);
    }
    assert!(began.elapsed() >= SOON);
}

#[tokio::test]
async fn datagrams_are_answered_through_the_doors_and_lost_in_a_cut() {
    let proxy = Proxy::open(3).await.expect("opens");
    let a = UdpSocket::bind(proxy.subnet.peer(0)).await.expect("port");
    let b = UdpSocket::bind(proxy.subnet.peer(2)).await.expect("port");
    let mut buffer = [0; 16];
    a.send_to(b"hello", proxy.subnet.door(2)).await.expect("sent");
    let (length, from) = timeout(PATIENCE, b.recv_from(&mut buffer)).await.expect("in time").expect("received");
    assert_eq!((&buffer[..length], from), (&b"hello"[..], proxy.subnet.door(0)));
    b.send_to(b"you", from).await.expect("sent");
    let (length, from) = timeout(PATIENCE, a.recv_from(&mut buffer)).await.expect("in time").expect("received");
    assert_eq!((&buffer[..length], from), (&b"you"[..], proxy.subnet.door(2)));
    proxy.forecast.set([(2, 0)], CUT);
    b.send_to(b"again", proxy.subnet.door(0)).await.expect("sent");
    assert!(timeout(SOON, a.recv_from(&mut buffer)).await.is_err());
    assert_eq!(proxy.datagrams_lost(), 1);
}

#[tokio::test]
async fn whoever_does_not_send_from_a_nodes_address_is_told_of() {
    let proxy = Proxy::open(2).await.expect("opens");
    assert!(proxy.check_senders().is_err(), "nothing went through");
    let mut stream = TcpStream::connect(proxy.subnet.door(1)).await.expect("connected");
    assert!(timeout(PATIENCE, stream.read_u8()).await.expect("in time").is_err());
    assert!(proxy.check_senders().expect_err("a stranger").to_string().contains("127.0.0.1"));
}

#[tokio::test]
async fn a_stream_that_does_not_begin_as_tls_is_found() {
    let proxy = Proxy::open(2).await.expect("opens");
    let listener = TcpListener::bind(proxy.subnet.peer(1)).await.expect("port");
    assert!(proxy.check_tls().is_err(), "there was none");
    for (first, good) in [(TLS_HANDSHAKE, true), (b'T', false)] {
        let (mut dialled, mut accepted) = connected(&proxy, &listener).await;
        // What is said later, and what is answered, may be anything.
        for byte in [first, 1] {
            says(&mut dialled, byte).await;
            assert_eq!(hears(&mut accepted).await, byte);
        }
        says(&mut accepted, 1).await;
        assert_eq!(hears(&mut dialled).await, 1);
        assert_eq!(proxy.check_tls().is_ok(), good, "{first}");
    }
}
