//! What the nodes of a fleet know each other by under TLS, made as an operator makes it: with `tallymesh cluster certs`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Keys are made within this time, also on a busy machine.
const MADE_WITHIN: Duration = Duration::from_secs(30);

/// A CA and a certificate for each node, as files.
#[derive(Clone, Debug)]
pub struct Credentials {
    dir: PathBuf,
}

impl Credentials {
    /// Makes what is missing in a directory.
    ///
    /// # Errors
    /// What the command says.
    pub async fn make(binary: &Path, dir: PathBuf, nodes: &[String]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["cluster", "certs", "--nodes", &nodes.join(","), "--dir"]).arg(&dir).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(MADE_WITHIN, command.output()).await;
        let output = output.with_context(|| format!("certificates take longer than {MADE_WITHIN:?}"))?.context("cluster certs")?;
        ensure!(output.status.success(), "cluster certs: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(Self { dir })
    }

    /// `--set` for this node.
    pub fn settings(&self, node: &str) -> [String; 3] {
        let path = |name: &str| self.dir.join(name).display().to_string();
        [("tls_ca", "ca.pem".to_owned()), ("tls_cert", format!("{node}.pem")), ("tls_key", format!("{node}-key.pem"))]
            .map(|(key, file)| format!("peer.{key}={}", path(&file)))
    }
}
