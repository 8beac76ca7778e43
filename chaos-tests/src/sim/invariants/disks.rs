//! No damage without a cause: a log or a snapshot is damaged, and a replica stops, only where a disk was made to fail.

use std::collections::BTreeSet;

use tallymesh_storage::wal::Recovered;

/// Stops that are no disk's: a panic is a finding of its own; and openraft ends the whole replica when it wants to send a snapshot over a replication stream that
/// has just ended because its follower knows a newer term. A restart mends that.
const KNOWN: [&str; 2] = ["panicked", "replication channel closed"];

#[derive(Default)]
pub struct Disks {
    /// Nodes on whose disks bits were turned.
    flipped: BTreeSet<u64>,
    /// Nodes on whose disks something failed since their process began.
    failing: BTreeSet<u64>,
    pub found: Vec<String>,
}

impl Disks {
    pub fn flip(&mut self, node: u64) {
        self.flipped.insert(node);
    }

    pub fn is_flipped(&self, node: u64) -> bool {
        self.flipped.contains(&node)
    }

    pub fn fail(&mut self, node: u64) {
        self.failing.insert(node);
    }

    pub fn begin(&mut self, node: u64) {
        self.failing.remove(&node);
    }

    pub fn recovered(&mut self, node: u64, recovered: &Recovered) {
        if self.is_flipped(node) {
            return;
        }
        // A mark at the end of a file whose own sync failed is noted as damage of nobody: what it says is said again by the next file.
        let harms = recovered.damage.iter().filter(|damage| !damage.groups.is_empty() || damage.stops_unknown_groups);
        self.found.extend(harms.map(|damage| format!("n{node}: {} of {:?}", damage.error(), damage.groups)));
    }

    /// A node does not start, or a replica stopped.
    pub fn stopped(&mut self, node: u64, why: &str) {
        if KNOWN.iter().any(|known| why.contains(known)) {
            return;
        }
        if !self.is_flipped(node) && !self.failing.contains(&node) {
            self.found.push(format!("n{node}: {why}"));
        }
    }
}
