//! A mesh that is a fleet of one: what openraft ends is opened again. A fleet of several in one process: who leads the metadata group goes, or is drained.

use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::RealDisk;

use super::*;
use crate::fleet::{Fleet, FleetOptions};
use crate::raft::RaftReplica;

const PATIENCE: Duration = Duration::from_secs(30);

/// An address that nobody else has: on one where connections come from, a port that was free a moment ago may be somebody's.
fn free_address() -> String {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let listener = std::net::TcpListener::bind(format!("127.{}.{b}.{c}:0", 1 + a % 250)).expect("a port");
    listener.local_addr().expect("its address").to_string()
}

fn alone() -> FleetOptions {
    let peer = free_address();
    member("n1".to_owned(), peer.clone(), vec![peer])
}

fn member(name: String, peer: String, founders: Vec<String>) -> FleetOptions {
    FleetOptions {
        name,
        cluster_name: "alone".to_owned(),
        listen: peer.parse().expect("an address"),
        advertise: peer,
        founders,
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

/// So many nodes that have founded a cluster, and agree on who leads the metadata group.
async fn fleet_of(size: usize) -> Vec<(Mesh, Fleet, tempfile::TempDir)> {
    let peers: Vec<String> = (0..size).map(|_| free_address()).collect();
    let start = |at: usize| {
        let member = member(format!("n{}", at + 1), peers[at].clone(), peers.clone());
        async move {
            let dir = tempfile::tempdir().expect("a directory");
            let options = options(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir.path(), 1);
            let (waiting, waits) = watch::channel(String::new());
            let started = tokio::time::timeout(PATIENCE, Mesh::start_fleet(options, member, &waiting)).await;
            let mesh = started.unwrap_or_else(|_| panic!("n{}: {}", at + 1, *waits.borrow())).expect("starts");
            let fleet = mesh.inner.fleet.clone().expect("a fleet");
            (mesh, fleet, dir)
        }
    };
    let nodes = futures::future::join_all((0..size).map(start)).await;
    let votes = |fleet: &Fleet| RaftReplica::group_of(&fleet.meta().expect("a member").raft()).voters.len() == size;
    until("all vote on what all agree on", || nodes.iter().all(|(_, fleet, _)| votes(fleet) && metadata_leader(fleet).is_some())).await;
    nodes
}

fn metadata_leader(fleet: &Fleet) -> Option<u64> {
    fleet.meta().and_then(|meta| meta.leader())
}

fn metadata_term(fleet: &Fleet) -> u64 {
    RaftReplica::group_of(&fleet.meta().expect("a member").raft()).term
}

/// Whoever leaves has an heir by the time that it has left: nobody needs to notice that its leader is gone. Of five, others than the two have to let go of it.
async fn the_metadata_lead_is_handed_over_by_whoever_leaves(size: usize) {
    let nodes = fleet_of(size).await;
    let leader = nodes.iter().position(|(_, fleet, _)| fleet.meta().is_some_and(|meta| meta.leads())).expect("somebody leads");
    let (mesh, leaves, _) = &nodes[leader];
    // An heir is who is known to stay.
    until("the others are heard", || leaves.metadata_heir().is_some()).await;
    let (term, version) = (metadata_term(leaves), mesh.definitions().version());
    mesh.leave().await;

    let led_by = metadata_leader(leaves).expect("it knows who leads now");
    assert_ne!(led_by, leaves.me());
    assert!(!leaves.meta().is_some_and(|meta| meta.leads()));
    let (_, heir, _) = nodes.iter().find(|(_, fleet, _)| fleet.me() == led_by).expect("one of them");
    assert!(heir.meta().is_some_and(|meta| meta.leads()));
    assert_eq!(metadata_term(heir), term + 1, "at the first attempt");
    let (other, _, _) = &nodes[(leader + 1) % size];
    assert_eq!(other.define(version, Vec::new()).await, Ok(()));
    until("all know", || nodes.iter().all(|(mesh, _, _)| mesh.definitions().version() == version + 1)).await;
    futures::future::join_all(nodes.iter().map(|(mesh, _, _)| mesh.shutdown())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_lead_of_three_is_handed_over_by_whoever_leaves() {
    the_metadata_lead_is_handed_over_by_whoever_leaves(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_lead_of_five_is_handed_over_by_whoever_leaves() {
    the_metadata_lead_is_handed_over_by_whoever_leaves(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_lead_is_given_up_by_a_node_that_is_drained() {
    let nodes = fleet_of(3).await;
    let (_, drained, _) = nodes.iter().find(|(_, fleet, _)| fleet.meta().is_some_and(|meta| meta.leads())).expect("somebody leads");
    drained.set_draining(drained.me(), true).await.expect("decided");
    let is_led = |fleet: &Fleet| metadata_leader(fleet).is_some_and(|leader| leader != drained.me());
    until("another leads", || nodes.iter().all(|(_, fleet, _)| is_led(fleet))).await;
    assert!(!drained.meta().is_some_and(|meta| meta.leads()));
    futures::future::join_all(nodes.iter().map(|(mesh, _, _)| mesh.shutdown())).await;
}
