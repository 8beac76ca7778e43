//! Nodes with certificates, over real ports.

use std::path::Path;

use super::*;
use crate::peer::auth::tls::testing::{Ca, Like};
use crate::peer::{PeerStartError, TlsFiles};

async fn with(tls: &TlsFiles, node: u128, cookie: &str) -> Node {
    super::node_with(hello(node, 1), cookie, Some(tls.clone())).await
}

fn issue(ca: &Ca, dir: &Path, name: &str) -> TlsFiles {
    ca.issue(dir, name, Like::default())
}

/// Waits until `from` could not connect to `to`; why.
async fn refused(from: &Node, to: &Node) -> String {
    from.peers.set_targets(vec![target(to)]);
    let address = to.peers.me().address;
    let mut watch = from.peers.watch();
    let table = tokio::time::timeout(PATIENCE, watch.wait_for(|table| table.failed.contains_key(&address))).await;
    let table = table.expect("in time").expect("table");
    assert!(!table.connected.contains_key(&to.peers.me().node));
    table.failed[&address].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_and_files_travel_inside_tls() {
    let (dir, ca) = (tempfile::tempdir().expect("directory"), Ca::new("fleet"));
    let a = with(&issue(&ca, dir.path(), "a"), 1, "secret").await;
    let b = with(&issue(&ca, dir.path(), "b"), 2, "secret").await;
    a.peers.set_targets(vec![target(&b)]);
    connected(&a, &b).await;
    connected(&b, &a).await;
    for bytes in [0, 300_000, 9 << 20] {
        let question = rpc(RpcKind::AppendEntries, bytes);
        assert!(ask(&a, &b, question.clone()).await.expect("answered") == question.body, "{bytes}");
        assert!(ask(&b, &a, question.clone()).await.expect("answered") == question.body, "{bytes}");
    }
    let mut got = Vec::new();
    let sink = |block: Bytes, _| {
        got.extend_from_slice(&block);
        Ok(())
    };
    let address = b.peers.me().address;
    let whom = (b.peers.me().node, address.as_str());
    let done = a.peers.bulk().fetch(whom, (ShardId(3), "file"), 0, sink).await.expect("fetched");
    assert_eq!((done.done_bytes, got.len()), (OneFile::BYTES as u64, OneFile::BYTES));
    assert!(got.iter().enumerate().all(|(at, byte)| *byte == OneFile::byte(at)));
    let missing = a.peers.bulk().fetch(whom, (ShardId(3), "other"), 0, |_, _| Ok(())).await;
    assert!(matches!(missing, Err(crate::peer::bulk::BulkError::NotFound(_))), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_peers_are_refused_with_the_reason_while_right_ones_go_on() {
    let (dir, ca) = (tempfile::tempdir().expect("directory"), Ca::new("fleet"));
    let a = with(&issue(&ca, dir.path(), "a"), 1, "secret").await;
    let b = with(&issue(&ca, dir.path(), "b"), 2, "secret").await;
    b.peers.set_targets(vec![target(&a)]);
    connected(&a, &b).await;

    let cookie = with(&issue(&ca, dir.path(), "c"), 3, "wrong").await;
    assert!(refused(&cookie, &a).await.contains("cookie differs"));
    let other = with(&issue(&Ca::new("other"), dir.path(), "d"), 4, "secret").await;
    assert!(refused(&other, &a).await.contains("another CA"));
    let plain = node(hello(5, 1), "secret").await;
    let reason = refused(&plain, &a).await;
    assert!(reason.contains("it speaks TLS and this node does not"), "{reason}");
    let reason = refused(&a, &plain).await;
    assert!(reason.contains("it speaks no TLS and this node does"), "{reason}");

    assert_eq!(ask(&b, &a, rpc(RpcKind::Vote, 3)).await.map(|body| body.len()), Ok(3));
    assert_eq!(a.peers.watch().borrow().connected.len(), 1, "the one that was there before");
}

#[tokio::test]
async fn node_does_not_start_with_certificates_that_peers_would_refuse() {
    let (dir, ca) = (tempfile::tempdir().expect("directory"), Ca::new("fleet"));
    let expired = ca.issue(dir.path(), "a", Like { valid_days: (-9, -2), ..Like::default() });
    let (listen, clock) = ("127.0.0.1:0".parse().expect("address"), Arc::new(SystemClock::new()));
    let options = PeerOptions { hello: hello(1, 1), cookie: "secret".to_owned(), listen, clock, bulk: None, tls: Some(expired) };
    let started = Peers::start(options, Arc::new(Answers(Echo::new()))).await;
    assert!(matches!(started, Err(PeerStartError::Tls(_))));
}
