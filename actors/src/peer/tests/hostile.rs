//! What comes to the peer port and is no peer, or one that misbehaves: it is refused or ended, takes no more than its bound, and others go on.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::peer::auth::credentials::Credentials;
use crate::peer::auth::handshake::Purpose;
use crate::peer::auth::tls::testing::{Ca, Like};
use crate::peer::limits::{FRAME_BYTES_MAX, HANDSHAKE_TIME_MAX, HANDSHAKES_OF_ONE_MAX};
use crate::peer::session::wire::{self, FrameKind, Head};

/// Two nodes, in the clear and with TLS.
async fn pairs(dir: &std::path::Path) -> [(Node, Node); 2] {
    let ca = Ca::new("fleet");
    let tls = |name: &str| Some(ca.issue(dir, name, Like::default()));
    let encrypted = (node_with(hello(1, 1), "secret", tls("a")).await, node_with(hello(2, 1), "secret", tls("b")).await);
    encrypted.0.peers.set_targets(vec![target(&encrypted.1)]);
    connected(&encrypted.0, &encrypted.1).await;
    connected(&encrypted.1, &encrypted.0).await;
    [pair().await, encrypted]
}

async fn still_answers(a: &Node, b: &Node) {
    for (from, to) in [(a, b), (b, a)] {
        assert_eq!(ask(from, to, rpc(RpcKind::Vote, 100)).await.map(|body| body.len()), Ok(100));
    }
}

/// Reads until the other side has had enough, at most as long as a handshake may take and then some.
async fn ended(mut stream: TcpStream) {
    let mut sink = vec![0; 1 << 16];
    let read_all = async {
        // A reset is an end too.
        while matches!(stream.read(&mut sink).await, Ok(bytes) if bytes > 0) {}
    };
    tokio::time::timeout(2 * HANDSHAKE_TIME_MAX, read_all).await.expect("the port lets go in time");
}

