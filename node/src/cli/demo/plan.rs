//! Where a fleet of this machine is: addresses, directories, and the one file that all its nodes are started with.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tallymesh_protocol::definition::MetricDefinition;

use super::super::client::CliError;
use crate::certs;

const FILE: &str = "cluster.toml";
const CLUSTER: &str = "demo";
/// Elections of a fleet that starts are worth no warning to somebody who only wants to look.
const LOG_LEVEL: &str = "info,openraft=error";

/// What the nodes of a demo are started with.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub dir: PathBuf,
    pub file: PathBuf,
    pub nodes: Vec<NodePlan>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    pub name: String,
    pub http: SocketAddr,
    pub peer: SocketAddr,
    pub data_dir: PathBuf,
    /// What it prints.
    pub log: PathBuf,
}

/// Only what differs from the defaults.
#[derive(Serialize)]
struct File<'a> {
    cluster: Cluster,
    peer: Peer,
    logs: Logs,
    metrics: &'a [MetricDefinition],
}

#[derive(Serialize)]
struct Cluster {
    name: &'static str,
    founders: Vec<String>,
}

#[derive(Serialize)]
struct Peer {
    cookie_file: String,
}

#[derive(Serialize)]
struct Logs {
    level: &'static str,
}

impl Plan {
    /// `http` is the first node's address; the others have the next ports, or all have free ones with port 0. A directory that has been used keeps its peer
    /// addresses as long as they are free.
    ///
    /// # Errors
    /// A port that is taken, or a directory of a fleet of another size.
    pub fn make(dir: &Path, nodes: u16, http: &str) -> Result<Self, CliError> {
        let file = dir.join(FILE);
        let before = founders(&file)?;
        if before.as_ref().is_some_and(|founders| founders.len() != usize::from(nodes)) {
            let there = before.map_or(0, |founders| founders.len());
            let dir = dir.display();
            return Err(CliError::Usage(format!(
                "--nodes {nodes}: {dir} has the data of {there} nodes; choose another --data-dir, or delete it"
            )));
        }
        let http = http_addresses(nodes, http)?;
        let peer = match before.filter(|founders| founders.iter().all(|address| is_free(*address))) {
            Some(founders) => founders,
            None => free_addresses(Ipv4Addr::LOCALHOST.into(), nodes)?,
        };
        let node = |(at, (http, peer)): (usize, (SocketAddr, SocketAddr))| {
            let name = format!("n{}", at + 1);
            NodePlan { http, peer, data_dir: dir.join(&name), log: dir.join(format!("{name}.log")), name }
        };
        Ok(Self { dir: dir.to_owned(), file, nodes: http.into_iter().zip(peer).enumerate().map(node).collect() })
    }

    /// Makes the directory, with the file and a cookie that only its owner reads.
    pub fn write(&self, metrics: &[MetricDefinition]) -> Result<(), CliError> {
        let cannot = |path: &Path, error: &dyn std::fmt::Display| CliError::Failed(format!("{}: {error}", path.display()));
        fs::create_dir_all(&self.dir).map_err(|e| cannot(&self.dir, &e))?;
        let cookie = certs::cookie(&self.dir).map_err(|e| CliError::Failed(e.to_string()))?.0;
        let cookie_file = fs::canonicalize(&cookie).map_err(|e| cannot(&cookie, &e))?.display().to_string();
        let founders = self.nodes.iter().map(|node| node.peer.to_string()).collect();
        let content =
            File { cluster: Cluster { name: CLUSTER, founders }, peer: Peer { cookie_file }, logs: Logs { level: LOG_LEVEL }, metrics };
        let text = toml::to_string(&content).map_err(|e| cannot(&self.file, &e))?;
        let comment = "# The nodes of `tallymesh demo`. Written at its start.\n\n";
        fs::write(&self.file, format!("{comment}{text}")).map_err(|e| cannot(&self.file, &e))
    }

