use std::time::Duration;

use futures::future::{join_all, pending};
use tallymesh_protocol::hash::ShardId;
use tallymesh_storage::clock::SystemClock;
use tokio::sync::Semaphore;

use super::*;
use crate::peer::bulk::BulkSource;
use crate::peer::limits::{MESSAGE_BYTES_MAX, WINDOW_BYTES};

mod hostile;
mod tls;

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with what it was asked, by the kind: at once, never, with a refusal, or not without a permit.
pub struct Echo {
    pub gate: Semaphore,
    pub began: Semaphore,
    pub dropped: Arc<Semaphore>,
}

impl Echo {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { gate: Semaphore::new(0), began: Semaphore::new(0), dropped: Arc::new(Semaphore::new(0)) })
    }
}

struct Dropped(Arc<Semaphore>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

struct Answers(Arc<Echo>);

impl Handler for Answers {
    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let echo = self.0.clone();
        echo.began.add_permits(1);
        async move {
            let dropped = Dropped(echo.dropped.clone());
            let result = match request.kind {
                RpcKind::Ingest => pending().await,
                RpcKind::Query => {
                    echo.gate.acquire().await.expect("gate").forget();
                    Ok(request.body)
                }
                RpcKind::Metadata => Err(Refusal::new(RefusalCode::Stopped, "as asked")),
                RpcKind::ReadIndex => panic!("as asked"),
                _ => Ok(request.body),
            };
            drop(dropped);
            result
        }
        .boxed()
    }
}

pub struct Node {
    pub peers: Peers,
    pub echo: Arc<Echo>,
}

pub fn hello(node: u128, boot: u64) -> Hello {
    Hello {
        node: NodeId::from_u128(node),
        boot: BootId(boot),
        name: format!("n{node}"),
        address: String::new(),
        cluster_name: "main".to_owned(),
        cluster_id: Some("x".to_owned()),
    }
}

/// A file that every node of these tests has.
struct OneFile;

impl OneFile {
    const BYTES: usize = 700_000;

    fn byte(at: usize) -> u8 {
        ((at as u32).wrapping_mul(2_654_435_761) >> 24) as u8
    }
}

impl BulkSource for OneFile {
    fn length(&self, _shard: ShardId, name: &str) -> io::Result<Option<u64>> {
        Ok((name == "file").then_some(Self::BYTES as u64))
    }

    fn read_at(&self, _shard: ShardId, _name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        Ok((offset as usize..offset as usize + len).map(Self::byte).collect())
    }
}

/// A node at a port of its own.
pub async fn node(hello: Hello, cookie: &str) -> Node {
    node_with(hello, cookie, None).await
}

async fn node_with(mut hello: Hello, cookie: &str, tls: Option<TlsFiles>) -> Node {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("port").local_addr().expect("address");
    hello.address = free.to_string();
    let echo = Echo::new();
    let bulk = Some(Arc::new(BulkServer::new(Arc::new(OneFile), u64::MAX)));
    let options = PeerOptions { hello, cookie: cookie.to_owned(), listen: free, clock: Arc::new(SystemClock::new()), bulk, tls };
    let peers = Peers::start(options, Arc::new(Answers(echo.clone()))).await.expect("started");
    Node { peers, echo }
}

pub fn target(of: &Node) -> Target {
    let hello = of.peers.me();
    Target { node: Some(hello.node), address: hello.address }
}

pub async fn connected(from: &Node, to: &Node) {
    let node = to.peers.me();
    let is_there = |table: &PeerTable| table.connected.get(&node.node).is_some_and(|hello| hello.boot == node.boot);
    tokio::time::timeout(PATIENCE, from.peers.watch().wait_for(is_there)).await.expect("connected in time").expect("table");
}

async fn gone(from: &Node, to: NodeId) {
    let is_gone = |table: &PeerTable| !table.connected.contains_key(&to);
    tokio::time::timeout(PATIENCE, from.peers.watch().wait_for(is_gone)).await.expect("gone in time").expect("table");
}

