//! The node under test: a child process on a directory of its own, and what it has used.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::load::Connection;
use crate::cli::CliError;

/// How long recovery and start may take.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(50);
/// A node that uses so little for so long has nothing left to do but to tick.
const QUIET_FOR: Duration = Duration::from_secs(2);
const QUIET_CPU_SECONDS: f64 = 0.06;
/// `/proc` tells CPU time in these on every Linux architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A node in a child process; killed when dropped.
pub struct ServerUnderTest {
    child: Child,
    address: String,
    data_dir: PathBuf,
    keep_data: bool,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system, all threads.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub resident_peak_bytes: u64,
}

impl ServerUnderTest {
    /// Starts this same program as `serve`, on `data_dir` or on a directory that is removed afterwards, and waits until it takes writes.
    ///
    /// # Errors
    /// It does not start, or not in time.
    pub async fn start(data_dir: Option<PathBuf>, settings: &[String]) -> Result<Self, CliError> {
        let failed = |what: &str, e: std::io::Error| CliError::Failed(format!("{what}: {e}"));
        let program = std::env::current_exe().map_err(|e| failed("cannot find this program", e))?;
        // Beside the working directory, not in memory: the log has to reach a disk.
        let keep_data = data_dir.is_some();
        let data_dir = data_dir.unwrap_or_else(|| PathBuf::from(format!("./tallymesh-data-bench-{}", std::process::id())));
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| failed("no free port", e))?.port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.arg("serve").arg("--data-dir").arg(&data_dir).args(["--http", &address, "--set", "logs.level=warn"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(|e| failed("cannot start a node", e))?;
        let mut server = Self { child, address, data_dir, keep_data };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<(), CliError> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(CliError::Failed(format!("the node under test stopped at once: {status}")));
            }
            if let Ok(mut connection) = Connection::open(&self.address).await
                && let Ok((200, _)) = connection.get("/ready").await
            {
                return Ok(());
            }
            if started.elapsed() > READY_WITHIN {
                return Err(CliError::Failed(format!("the node under test was not ready within {} s", READY_WITHIN.as_secs())));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// Bytes of all files, and of those of the log among them.
    pub fn disk_bytes(&self) -> (u64, u64) {
        let all = files(&self.data_dir);
        let is_log = |path: &Path| path.strip_prefix(&self.data_dir).is_ok_and(|p| p.iter().any(|part| part == "wal" || part == "log"));
        (all.iter().map(|(_, bytes)| bytes).sum(), all.iter().filter(|(path, _)| is_log(path)).map(|(_, bytes)| bytes).sum())
    }

    /// Waits until no shard holds open rows, that is until every window is sealed, and until the folding that follows has ended too.
    ///
    /// # Errors
    /// The node went away, does not tell, or takes longer than `within`.
    pub async fn wait_until_sealed(&self, within: Duration) -> Result<(), CliError> {
        let started = Instant::now();
        let mut connection = Connection::open(&self.address).await?;
        loop {
            let (_, body) = connection.get("/health").await?;
            match open_rows(&body) {
                Some(0) => break,
                None => return Err(CliError::Failed("the node does not tell how many rows are open".to_owned())),
                Some(rows) if started.elapsed() > within => {
                    return Err(CliError::Failed(format!("{rows} rows are still open after {} s", within.as_secs())));
                }
                Some(_) => tokio::time::sleep(POLL_EVERY * 4).await,
            }
        }
        loop {
            let before = self.usage().cpu_seconds;
            tokio::time::sleep(QUIET_FOR).await;
            if self.usage().cpu_seconds - before <= QUIET_CPU_SECONDS || started.elapsed() > within {
                return Ok(());
            }
        }
    }

    /// Ends it at once, as a power cut would but for the disk's cache, and keeps the data: its directory.
    pub fn kill(mut self) -> PathBuf {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.keep_data = true;
        self.data_dir.clone()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub async fn stop(mut self) -> Result<(), CliError> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let started = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(CliError::Failed(format!("the node under test ended badly: {status}"))),
                _ if started.elapsed() > STOP_WITHIN => {
                    return Err(CliError::Failed(format!("the node under test did not stop within {} s", STOP_WITHIN.as_secs())));
                }
                _ => tokio::time::sleep(POLL_EVERY).await,
            }
        }
    }
}

impl Drop for ServerUnderTest {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if !self.keep_data {
            let _ = std::fs::remove_dir_all(&self.data_dir);
        }
    }
}

impl Usage {
    /// Zero where `/proc` does not tell.
    pub fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Self::parse(&stat, &status).unwrap_or_default()
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name, in brackets, may hold spaces and brackets; utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        let kib = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
        Some(Self {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            resident_bytes: kib("VmRSS:")? * 1_024,
            resident_peak_bytes: kib("VmHWM:")? * 1_024,
        })
    }
}

/// Rows in windows that are not sealed, from an answer of `/health`.
fn open_rows(health: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(health).ok()?["buffered_events"].as_u64()
}

fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    // Files may be removed while they are listed.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => found.extend(files(&entry.path())),
            Ok(meta) => found.push((entry.path(), meta.len())),
            Err(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_also_when_the_name_holds_brackets() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 1000 1 1";
        let usage = Usage::parse(stat, "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n").expect("well-formed");
        assert_eq!(usage, Usage { cpu_seconds: 3.0, resident_bytes: 1 << 20, resident_peak_bytes: 2 << 20 });
        let own = Usage::of(std::process::id());
        assert!(own.resident_bytes > 1 << 20 && own.resident_peak_bytes >= own.resident_bytes / 2);
    }

    #[test]
    fn open_rows_that_are_not_told_are_not_none() {
        assert_eq!(open_rows(br#"{"status":"ok","buffered_events":7}"#), Some(7));
        assert_eq!([open_rows(br#"{"status":"ok"}"#), open_rows(b"gone")], [None, None]);
    }
}