/// An opening of the handshake with parts of it changed, cut off or followed by noise; or noise alone.
fn noise(random: &mut StdRng) -> Vec<u8> {
    let mut opening = vec![0, 40];
    opening.extend_from_slice(b"TMESH\x01\x01\x01");
    opening.resize(42, 7);
    let mut tail = vec![0; random.random_range(0..600)];
    random.fill_bytes(&mut tail);
    match random.random_range(0..6) {
        0 => tail,
        1 => [&opening[..random.random_range(0..opening.len())], &[]].concat(),
        2 => [&opening[..], &tail[..]].concat(),
        3 => {
            let at = random.random_range(0..opening.len());
            opening[at] ^= 1 << random.random_range(0..8_u8);
            [&opening[..], &tail[..]].concat()
        }
        // A length and less than it says.
        4 => [&[0xff, 0xff], &tail[..]].concat(),
        // The beginning of a TLS record.
        _ => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], &tail[..]].concat(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_at_the_port_ends_and_disturbs_nobody() {
    let dir = tempfile::tempdir().expect("directory");
    let mut random = StdRng::seed_from_u64(7);
    for (a, b) in &pairs(dir.path()).await {
        let address = b.peers.me().address;
        for _ in 0..3 {
            let strangers = (0..HANDSHAKES_OF_ONE_MAX).map(|_| {
                let (bytes, hangs_up, address) = (noise(&mut random), random.random_bool(0.8), address.clone());
                async move {
                    let mut stream = TcpStream::connect(&address).await.expect("the port takes connections");
                    // It may have been refused already.
                    let _ = stream.write_all(&bytes).await;
                    if hangs_up {
                        let _ = stream.shutdown().await;
                    }
                    ended(stream).await;
                }
            });
            let (_, ()) = tokio::join!(join_all(strangers), still_answers(a, b));
        }
        still_answers(a, b).await;
        assert_eq!(b.peers.watch().borrow().connected.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_hold_the_port_for_a_bounded_time() {
    let dir = tempfile::tempdir().expect("directory");
    for (a, b) in &pairs(dir.path()).await {
        let address = b.peers.me().address;
        let mut silent = Vec::new();
        for _ in 0..4 * HANDSHAKES_OF_ONE_MAX {
            silent.push(TcpStream::connect(&address).await.expect("the port takes connections"));
        }
        still_answers(a, b).await;
        // The session is made anew while all places are taken: as soon as they are let go.
        a.peers.drop_session(b.peers.me().node, b.peers.me().boot);
        gone(a, b.peers.me().node).await;
        connected(a, b).await;
        join_all(silent.into_iter().map(ended)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_knows_the_cookie_and_then_speaks_nonsense_is_let_go() {
    let (a, b) = pair().await;
    let mut random = StdRng::seed_from_u64(8);
    let credentials = Credentials::new("secret".to_owned(), None);
    let after = [
        Vec::new(),
        vec![0xff; 64],
        // A frame of the library that is larger than it may be.
        (FRAME_BYTES_MAX as u64 * 4).to_be_bytes().to_vec(),
        [&100_u64.to_be_bytes()[..], &[9; 100]].concat(),
        (0..5_000).map(|_| random.random()).collect(),
    ];
    for (at, bytes) in after.into_iter().enumerate() {
        let stream = TcpStream::connect(b.peers.me().address).await.expect("connected");
        let (mut stream, _) = credentials.greet(stream, &hello(10 + at as u128, 1), Purpose::Session).await.expect("agreed");
        let _ = stream.write_all(&bytes).await;
        let let_go = async {
            let mut sink = [0; 1 << 10];
            while matches!(stream.read(&mut sink).await, Ok(bytes) if bytes > 0) {}
        };
        tokio::time::timeout(2 * HANDSHAKE_TIME_MAX, let_go).await.unwrap_or_else(|_| panic!("{at} is let go in time"));
        still_answers(&a, &b).await;
        assert_eq!(b.peers.watch().borrow().connected.len(), 1);
    }
}

/// Frames of a session that is up, each with one thing wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_sends_damaged_frames_ends_and_the_others_go_on() {
    let (a, b) = pair().await;
    let wrong = node(hello(3, 1), "secret").await;
    let session = async || {
        wrong.peers.set_targets(vec![target(&b)]);
        connected(&b, &wrong).await;
        connected(&wrong, &b).await;
        wrong.peers.inner.registry.session(NodeId::from_u128(2)).expect("session")
    };
    let head = |connection| Head { connection, request: 1 << 40, total: 4, rpc: 1, kind: FrameKind::Request as u8, ..Head::default() };
    let checksum: fn(Head) -> Vec<u8> = |head| {
        let mut frame = wire::encode(head, b"body");
        *frame.last_mut().expect("body") ^= 1;
        frame
    };
    let too_long: fn(Head) -> Vec<u8> = |head| wire::encode(Head { total: u32::MAX, ..head }, b"body");
    let kind: fn(Head) -> Vec<u8> = |head| wire::encode(Head { kind: 99, ..head }, b"body");
    let credit: fn(Head) -> Vec<u8> = |head| wire::encode(Head { kind: FrameKind::Credit as u8, total: 1 << 30, ..head }, b"");
    for (at, damaged) in [checksum, too_long, kind, credit].into_iter().enumerate() {
        let session = session().await;
        let connection = session.connection;
        session.send_raw(damaged(head(connection)));
        let replaced = |table: &PeerTable| !table.connected.contains_key(&NodeId::from_u128(2));
        let mut watch = wrong.peers.watch();
        let ended = tokio::time::timeout(PATIENCE, watch.wait_for(replaced)).await;
        ended.unwrap_or_else(|_| panic!("{at} ends in time")).expect("table");
        still_answers(&a, &b).await;
    }
    // What no session can be told from is dropped, and nobody suffers for it.
    let session = session().await;
    for noise in [vec![], vec![1; 300], b"TMF\x09".to_vec()] {
        session.send_raw(noise);
    }
    session.send_raw(wire::encode(head(session.connection ^ 1), b"body"));
    still_answers(&a, &b).await;
    still_answers(&wrong, &b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_accepts_and_never_answers_is_told_of_and_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("directory");
    for (a, b) in &pairs(dir.path()).await {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = silent.local_addr().expect("address").to_string();
        let accepting = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                held.push(silent.accept().await);
            }
        });
        a.peers.set_targets(vec![target(b), Target { node: None, address: address.clone() }]);
        let mut watch = a.peers.watch();
        let table = tokio::time::timeout(PATIENCE, watch.wait_for(|table| table.failed.contains_key(&address))).await;
        let reason = table.expect("in time").expect("table").failed[&address].clone();
        assert!(reason.contains("did not say who it is"), "{reason}");
        still_answers(a, b).await;
        accepting.abort();
    }
}
