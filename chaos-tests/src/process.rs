//! One node of the real binary, to be killed and started again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Client;
use serde_json::Value;

/// How long a node may take to become ready, in seconds.
const READY_SECONDS_MAX: u64 = 60;
/// Between two looks at a node that is starting, in milliseconds.
const POLL_MS: u64 = 20;
/// One look may take this long. A client's request that crosses the death of a node has been seen to wait for ever without a connection; another look
/// finds out that the node is there.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// The built binary: beside this test's own executable, or `TALLYMESH_BIN`.
///
/// # Errors
/// When it was not built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TALLYMESH_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let path = own.ancestors().nth(2).context("the test binary has no target directory")?.join("tallymesh");
    if !path.exists() {
        bail!("{} is not there: `cargo build` first, or name the binary in TALLYMESH_BIN", path.display());
    }
    Ok(path)
}

/// A running node. Dropped, it is killed.
pub struct Node {
    child: Child,
    pub url: String,
}

impl Node {
    /// A loopback address that was free a moment ago; the same one is used again after a kill, as an operator's node would.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn free_address() -> Result<String> {
        Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
    }

    /// Starts `tallymesh serve` and waits until it is ready.
    ///
    /// # Errors
    /// When it exits or is not ready in time; its standard error is passed through.
    pub async fn start(client: &Client, address: &str, config: &Path, data_dir: &Path) -> Result<Self> {
        let mut child = Command::new(binary()?)
            .args(["serve", "--http", address, "--set", "logs.level=warn"])
            .arg("--config")
            .arg(config)
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting tallymesh")?;
        let url = format!("http://{address}");
        let mut last = String::new();
        let ready = async {
            loop {
                if let Some(status) = child.try_wait()? {
                    bail!("the node ended while starting: {status}");
                }
                last = match client.get(format!("{url}/ready")).timeout(POLL_TIMEOUT).send().await {
                    Ok(answer) if answer.status().is_success() => return Ok(()),
                    Ok(answer) => format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()),
                    Err(error) => format!("{error:?}"),
                };
                tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(READY_SECONDS_MAX), ready).await;
        let result = waited.unwrap_or_else(|_| bail!("not ready after {READY_SECONDS_MAX} s; it last said: {last}"));
        let node = Self { child, url };
        result.map(|()| node)
    }

    /// SIGKILL; nothing is flushed, nothing is told.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the exit code.
    ///
    /// # Errors
    /// When the signal cannot be sent or the node does not end.
    pub fn terminate(mut self) -> Result<Option<i32>> {
        let sent = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status()?;
        anyhow::ensure!(sent.success(), "kill -TERM failed");
        Ok(self.child.wait()?.code())
    }

    /// `GET path`, which must answer 200 with JSON.
    ///
    /// # Errors
    /// Any other answer, with its body.
    pub async fn get(&self, client: &Client, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let answer = client.get(format!("{}{path}", self.url)).query(query).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "GET {path} {query:?}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.kill();
        }
    }
}
