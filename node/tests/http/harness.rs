//! A node on a free port and a temporary directory.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tallymesh_node::boot::{BootError, Machine, RunningNode};
use tallymesh_node::config::Config;
use tallymesh_node::config::units::ByteSize;
use tallymesh_storage::disk::{Disk, DiskFile, ReadAt, RealDisk, Space};
use tempfile::TempDir;

pub struct TestNode {
    node: Option<RunningNode>,
    pub config: Config,
    pub machine: Machine,
    pub client: reqwest::Client,
    dir: TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

pub fn small_config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.http.addr = "127.0.0.1:0".to_owned();
    config.node.data_dir = dir.join("data").display().to_string();
    config.cluster.shards = 4;
    config.dedup.memory = ByteSize::mib(16);
    // A test machine's disk may be fuller than a server's.
    config.disk.readonly_below = ByteSize::mib(1);
    config
}

impl TestNode {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(Machine::this_one(), change).await
    }

    pub async fn start_on(machine: Machine, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut config = small_config(dir.path());
        change(&mut config);
        let node = RunningNode::start(config.clone(), machine.clone()).await.expect("starts");
        Self { node: Some(node), config, machine, client: reqwest::Client::new(), dir }
    }

    pub fn node(&self) -> &RunningNode {
        self.node.as_ref().expect("running")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.node().url())
    }

    pub async fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.shutdown().await;
        }
    }

    pub async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.stop().await;
        change(&mut self.config);
        self.node = Some(RunningNode::start(self.config.clone(), self.machine.clone()).await.expect("starts again"));
    }

    /// A second node on the same configuration.
    pub async fn start_another(&self, config: Config) -> Result<RunningNode, BootError> {
        RunningNode::start(config, self.machine.clone()).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn text(&self, path: &str) -> String {
        self.request(Method::GET, path).send().await.expect("answered").text().await.expect("text")
    }

    pub async fn post_json(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).header(CONTENT_TYPE, "application/json").body(body.to_string())).await
    }

    pub async fn post_ndjson(&self, body: impl Into<reqwest::Body>) -> Answer {
        answer(self.request(Method::POST, "/v1/events").header(CONTENT_TYPE, "application/x-ndjson").body(body)).await
    }

    /// Waits until a metric is as it should be.
    pub async fn until(&self, name: &str, holds: impl Fn(f64) -> bool) {
        in_time(name, async { while !holds(self.metric(name).await) {} }).await;
    }

    /// The sum of a metric over its series.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.text("/metrics").await;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(of_name).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// The longest that anything here may take, so that a broken node fails a test and does not hang it.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: nothing for {PATIENCE:?}"))
}

pub async fn answer(request: RequestBuilder) -> Answer {
    in_time("an answer", async {
        let response = request.send().await.expect("answered");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("text");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status: status.as_u16(), headers, body }
    })
    .await
}

impl Answer {
    /// Holds it against what every problem promises, and gives its code.
    #[track_caller]
    pub fn problem(&self) -> (u16, &str) {
        let header = |name: &str| self.headers.get(name).map(|v| v.to_str().expect("text").to_owned());
        assert_eq!(header("content-type").as_deref(), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], self.status, "{self:?}");
        assert!(self.body["title"].is_string() && self.body["type"].is_string() && self.body["detail"].is_string(), "{self:?}");
        assert_eq!(self.body["request_id"].as_str(), header("x-request-id").as_deref(), "{self:?}");
        let waits = [429, 503, 507].contains(&self.status) && self.body["retry_after_ms"].is_u64();
        assert_eq!(header("retry-after").is_some(), waits, "{self:?}");
        (self.status, self.body["code"].as_str().expect("code"))
    }

    #[track_caller]
    pub fn counts(&self) -> (u16, u64, u64, usize) {
        let number = |name: &str| self.body[name].as_u64().unwrap_or_else(|| panic!("{name} in {self:?}"));
        (self.status, number("count"), number("duplicates"), self.body["rejected"].as_array().expect("list").len())
    }

    pub fn is_ok(&self) -> bool {
        self.status == StatusCode::OK.as_u16()
    }
}

pub fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|i| format!("{{\"event\":\"page_view\",\"event_id\":\"e{i}\",\"source\":\"web\",\"user_id\":\"u{}\"}}\n", i % 7)).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("in memory")
}

pub fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// The real disk, with as much room as a test says.
pub struct TightDisk {
    pub free_bytes: Arc<AtomicU64>,
}

impl Disk for TightDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path)
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.append(path)
    }
    fn read(&self, path: &Path) -> io::Result<Bytes> {
        RealDisk.read(path)
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        RealDisk.read_at(path, offset, len)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        RealDisk.open(path)
    }
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        RealDisk.truncate(path, len)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn len(&self, path: &Path) -> io::Result<u64> {
        RealDisk.len(path)
    }
    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { free_bytes: self.free_bytes.load(Ordering::Relaxed), total_bytes: 1 << 40 })
    }
}
