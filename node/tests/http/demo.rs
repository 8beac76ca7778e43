//! `tallymesh demo --nodes N` as a process with children: a fleet that can be watched, hurt and ended.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

struct Demo {
    child: Child,
    said: BufReader<ChildStderr>,
    /// Of the nodes, as the banner tells them.
    pids: Vec<Pid>,
}

impl Demo {
    fn start(dir: &Path, nodes: usize, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallymesh"));
        command.args(["demo", "--nodes", &nodes.to_string(), "--rate", "0.2", "--http", "127.0.0.1:0", "--data-dir"]).arg(dir).args(flags);
        command.env_clear().env("TALLYMESH_DISK__READONLY_BELOW", "1MiB");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let said = BufReader::new(child.stderr.take().expect("piped"));
        let mut demo = Self { child, said, pids: Vec::new() };
        while demo.pids.len() < nodes {
            let line = demo.line();
            demo.pids.extend(pid_in(&line));
        }
        demo
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.said.read_line(&mut line).expect("UTF-8") > 0, "it ended");
        line
    }

    /// Reads on until it says this; the line.
    fn until(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    fn all_end(&self) {
        let gone = |pid: &Pid| test_kill_process(*pid).is_err() || is_zombie(*pid);
        for _ in 0..PATIENCE.as_millis() / LOOK_EVERY.as_millis() {
            if self.pids.iter().all(gone) {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "a process of somebody else ends, and nobody says so")]
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("nodes are left behind: {:?}", self.pids);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its nodes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid_in(line: &str) -> Option<Pid> {
    let at = line.find("pid ")?;
    let digits: String = line[at + 4..].chars().take_while(char::is_ascii_digit).collect();
    Pid::from_raw(digits.parse().ok()?)
}

/// Ended, and its new parent has not noticed yet.
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[test]
fn three_nodes_go_on_without_one_start_it_again_when_asked_and_end_together() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut demo = Demo::start(dir.path(), 3, &["--restart"]);
    kill_process(demo.pids[1], Signal::KILL).expect("killed");
    demo.until("n2 (pid");
    let again = demo.until("n2 is started again");
    demo.pids[1] = pid_in(&again).expect("a new process");
    let since = demo.until("since n2 went");
    assert!(since.contains("the longest wait for an ack was"), "{since}");
    kill_process(Pid::from_child(&demo.child), Signal::INT).expect("signalled");
    demo.until("Stopped. Nothing is lost");
    assert_eq!(demo.child.wait().expect("ended").code(), Some(0));
    demo.all_end();

    let mut other = Command::new(env!("CARGO_BIN_EXE_tallymesh"));
    let refused = other.args(["demo", "--nodes", "2", "--http", "127.0.0.1:0", "--data-dir"]).arg(dir.path()).output().expect("runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("data of 3 nodes"));
}

#[test]
fn nodes_of_a_demo_that_is_killed_end_too() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut demo = Demo::start(dir.path(), 2, &[]);
    demo.child.kill().expect("killed");
    demo.child.wait().expect("ended");
    demo.all_end();
}
