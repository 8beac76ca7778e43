//! Each node in a network namespace of its own, on one bridge: the kernel's own packets are dropped, ports go down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};

use super::{need_root, run};
use crate::fleet::Addresses;
use crate::fleet::node::Dressing;
use crate::fleet::proxy::{HTTP_PORT, PEER_PORT};

/// Host number of the first node; the bridge, from where clients come, is the last.
const FIRST_NODE: u8 = 1;
const BRIDGE: u8 = 254;

/// Namespaces, links and a bridge. Dropped, they are removed.
pub struct Namespaces {
    nodes: usize,
    /// In all names, so that two runs do not meet.
    tag: u8,
}

impl Namespaces {
    /// # Errors
    /// Not root, or what `ip` says.
    pub fn make(nodes: usize) -> Result<Self> {
        need_root("network namespaces")?;
        let namespaces = Self { nodes, tag: rand::random() };
        let bridge = namespaces.bridge();
        run(&["ip", "link", "add", &bridge, "type", "bridge"])?;
        run(&["ip", "addr", "add", &format!("{}/24", namespaces.address(BRIDGE)), "dev", &bridge])?;
        run(&["ip", "link", "set", &bridge, "up"])?;
        for node in 0..nodes {
            namespaces.make_one(node, &bridge).with_context(|| format!("the network of node {node}"))?;
        }
        Ok(namespaces)
    }

    fn make_one(&self, node: usize, bridge: &str) -> Result<()> {
        let (space, outer, inner) = (self.space(node), self.link(node), format!("tmi{}-{node}", self.tag));
        let address = format!("{}/24", self.address(FIRST_NODE + node as u8));
        run(&["ip", "netns", "add", &space])?;
        run(&["ip", "link", "add", &outer, "type", "veth", "peer", "name", &inner])?;
        run(&["ip", "link", "set", &inner, "netns", &space])?;
        run(&["ip", "link", "set", &outer, "master", bridge, "up"])?;
        for words in [
            vec!["ip", "addr", "add", &address, "dev", &inner],
            vec!["ip", "link", "set", &inner, "up"],
            vec!["ip", "link", "set", "lo", "up"],
            vec!["nft", "add table inet chaos"],
            vec!["nft", "add chain inet chaos input { type filter hook input priority 0 ; }"],
        ] {
            self.inside(node, &words)?;
        }
        Ok(())
    }

    fn inside(&self, node: usize, words: &[&str]) -> Result<()> {
        let space = self.space(node);
        let all: Vec<&str> = ["ip", "netns", "exec", space.as_str()].iter().chain(words).copied().collect();
        run(&all).map(drop)
    }

    fn bridge(&self) -> String {
        format!("tmbr{}", self.tag)
    }

    fn space(&self, node: usize) -> String {
        format!("tm{}-{node}", self.tag)
    }

    fn link(&self, node: usize) -> String {
        format!("tmo{}-{node}", self.tag)
    }

    fn address(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 213, self.tag, host))
    }

    pub fn addresses(&self) -> Vec<Addresses> {
        let of = |node: usize| {
            let address = self.address(FIRST_NODE + node as u8);
            let peer = SocketAddr::new(address, PEER_PORT);
            Addresses { http: SocketAddr::new(address, HTTP_PORT), peer, advertise: peer }
        };
        (0..self.nodes).map(of).collect()
    }

    /// For the node: it is in its namespace.
    pub fn dressing(&self, node: usize) -> Dressing {
        let wrapper = ["ip", "netns", "exec"].map(Into::into).into_iter().chain([self.space(node).into()]).collect();
        Dressing { wrapper, ..Dressing::default() }
    }

    /// Packets from one node to another are dropped where they arrive.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        let source = self.address(FIRST_NODE + from as u8);
        self.inside(to, &["nft", &format!("add rule inet chaos input ip saddr {source} drop")])
    }

    /// # Errors
    /// What `nft` says.
    pub fn heal(&self) -> Result<()> {
        (0..self.nodes).try_for_each(|node| self.inside(node, &["nft", "flush chain inet chaos input"]))
    }

    /// Pulls a node's cable, for clients too, or plugs it in again.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn plug(&self, node: usize, is_in: bool) -> Result<()> {
        run(&["ip", "link", "set", &self.link(node), if is_in { "up" } else { "down" }]).map(drop)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            // With the namespace its end of the link goes, and with that the other end.
            let _ = run(&["ip", "netns", "del", &self.space(node)]);
        }
        let _ = run(&["ip", "link", "del", &self.bridge()]);
    }
}
