//! A fleet of the real binary on this machine, and everything that can be done to it.
//!
//! [`Fleet`] starts and ends processes; all they say to each other goes through the [`proxy`]. [`campaign`] is a whole run: writers, readers and probes
//! ([`load`]) while a [`nemesis`] does harm by a schedule that follows from a seed, then every answer against plain maps ([`verify`]), then a [`report`].
//! Whatever is seen to be wrong on the way is a finding ([`Findings`]); a run without one has passed.

pub mod campaign;
pub mod load;
pub mod nemesis;
pub mod node;
pub mod now;
pub mod proxy;
pub mod report;
pub mod verify;
pub mod watch;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use node::credentials::Credentials;
use node::http::Http;
use node::{Life, Node};
use proxy::Proxy;

/// Between two looks at something that is waited for.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a fleet may take to found itself, and a node to end after SIGTERM.
pub const FOUNDED_WITHIN: Duration = Duration::from_secs(60);
const ENDED_WITHIN: Duration = Duration::from_secs(40);
/// Any one will do, of the length that is asked for.
const COOKIE: &str = "only-for-tests-0123456789abcdef";
/// What all nodes of a fleet are configured with, in its directory.
const CONFIG: &str = "cluster.toml";
/// Findings that are kept; the first ones tell most.
const FINDINGS_MAX: usize = 50;

/// Where a node listens, and where others dial it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub http: SocketAddr,
    pub peer: SocketAddr,
    pub advertise: SocketAddr,
}

/// What kind of fleet.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    pub nodes: usize,
    /// Nodes that found the cluster; the others join it. All by default.
    pub founders: Option<usize>,
    pub shards: u16,
    /// As in `cluster.replication`.
    pub replication: String,
    /// Mutual TLS between the nodes, by a CA that is made for this fleet.
    pub tls: bool,
    /// The program; see [`crate::process::binary`].
    pub binary: PathBuf,
    /// `--set` for every node.
    pub settings: Vec<String>,
    /// A configuration file, as text.
    pub config: String,
    /// Where nodes listen; each on a loopback address of its own, with the proxy between them, if this is empty.
    pub addresses: Vec<Addresses>,
    /// Kept there; a temporary directory else, which is kept when something went wrong.
    pub dir: Option<PathBuf>,
}

impl FleetOptions {
    pub fn new(nodes: usize, binary: PathBuf) -> Self {
        Self {
            nodes,
            founders: None,
            shards: 16,
            replication: "auto".to_owned(),
            tls: false,
            binary,
            settings: Vec::new(),
            config: String::new(),
            addresses: Vec::new(),
            dir: None,
        }
    }

    /// Copies of every shard, as the product takes it.
    pub fn copies(&self) -> usize {
        let auto = if self.founders.unwrap_or(self.nodes) >= 3 { 3 } else { 1 };
        self.replication.parse().unwrap_or(auto)
    }
}

/// Things that must not be, as they were seen.
#[derive(Clone, Default)]
pub struct Findings(Arc<Mutex<Vec<String>>>);

impl Findings {
    pub fn add(&self, finding: impl Into<String>) {
        let mut findings = self.0.lock();
        if findings.len() < FINDINGS_MAX {
            findings.push(format!("{}  {}", now::clock_time(), finding.into()));
        }
    }

    /// Adds the error of a check.
    pub fn check(&self, result: Result<()>) {
        if let Err(error) = result {
            self.add(format!("{error:#}"));
        }
    }