async fn pair() -> (Node, Node) {
    let (a, b) = (node(hello(1, 1), "secret").await, node(hello(2, 1), "secret").await);
    a.peers.set_targets(vec![target(&b)]);
    b.peers.set_targets(vec![target(&a)]);
    connected(&a, &b).await;
    connected(&b, &a).await;
    (a, b)
}

fn rpc(kind: RpcKind, bytes: usize) -> Rpc {
    let body: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    Rpc { kind, shard: ShardId(3), lane: Lane::Normal, body: body.into() }
}

fn ask(from: &Node, to: &Node, rpc: Rpc) -> BoxFuture<'static, Result<Bytes, PeerError>> {
    from.peers.call(to.peers.me().node, rpc, Instant::now() + PATIENCE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_of_every_size_are_answered_both_ways() {
    let (a, b) = pair().await;
    for bytes in [0, 1, 300_000, 9 << 20] {
        let question = rpc(RpcKind::AppendEntries, bytes);
        assert!(ask(&a, &b, question.clone()).await.expect("answered") == question.body, "{bytes}");
        assert!(ask(&b, &a, question.clone()).await.expect("answered") == question.body, "{bytes}");
    }
    assert!(matches!(ask(&a, &b, rpc(RpcKind::AppendEntries, MESSAGE_BYTES_MAX + 1)).await, Err(PeerError::TooLarge { .. })));
    let many = join_all((0..500).map(|bytes| ask(&a, &b, rpc(RpcKind::Vote, bytes)))).await;
    assert!(many.into_iter().enumerate().all(|(bytes, answer)| answer.is_ok_and(|body| body.len() == bytes)));
    a.peers.shutdown().await;
    gone(&b, NodeId::from_u128(1)).await;
    b.peers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_panic_and_deadline_each_end_the_call() {
    let (a, b) = pair().await;
    let refused = ask(&a, &b, rpc(RpcKind::Metadata, 1)).await;
    assert!(
        matches!(&refused, Err(PeerError::Refused { refusal, .. }) if *refusal == Refusal::new(RefusalCode::Stopped, "as asked")),
        "{refused:?}"
    );
    let failed = ask(&a, &b, rpc(RpcKind::ReadIndex, 1)).await;
    assert!(matches!(&failed, Err(PeerError::Refused { refusal, .. }) if refusal.code == RefusalCode::Failed), "{failed:?}");
    let node = NodeId::from_u128(2);
    let silent = a.peers.call(node, rpc(RpcKind::Ingest, 1), Instant::now() + Duration::from_millis(50)).await;
    // Which of the two clocks is first is chance.
    assert!(matches!(&silent, Err(PeerError::Timeout(n)) if *n == node) || matches!(&silent, Err(PeerError::Refused { .. })), "{silent:?}");
    let nobody = a.peers.call(NodeId::from_u128(9), rpc(RpcKind::Vote, 1), Instant::now() + PATIENCE).await;
    assert_eq!(nobody, Err(PeerError::Unreachable(NodeId::from_u128(9))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_ends_when_its_asker_goes_away() {
    let (a, b) = pair().await;
    let question = ask(&a, &b, rpc(RpcKind::Ingest, 1));
    b.echo.began.acquire().await.expect("began").forget();
    drop(question);
    tokio::time::timeout(PATIENCE, b.echo.dropped.acquire()).await.expect("dropped in time").expect("semaphore").forget();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_session_fails_its_calls_at_once_and_a_new_one_comes_by_itself() {
    let (a, b) = pair().await;
    for (near, far) in [(&a, &b), (&b, &a)] {
        let far_is = far.peers.me();
        let calls: Vec<_> = (0..20).map(|_| ask(near, far, rpc(RpcKind::Query, 1))).collect();
        far.echo.began.acquire_many(20).await.expect("began").forget();
        near.peers.drop_session(far_is.node, far_is.boot);
        let answers = tokio::time::timeout(PATIENCE / 2, join_all(calls)).await.expect("at once, not at the deadline");
        assert!(answers.into_iter().all(|answer| answer == Err(PeerError::Lost(far_is.node))));
        gone(near, far_is.node).await;
        connected(near, far).await;
        let again = async {
            // The other side may still end the old session.
            while ask(near, far, rpc(RpcKind::Vote, 1)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("it works again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_peer_replaces_its_former_run() {
    let (a, b) = pair().await;
    let waiting = ask(&a, &b, rpc(RpcKind::Query, 1));
    b.peers.shutdown().await;
    assert_eq!(waiting.await, Err(PeerError::Lost(NodeId::from_u128(2))));
    let again = node(hello(2, 2), "secret").await;
    a.peers.set_targets(vec![target(&again)]);
    connected(&a, &again).await;
    assert_eq!(ask(&a, &again, rpc(RpcKind::Vote, 3)).await.map(|body| body.len()), Ok(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_windows_hold_nothing_urgent_back() {
    let (a, b) = pair().await;
    let large: Vec<_> = (0..3).map(|_| ask(&a, &b, rpc(RpcKind::Query, 5 << 20))).collect();
    assert!(a.peers.outgoing_bytes(NodeId::from_u128(2)) > WINDOW_BYTES);
    let vote = Rpc { lane: Lane::Urgent, ..rpc(RpcKind::Vote, 100) };
    assert_eq!(ask(&a, &b, vote).await.map(|body| body.len()), Ok(100));
    b.echo.gate.add_permits(3);
    for answer in join_all(large).await {
        assert_eq!(answer.map(|body| body.len()), Ok(5 << 20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_cookie_and_other_cluster_are_refused_with_the_reason() {
    let a = node(hello(1, 1), "secret").await;
    let cookie = node(hello(2, 1), "wrong").await;
    let cluster = node(Hello { cluster_id: Some("y".to_owned()), ..hello(3, 1) }, "secret").await;
    a.peers.set_targets(vec![target(&cookie), target(&cluster)]);
    let both = |table: &PeerTable| table.failed.len() == 2;
    let mut watch = a.peers.watch();
    let table = tokio::time::timeout(PATIENCE, watch.wait_for(both)).await.expect("in time").expect("table").clone();
    assert!(table.failed[&cookie.peers.me().address].contains("cookie differs"), "{table:?}");
    assert!(table.failed[&cluster.peers.me().address].contains("belongs to cluster"), "{table:?}");
    assert!(table.connected.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_without_a_cluster_may_only_talk_about_founding_until_they_have_one() {
    let (a, b) =
        (node(Hello { cluster_id: None, ..hello(1, 1) }, "secret").await, node(Hello { cluster_id: None, ..hello(2, 1) }, "secret").await);
    a.peers.set_targets(vec![Target { node: None, address: target(&b).address }, Target { node: None, address: target(&a).address }]);
    connected(&a, &b).await;
    assert_eq!(ask(&a, &b, rpc(RpcKind::Founding, 3)).await.map(|body| body.len()), Ok(3));
    assert!(matches!(ask(&a, &b, rpc(RpcKind::Vote, 3)).await, Err(PeerError::Refused { .. })));
    a.peers.set_cluster("z".to_owned());
    b.peers.set_cluster("z".to_owned());
    let settled = async {
        while ask(&a, &b, rpc(RpcKind::Vote, 3)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("a session of one cluster comes");
    assert_eq!(a.peers.watch().borrow().at.len(), 2, "its own address is known as its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_dial_each_other_at_once_end_with_a_session_that_works() {
    for round in 0..5 {
        let (a, b) = (node(hello(1, round), "secret").await, node(hello(2, round), "secret").await);
        a.peers.set_targets(vec![Target { node: None, address: target(&b).address }]);
        b.peers.set_targets(vec![Target { node: None, address: target(&a).address }]);
        let works = async {
            let mut in_a_row = 0;
            while in_a_row < 20 {
                let both = tokio::join!(ask(&a, &b, rpc(RpcKind::Vote, 1)), ask(&b, &a, rpc(RpcKind::Vote, 1)));
                in_a_row = if both.0.is_ok() && both.1.is_ok() { in_a_row + 1 } else { 0 };
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, works).await.expect("settled in time");
    }
}
