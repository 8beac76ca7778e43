//! A mesh that is a fleet of one: what openraft ends is opened again.

use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::RealDisk;

use super::*;
use crate::fleet::FleetOptions;

const PATIENCE: Duration = Duration::from_secs(30);

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

fn alone() -> FleetOptions {
    let peer = format!("127.0.0.1:{}", free_port());
    FleetOptions {
        name: "n1".to_owned(),
        cluster_name: "alone".to_owned(),
        listen: peer.parse().expect("an address"),
        advertise: peer.clone(),
        founders: vec![peer],
        http: "127.0.0.1:1".to_owned(),
        cookie: "secret".to_owned(),
        tls: None,
        replication: None,
        version: "0".to_owned(),
        lost_after: Duration::from_secs(600),
        leftover_grace: Duration::from_secs(600),
        bulk_bytes_per_second: 1 << 20,
    }
}

/// Until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_by_itself_is_opened_again_with_all_that_was_acked() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir.path(), 2);
    let (waiting, _) = watch::channel(String::new());
    let mesh = Mesh::start_fleet(options, alone(), &waiting).await.expect("starts");
    let fleet = mesh.inner.fleet.clone().expect("a fleet");
    until("the shards are led", || [0, 1].iter().all(|s| fleet.local(ShardId(*s)).is_some_and(|r| r.leadership().leads))).await;
    assert_eq!(mesh.append(vec![(ShardId(0), batch(0..100))], TIMEOUT).await[0].as_ref().map(|o| o.counted), Ok(100));

    let ended = fleet.local(ShardId(0)).expect("a replica");
    ended.raft().shutdown().await.expect("ends");
    until("it has ended", || ended.ended_by_itself().is_some()).await;
    until("another is open", || fleet.local(ShardId(0)).is_some_and(|r| !Arc::ptr_eq(&r, &ended) && r.leadership().leads)).await;
    let again = mesh.append(vec![(ShardId(0), batch(50..150))], TIMEOUT).await;
    assert_eq!(again[0].as_ref().map(|o| (o.counted, o.duplicates)), Ok((50, 50)));
    mesh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_group_that_ends_by_itself_begins_again_and_knows_what_was_agreed() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = options(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir.path(), 1);
    let (waiting, _) = watch::channel(String::new());
    let mesh = Mesh::start_fleet(options, alone(), &waiting).await.expect("starts");
    let fleet = mesh.inner.fleet.clone().expect("a fleet");
    let meta = fleet.meta().expect("it belongs to a cluster");
    let version = mesh.definitions().version();
    mesh.define(version, Vec::new()).await.expect("defined");

    meta.raft().shutdown().await.expect("ends");
    until("it has ended", || meta.ended_by_itself().is_some() || meta.leads()).await;
    until("it leads again", || meta.ended_by_itself().is_none() && meta.leads()).await;
    assert_eq!(fleet.state().settings.as_ref().map(|settings| settings.definitions_version), Some(version + 1));
    mesh.define(version + 1, Vec::new()).await.expect("it takes commands again");
    assert_eq!(fleet.state().settings.as_ref().map(|settings| settings.definitions_version), Some(version + 2));
    mesh.shutdown().await;
}