    /// Arguments of the node's process.
    pub fn arguments(&self, node: &NodePlan) -> Vec<String> {
        let mut arguments = vec!["serve".to_owned()];
        for (flag, value) in [
            ("--config", self.file.display().to_string()),
            ("--node", node.name.clone()),
            ("--data-dir", node.data_dir.display().to_string()),
            ("--http", node.http.to_string()),
            ("--peer", node.peer.to_string()),
            ("--join", self.nodes.iter().map(|node| node.peer.to_string()).collect::<Vec<_>>().join(",")),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments
    }
}

/// Peer addresses that a directory's fleet had before.
fn founders(file: &Path) -> Result<Option<Vec<SocketAddr>>, CliError> {
    let Ok(text) = fs::read_to_string(file) else { return Ok(None) };
    let addresses = || {
        let table: toml::Table = text.parse().ok()?;
        let founders = table.get("cluster")?.get("founders")?.as_array()?;
        founders.iter().map(|founder| founder.as_str()?.parse().ok()).collect::<Option<Vec<SocketAddr>>>()
    };
    match addresses() {
        Some(addresses) => Ok(Some(addresses)),
        None => Err(CliError::Failed(format!("{} is not of a demo; choose another --data-dir", file.display()))),
    }
}

fn http_addresses(nodes: u16, http: &str) -> Result<Vec<SocketAddr>, CliError> {
    let first = http.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let Some(first) = first else {
        return Err(CliError::Usage(format!("--http {http}: not an address; write for example 127.0.0.1:7070")));
    };
    if first.port() == 0 {
        return free_addresses(first.ip(), nodes);
    }
    let Some(last) = first.port().checked_add(nodes - 1) else {
        return Err(CliError::Usage(format!("--http {http}: {nodes} nodes need as many ports from there on")));
    };
    let addresses: Vec<SocketAddr> = (first.port()..=last).map(|port| SocketAddr::new(first.ip(), port)).collect();
    // Each by itself: what the others have is in use by then.
    match addresses.iter().find(|address| TcpListener::bind(address).is_err()) {
        Some(taken) => Err(CliError::Failed(format!(
            "{taken} is taken: is another node running? {nodes} nodes need the ports {} to {last}; choose others with --http",
            first.port()
        ))),
        None => Ok(addresses),
    }
}

/// Addresses that nobody listens at, for streams and for datagrams: gossip has the port of the same number.
fn free_addresses(host: IpAddr, nodes: u16) -> Result<Vec<SocketAddr>, CliError> {
    let cannot = |e: std::io::Error| CliError::Failed(format!("no free port at {host}: {e}"));
    let (mut held, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..ATTEMPTS_MAX {
        let listener = TcpListener::bind((host, 0)).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        // Held until all are found, so that they differ.
        held.push(listener);
        if UdpSocket::bind(address).is_ok() {
            addresses.push(address);
        }
        if addresses.len() == usize::from(nodes) {
            return Ok(addresses);
        }
    }
    Err(CliError::Failed(format!("fewer than {nodes} free ports at {host}")))
}

/// Ports that are tried.
const ATTEMPTS_MAX: usize = 1_000;

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleet_keeps_its_peer_addresses_while_they_are_free_and_its_size() {
        let dir = tempfile::tempdir().expect("directory");
        let plan = Plan::make(dir.path(), 3, "127.0.0.1:0").expect("planned");
        assert_eq!(plan.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
        plan.write(&crate::traffic::demo::definitions::definitions()).expect("written");
        let peers = |plan: &Plan| plan.nodes.iter().map(|node| node.peer).collect::<Vec<_>>();
        let again = Plan::make(dir.path(), 3, "127.0.0.1:0").expect("planned");
        assert_eq!(peers(&again), peers(&plan));
        let _taken = TcpListener::bind(plan.nodes[1].peer).expect("free");
        assert_ne!(peers(&Plan::make(dir.path(), 3, "127.0.0.1:0").expect("planned")), peers(&plan));
        let other = Plan::make(dir.path(), 5, "127.0.0.1:0").expect_err("of three").to_string();
        assert!(other.contains("data of 3 nodes"), "{other}");
    }

    #[test]
    fn http_ports_follow_each_other_and_one_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = taken.local_addr().expect("address");
        let refused = http_addresses(1, &address.to_string()).expect_err("taken").to_string();
        assert!(refused.contains(&address.to_string()) && refused.contains("--http"), "{refused}");
        assert_eq!(http_addresses(3, "nowhere").expect_err("no address").exit_code(), 2);
        assert_eq!(http_addresses(3, "127.0.0.1:65534").expect_err("no third port").exit_code(), 2);
    }

    #[test]
    fn file_is_a_configuration_and_the_arguments_name_every_founder() {
        let dir = tempfile::tempdir().expect("directory");
        let plan = Plan::make(dir.path(), 2, "127.0.0.1:0").expect("planned");
        let definitions = crate::traffic::demo::definitions::definitions();
        plan.write(&definitions).expect("written");
        let table: toml::Table = fs::read_to_string(&plan.file).expect("read").parse().expect("TOML");
        assert_eq!(table["metrics"].as_array().map(Vec::len), Some(definitions.len()));
        let arguments = plan.arguments(&plan.nodes[1]);
        let join = arguments.iter().position(|argument| argument == "--join").expect("joins");
        assert_eq!(arguments[join + 1], format!("{},{}", plan.nodes[0].peer, plan.nodes[1].peer));
    }
}