    pub fn list(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// Processes, their network and their directories. Dropped, the processes are killed; the directory stays if [`Fleet::keep`] was called.
pub struct Fleet {
    pub nodes: Vec<Node>,
    pub proxy: Proxy,
    pub http: Http,
    pub options: FleetOptions,
    dir: PathBuf,
    temporary: Mutex<Option<TempDir>>,
}

impl Fleet {
    /// Makes everything ready; no process runs yet.
    ///
    /// # Errors
    /// No free addresses, no directory, no certificates.
    pub async fn prepare(options: FleetOptions) -> Result<Self> {
        ensure!(!options.tls || options.nodes > 1, "TLS is between nodes: one node alone has nobody to talk to");
        let proxy = Proxy::open(options.nodes).await?;
        let (dir, temporary) = match &options.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("tallymesh-fleet-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        std::fs::write(dir.join(CONFIG), &options.config)?;
        let addresses: Vec<Addresses> = match options.addresses.as_slice() {
            [] => (0..options.nodes).map(|node| proxy.subnet.addresses(node)).collect(),
            given => given.to_vec(),
        };
        let credentials = if options.tls {
            let names: Vec<String> = (0..options.nodes).map(name_of).collect();
            Some(Credentials::make(&options.binary, dir.join("certs"), &names).await?)
        } else {
            None
        };
        let make = |node| make_node(node, &addresses, &options, credentials.as_ref(), &dir);
        let nodes = (0..options.nodes).map(make).collect();
        Ok(Self { nodes, proxy, http: Http::new()?, options, dir, temporary: Mutex::new(temporary) })
    }

    /// Starts all nodes and waits until each is ready.
    ///
    /// # Errors
    /// They are not in time; the error has what they logged.
    pub async fn start(options: FleetOptions) -> Result<Self> {
        let fleet = Self::prepare(options).await?;
        for node in &fleet.nodes {
            node.start().await?;
        }
        fleet.all_ready(FOUNDED_WITHIN).await?;
        fleet.check_network()?;
        Ok(fleet)
    }

    /// Whether the nodes talk as they should: through the proxy, if it is between them, and inside TLS, if they have it.
    ///
    /// # Errors
    /// They do not.
    pub fn check_network(&self) -> Result<()> {
        if self.nodes.len() > 1 && self.options.addresses.is_empty() {
            self.proxy.check_senders()?;
            if self.options.tls {
                self.proxy.check_tls()?;
            }
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory outlives the fleet.
    pub fn keep(&self) {
        if let Some(temporary) = self.temporary.lock().take() {
            let _ = temporary.keep();
        }
    }

    pub fn number(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// Waits until every node that runs is ready; how long that took.
    ///
    /// # Errors
    /// Not in time, or one ended; with what the nodes say and logged.
    pub async fn all_ready(&self, patience: Duration) -> Result<Duration> {
        self.until("every node is ready", patience, async || {
            let mut not_yet = Vec::new();
            for node in &self.nodes {
                if node.life().await == Life::Up
                    && let Err(reason) = self.http.ready(node).await
                {
                    not_yet.push(format!("{}: {reason}", node.name));
                }
            }
            if not_yet.is_empty() { Ok(()) } else { Err(not_yet.join("; ")) }
        })
        .await
    }

    /// Looks again and again until `holds`; its error says what is still missing.
    ///
    /// # Errors
    /// Not in time, or a node ended by itself meanwhile.
    pub async fn until(&self, what: &str, patience: Duration, mut holds: impl AsyncFnMut() -> Result<(), String>) -> Result<Duration> {
        let began = Instant::now();
        loop {
            for node in &self.nodes {
                if let Some(status) = node.ended().await {
                    bail!("{} ended by itself ({status}) while waiting until {what}\n{}", node.name, self.logs());
                }
            }
            let Err(missing) = holds().await else { return Ok(began.elapsed()) };
            if began.elapsed() > patience {
                bail!("not true after {patience:?} that {what}: {missing}\n{}", self.logs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// `GET /v1/cluster` as a node sees it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn cluster(&self, node: usize) -> Result<Value> {
        self.http.get_ok(&self.nodes[node], "/v1/cluster", &[]).await
    }

    /// SIGTERM, as an operator would; exit code 0 is expected.
    ///
    /// # Errors
    /// It does not end in time or not well.
    pub async fn terminate(&self, node: usize) -> Result<()> {
        let status = self.nodes[node].terminate(ENDED_WITHIN).await?;
        if !status.success() {
            bail!("{} ended with {status} after SIGTERM\n{}", self.nodes[node].name, self.nodes[node].log_tail());
        }
        Ok(())
    }

    /// CPU seconds of all processes.
    pub async fn cpu_seconds(&self) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.cpu_seconds().await;
        }
        sum
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        self.nodes.iter().map(|node| format!("==== {} ({})\n{}\n", node.name, node.log.display(), node.log_tail())).collect()
    }
}

fn name_of(number: usize) -> String {
    format!("n{}", number + 1)
}

fn make_node(number: usize, addresses: &[Addresses], options: &FleetOptions, credentials: Option<&Credentials>, dir: &Path) -> Node {
    let (name, own) = (name_of(number), addresses[number]);
    let data_dir = dir.join(&name);
    let mut args: Vec<OsString> = ["serve", "--node", &name, "--config"].map(OsString::from).to_vec();
    args.extend([dir.join(CONFIG).into(), "--data-dir".into(), data_dir.clone().into(), "--http".into(), own.http.to_string().into()]);
    if options.nodes > 1 {
        let founders = options.founders.unwrap_or(options.nodes);
        let founders: Vec<String> = addresses[..founders].iter().map(|founder| founder.advertise.to_string()).collect();
        args.extend(["--peer".into(), own.peer.to_string().into()]);
        args.extend(["--advertise".into(), own.advertise.to_string().into()]);
        args.extend(["--join".into(), founders.join(",").into()]);
        let common = [format!("cluster.replication={}", options.replication), format!("peer.cookie={COOKIE}")];
        for setting in common.into_iter().chain(credentials.into_iter().flat_map(|credentials| credentials.settings(&name))) {
            args.extend(["--set".into(), setting.into()]);
        }
    }
    // A test machine's disk may be fuller than a server's.
    for setting in [format!("cluster.shards={}", options.shards), "disk.readonly_below=1MiB".to_owned()] {
        args.extend(["--set".into(), setting.into()]);
    }
    for setting in &options.settings {
        args.extend(["--set".into(), setting.into()]);
    }
    Node::new(name.clone(), own.http, data_dir, dir.join(format!("{name}.log")), options.binary.clone(), args)
}
