//! The processes of a demo's nodes. They are in a process group of their own, so that Ctrl-C reaches the demo first and it ends them in order; if the demo itself
//! is killed they end too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::super::client::CliError;
use super::plan::{NodePlan, Plan};

/// Nodes that have not ended by then are killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What is shown of a node's log when it ends at once.
const LOG_LINES_SHOWN: usize = 12;
const LOG_BYTES_READ: u64 = 8 << 10;

pub struct Nodes {
    plan: Plan,
    program: PathBuf,
    children: Vec<Option<Child>>,
}

impl Nodes {
    /// # Errors
    /// A process could not be started.
    pub fn start(plan: Plan) -> Result<Self, CliError> {
        let program = std::env::current_exe().map_err(|e| CliError::Failed(format!("where this program is: {e}")))?;
        let mut nodes = Self { children: plan.nodes.iter().map(|_| None).collect(), plan, program };
        for at in 0..nodes.plan.nodes.len() {
            nodes.spawn(at)?;
        }
        Ok(nodes)
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Of each node; none of one that does not run.
    pub fn pids(&self) -> Vec<Option<u32>> {
        self.children.iter().map(|child| child.as_ref().map(Child::id)).collect()
    }

    /// The command that starts a node again.
    pub fn command(&self, at: usize) -> String {
        let words = std::iter::once(self.program.display().to_string()).chain(self.plan.arguments(&self.plan.nodes[at]));
        words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
    }

    /// # Errors
    /// The process could not be started.
    pub fn spawn(&mut self, at: usize) -> Result<(), CliError> {
        let node = &self.plan.nodes[at];
        let started = self.start_process(node);
        let child = started.map_err(|e| CliError::Failed(format!("node {} cannot be started: {e}", node.name)))?;
        self.children[at] = Some(child);
        Ok(())
    }

    fn start_process(&self, node: &NodePlan) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&node.log)?;
        Command::new(&self.program)
            .args(self.plan.arguments(node))
            .arg(format!("--ends-with={}", std::process::id()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
    }

    /// Those that have ended since the last look, with the process id that they had.
    pub fn ended(&mut self) -> Vec<(usize, u32, ExitStatus)> {
        let mut ended = Vec::new();
        for (at, child) in self.children.iter_mut().enumerate() {
            if let Some(running) = child
                && let Ok(Some(status)) = running.try_wait()
            {
                ended.push((at, running.id(), status));
                *child = None;
            }
        }
        ended
    }

    /// The end of a node's log.
    pub fn log_end(&self, at: usize) -> String {
        let lines = read_end(&self.plan.nodes[at].log).unwrap_or_else(|e| format!("cannot be read: {e}"));
        let lines: Vec<&str> = lines.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Asks all to end, waits for them, kills those that take too long; their names.
    pub async fn stop(mut self) -> Vec<String> {
        for child in self.children.iter().flatten() {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It may have ended this moment.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let began = Instant::now();
        while self.children.iter().any(Option::is_some) && began.elapsed() < STOP_TIME_MAX {
            self.ended();
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let late = self.children.iter().zip(&self.plan.nodes).filter(|(child, _)| child.is_some());
        late.map(|(_, node)| node.name.clone()).collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_end(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_READ)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// For a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// How a process ended, in words.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(9)) => "was killed (SIGKILL)".to_owned(),
        (_, Some(15)) => "was ended (SIGTERM)".to_owned(),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(0), None) => "ended".to_owned(),
        (code, None) => format!("ended with exit code {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted_into_a_shell() {
        for (word, shown) in
            [("--http", "--http"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("127.0.0.1:1,[::1]:2", "'127.0.0.1:1,[::1]:2'")]
        {
            assert_eq!(quoted(word), shown);
        }
    }

    #[test]
    fn end_of_a_process_is_told_in_words() {
        assert_eq!(how(ExitStatus::from_raw(9)), "was killed (SIGKILL)");
        assert_eq!(how(ExitStatus::from_raw(0)), "ended");
        assert_eq!(how(ExitStatus::from_raw(2 << 8)), "ended with exit code 2");
        assert_eq!(how(ExitStatus::from_raw(6)), "was ended by signal 6");
    }
}
