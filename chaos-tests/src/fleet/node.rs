//! One process of the real binary: started, signalled, killed, its log kept.

pub mod credentials;
pub mod http;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// What is shown of a log when something failed, in bytes.
const LOG_TAIL_BYTES: u64 = 6 << 10;

/// How a node is started, beside what every node of the fleet has.
#[derive(Clone, Debug, Default)]
pub struct Dressing {
    /// Runs the node: `strace ...`, `ip netns exec ...`. It must become the node, not start it as a child.
    pub wrapper: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    /// More arguments; of settings that are there twice the last one counts.
    pub args: Vec<OsString>,
    /// Flags whose value is another one.
    pub flags: Vec<(&'static str, OsString)>,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Up,
    Paused,
    Down,
}

struct Process {
    child: Option<Child>,
    paused: bool,
    dressing: Dressing,
    /// Of runs that are over.
    cpu_seconds: f64,
}

pub struct Node {
    pub name: String,
    pub http: SocketAddr,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    binary: PathBuf,
    args: Vec<OsString>,
    process: Mutex<Process>,
}

impl Node {
    pub fn new(name: String, http: SocketAddr, data_dir: PathBuf, log: PathBuf, binary: PathBuf, args: Vec<OsString>) -> Self {
        let process = Mutex::new(Process { child: None, paused: false, dressing: Dressing::default(), cpu_seconds: 0.0 });
        Self { name, http, data_dir, log, binary, args, process }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// From the next start on.
    pub async fn dress(&self, dressing: Dressing) {
        self.process.lock().await.dressing = dressing;
    }

    /// Starts the process; it is not waited for.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub async fn start(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        ensure!(process.child.is_none(), "{} runs already", self.name);
        let mut log = File::options().create(true).append(true).open(&self.log).with_context(|| self.log.display().to_string())?;
        writeln!(log, "---- {} starts", self.name)?;
        let mut words = process.dressing.wrapper.iter().cloned().chain([self.binary.clone().into_os_string()]);
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words).args(self.args_with(&process.dressing.flags)).args(&process.dressing.args);
        // Settings of whoever runs this are not the fleet's.
        let own = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("TALLYMESH_"));
        command.env_clear().envs(own).envs(process.dressing.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        process.child = Some(command.spawn().with_context(|| format!("starting {}", self.name))?);
        process.paused = false;
        Ok(())
    }

    fn args_with(&self, flags: &[(&str, OsString)]) -> Vec<OsString> {
        let mut args = self.args.clone();
        for (flag, value) in flags {
            if let Some(at) = args.iter().position(|arg| arg == flag) {
                args[at + 1].clone_from(value);
            }
        }
        args
    }

    pub async fn life(&self) -> Life {
        let mut process = self.process.lock().await;
        let paused = process.paused;
        match process.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) if paused => Life::Paused,
            Some(Ok(None)) => Life::Up,
            _ => Life::Down,
        }
    }

    /// Whether it ended by itself. Then it counts as down.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock().await;
        let status = process.child.as_mut()?.try_wait().ok()??;
        process.child = None;
        Some(status)
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.lock().await;
        kill_process(pid(process.child.as_ref())?, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// SIGKILL; nothing is flushed, nothing is told. Also what is paused dies.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        process.cpu_seconds += process.child.as_ref().map_or(0.0, cpu_seconds);
        let mut child = process.child.take().with_context(|| format!("{} does not run", self.name))?;
        child.kill().await.with_context(|| format!("killing {}", self.name))?;
        Ok(())
    }

    /// SIGSTOP: connections stay open, nobody answers.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP).await?;
        self.process.lock().await.paused = true;
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub async fn resume(&self) -> Result<()> {
        self.process.lock().await.paused = false;
        self.signal(Signal::CONT).await
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not run, or does not end in time; then it is killed.
    pub async fn terminate(&self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM).await?;
        let mut process = self.process.lock().await;
        let mut child = process.child.take().context("a process")?;
        let mut cpu = cpu_seconds(&child);
        let ended = tokio::time::timeout(patience, async {
            loop {
                // The last look before the end is what is known of it.
                match tokio::time::timeout(Duration::from_millis(20), child.wait()).await {
                    Ok(status) => return status,
                    Err(_) => cpu = cpu.max(cpu_seconds(&child)),
                }
            }
        })
        .await;
        process.cpu_seconds += cpu;
        match ended {
            Ok(status) => Ok(status?),
            Err(_) => {
                child.kill().await?;
                bail!("{} did not end within {patience:?} of SIGTERM", self.name)
            }
        }
    }

    /// Forgets everything that the node kept.
    ///
    /// # Errors
    /// It runs, or the directory cannot be removed.
    pub async fn wipe(&self) -> Result<()> {
        ensure!(self.life().await == Life::Down, "{} runs: it cannot be wiped", self.name);
        if self.data_dir.exists() {
            std::fs::remove_dir_all(&self.data_dir).with_context(|| self.data_dir.display().to_string())?;
        }
        Ok(())
    }

    /// CPU time of all its runs.
    pub async fn cpu_seconds(&self) -> f64 {
        let process = self.process.lock().await;
        process.cpu_seconds + process.child.as_ref().map_or(0.0, cpu_seconds)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("{}: {error}", self.log.display()))
    }
}

fn pid(child: Option<&Child>) -> Result<Pid> {
    let id = child.and_then(Child::id).context("the node does not run")?;
    Pid::from_raw(i32::try_from(id)?).context("a process id")
}

/// User and system time, from `/proc/PID/stat` (proc(5): fields 14 and 15, counted behind the name in brackets).
fn cpu_seconds(child: &Child) -> f64 {
    let read = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()?)).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    };
    read().unwrap_or(0.0)
}

fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
