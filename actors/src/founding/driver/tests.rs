//! Founding between real nodes on loopback.

use std::path::Path;

use futures::FutureExt;
use parking_lot::Mutex;
use tallymesh_storage::clock::SystemClock;
use tallymesh_storage::disk::SimDisk;

use super::super::join::{KnownMember, Verdict, decide};
use super::*;
use crate::peer::{BootId, Handler, PeerOptions, Target};

const PATIENCE: Duration = Duration::from_secs(60);

/// Lets in by the rule, with a list of its own for members.
struct Members(Mutex<Vec<KnownMember>>);

impl Gate for Members {
    fn let_in(&self, asker: Founder) -> BoxFuture<'static, Result<(), String>> {
        let mut members = self.0.lock();
        let result = match decide(&members, asker.node, &asker.name) {
            Verdict::IsMember => Ok(()),
            Verdict::Refuse(reason) => Err(reason),
            Verdict::Replace(dead) => {
                members.retain(|member| member.node != dead);
                members.push(KnownMember { node: asker.node, name: asker.name, alive: true });
                Ok(())
            }
            Verdict::Add => {
                members.push(KnownMember { node: asker.node, name: asker.name, alive: true });
                Ok(())
            }
        };
        futures::future::ready(result).boxed()
    }
}

struct Answers(Arc<FoundingService>, Arc<Members>);

impl Handler for Answers {
    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let (service, gate) = (self.0.clone(), self.1.clone());
        async move { service.handle(request, Some(gate)).await }.boxed()
    }
}

struct Node {
    peers: Peers,
    service: Arc<FoundingService>,
    run: tokio::task::JoinHandle<Result<Membership, Refusal>>,
}

async fn start(number: u128, name: &str, address: &str, founders: &[String], disk: Arc<SimDisk>, members: Arc<Members>) -> Node {
    let (node, dir) = (NodeId::from_u128(number << 64), Path::new("/data"));
    disk.create_dir_all(dir).expect("directory");
    let me = Founder { node, name: name.to_owned(), address: address.to_owned(), reads: 0 };
    let config = Config { me, founders: founders.to_vec(), shape: "16".to_owned() };
    let clock = Arc::new(SystemClock::new());
    let service = FoundingService::open(config, disk, dir.to_owned(), clock.clone(), Blocking::Threads).expect("opened");
    let membership = service.watch().borrow().membership.clone();
    let hello = Hello {
        node,
        boot: BootId(1),
        name: name.to_owned(),
        address: address.to_owned(),
        cluster_name: "main".to_owned(),
        cluster_id: membership.map(|membership| membership.cluster_id().to_owned()),
    };
    let listen = address.parse().expect("address");
    let options = PeerOptions { hello, cookie: "secret".to_owned(), listen, clock, bulk: None, tls: None };
    let peers = Peers::start(options, Arc::new(Answers(service.clone(), members))).await.expect("started");
    peers.set_targets(founders.iter().map(|address| Target { node: None, address: address.clone() }).collect());
    let run = tokio::spawn(service.clone().run(peers.clone()));
    Node { peers, service, run }
}

async fn member(node: &mut Node) -> Membership {
    let membership = tokio::time::timeout(PATIENCE, &mut node.run).await.expect("in time").expect("no panic").expect("member");
    node.peers.set_cluster(membership.cluster_id().to_owned());
    membership
}

async fn addresses(count: usize) -> Vec<String> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port"));
    }
    listeners.iter().map(|listener| listener.local_addr().expect("address").to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_found_one_cluster_and_one_that_was_wiped_comes_back_into_it() {
    let at = addresses(4).await;
    let founders = &at[..3];
    let members = Arc::new(Members(Mutex::default()));
    let mut nodes = Vec::new();
    for number in 1..=2 {
        let name = format!("n{number}");
        nodes.push(start(number, &name, &at[number as usize - 1], founders, Arc::default(), members.clone()).await);
    }
    let unreachable = |standing: &Standing| standing.waiting == Some(Waiting::Unreachable(vec![at[2].clone()]));
    let mut watch = nodes[0].service.watch();
    tokio::time::timeout(PATIENCE, watch.wait_for(unreachable)).await.expect("it says who is missing").expect("standing");
    nodes.push(start(3, "n3", &at[2], founders, Arc::default(), members.clone()).await);
    let mut founded = Vec::new();
    for node in &mut nodes {
        founded.push(member(node).await);
    }
    assert!(founded.iter().all(|membership| *membership == founded[0]), "{founded:?}");
    let Membership::Founded(accepted) = &founded[0] else { panic!("{founded:?}") };
    for founder in &accepted.seed.founders {
        members.0.lock().push(KnownMember { node: founder.node, name: founder.name.clone(), alive: true });
    }

    // The third loses its directory; as long as its former self counts as alive it is kept out.
    let wiped = nodes.pop().expect("third");
    wiped.peers.shutdown().await;
    let mut again = start(9, "n3", &at[2], founders, Arc::default(), members.clone()).await;
    let kept_out = |standing: &Standing| matches!(&standing.waiting, Some(Waiting::TurnedAway(reason)) if reason.contains("lives"));
    let mut watch = again.service.watch();
    tokio::time::timeout(PATIENCE, watch.wait_for(kept_out)).await.expect("refused").expect("standing");
    members.0.lock().iter_mut().filter(|member| member.name == "n3").for_each(|member| member.alive = false);
    let id = founded[0].cluster_id().to_owned();
    assert_eq!(member(&mut again).await, Membership::Joined { cluster_id: id.clone() });
    assert!(members.0.lock().iter().all(|member| member.alive));
    // Somebody who is no founder comes in the same way.
    let mut fourth = start(4, "n4", &at[3], founders, Arc::default(), members.clone()).await;
    assert_eq!(member(&mut fourth).await, Membership::Joined { cluster_id: id });
    for node in nodes.iter().chain([&again, &fourth]) {
        node.peers.shutdown().await;
    }
}
