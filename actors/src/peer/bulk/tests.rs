use std::collections::BTreeMap;

use parking_lot::RwLock;
use tallymesh_protocol::hash::ShardId;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::peer::auth::credentials::Credentials;
use crate::peer::auth::handshake::{self, Hello, Secret};
use crate::peer::{BootId, NodeId};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVER: NodeId = NodeId::from_u128(2);

struct Files(BTreeMap<&'static str, Vec<u8>>);

impl BulkSource for Files {
    fn length(&self, shard: ShardId, name: &str) -> io::Result<Option<u64>> {
        assert!(!name.contains('/'), "names are checked before");
        Ok(self.0.get(name).filter(|_| shard == ShardId(3)).map(|file| file.len() as u64))
    }

    fn read_at(&self, _shard: ShardId, name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(&self.0[name][offset as usize..][..len]))
    }
}

fn hello(node: u128) -> Hello {
    let (name, address, cluster_name) = ("n".to_owned(), String::new(), "main".to_owned());
    Hello { node: NodeId::from_u128(node), boot: BootId(1), name, address, cluster_name, cluster_id: None }
}

fn content() -> Vec<u8> {
    (0..1_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn client() -> BulkClient {
    BulkClient::new(Arc::new(RwLock::new(hello(1))), Arc::new(Credentials::new("secret".to_owned(), None)))
}

/// A server for as many connections as are given; every one is changed by `damage` on its way.
async fn serve(streams: usize, bytes_per_second: u64, damage: fn(&mut [u8])) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = listener.local_addr().expect("address").to_string();
    let files = Files(BTreeMap::from([("blocks-1", content()), ("empty", Vec::new())]));
    let server = BulkServer::new(Arc::new(files), bytes_per_second);
    let task = tokio::spawn(async move {
        for _ in 0..streams {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let agreed = handshake::accept(&mut stream, Secret::of("secret"), &hello(2)).await.expect("agreed");
            let (near, mut far) = tokio::io::duplex(1 << 20);
            tokio::join!(server.serve(near, &agreed.peer), relay(&mut stream, &mut far, damage));
        }
    });
    (address, task)
}

async fn relay(stream: &mut TcpStream, far: &mut tokio::io::DuplexStream, damage: fn(&mut [u8])) {
    let length = stream.read_u32_le().await.expect("length");
    let mut ask = vec![0; length as usize];
    stream.read_exact(&mut ask).await.expect("ask");
    far.write_u32_le(length).await.expect("sent");
    far.write_all(&ask).await.expect("sent");
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.expect("answer");
    damage(&mut all);
    // The client may have given up on it.
    let _ = stream.write_all(&all).await;
}

const FAST: u64 = 1 << 40;

#[tokio::test]
async fn file_comes_whole_or_from_where_it_broke_off() {
    let (address, _server) = serve(3, FAST, |_| {}).await;
    for (name, offset, expected) in [("blocks-1", 0, &content()[..]), ("blocks-1", 700_001, &content()[700_001..]), ("empty", 0, &[])] {
        let (mut got, mut last) = (Vec::new(), offset);
        let sink = |block: Bytes, progress: Progress| {
            got.extend_from_slice(&block);
            assert_eq!(progress.done_bytes, last + block.len() as u64);
            last = progress.done_bytes;
            Ok(())
        };
        let done = client().fetch((SERVER, &address), (ShardId(3), name), offset, sink).await.expect("fetched");
        assert_eq!(done.done_bytes, done.total_bytes);
        assert!(got == expected);
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_is_no_name_is_not_found() {
    let (address, _server) = serve(4, FAST, |_| {}).await;
    for (shard, name, offset) in [(3, "blocks-2", 0), (4, "blocks-1", 0), (3, "../node.json", 0), (3, "blocks-1", 1_000_001)] {
        let result = client().fetch((SERVER, &address), (ShardId(shard), name), offset, |_, _| Ok(())).await;
        assert!(matches!(result, Err(BulkError::NotFound(_))), "{result:?}");
    }
}

#[tokio::test]
async fn damaged_block_and_wrong_node_are_noticed() {
    let (address, _server) = serve(2, FAST, |all| all[500_000] ^= 1).await;
    let mut good = 0;
    let sink = |block: Bytes, _| {
        good += block.len();
        Ok(())
    };
    let result = client().fetch((SERVER, &address), (ShardId(3), "blocks-1"), 0, sink).await;
    assert!(matches!(result, Err(BulkError::Damaged { offset, .. }) if offset == good as u64), "{result:?}");
    let other = NodeId::from_u128(9);
    let result = client().fetch((other, &address), (ShardId(3), "blocks-1"), 0, |_, _| Ok(())).await;
    assert!(matches!(result, Err(BulkError::OtherNode { .. })), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn pace_holds_over_all_streams() {
    let pace = Pace::new(1_000);
    let began = tokio::time::Instant::now();
    let stream = async || {
        for _ in 0..5 {
            pace.pass(500).await;
        }
    };
    tokio::join!(stream(), stream());
    // The last of ten halves begins when nine are paid for.
    assert_eq!(began.elapsed().as_millis(), 4_500);
}
