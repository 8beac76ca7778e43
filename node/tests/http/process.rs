//! The program as a child: its exit codes, its signals, its words.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use super::harness::small_config;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallymesh"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_clear();
    command
}

fn serve(dir: &Path) -> Command {
    serve_on("127.0.0.1:0", dir)
}

fn serve_on(address: &str, dir: &Path) -> Command {
    let mut command = program();
    let free_disk = format!("disk.readonly_below={}", small_config(dir).disk.readonly_below);
    command.args(["serve", "--http", address, "--set", &free_disk, "--set", "cluster.shards=2"]);
    command.arg("--data-dir").arg(dir.join("data"));
    command
}

fn run(mut command: Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().expect("runs");
    (status.code().expect("no signal"), String::from_utf8_lossy(&stderr).into_owned())
}

/// A running node; killed if a test leaves it behind.
struct Running {
    child: Child,
    url: String,
    /// Kept open: a log that nobody can write to would end the node.
    log: BufReader<ChildStderr>,
}

impl Running {
    /// Starts it and reads its log up to the line that names the URL.
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let mut running = Self { child, url: String::new(), log };
        let mut line = String::new();
        while running.url.is_empty() {
            line.clear();
            assert!(running.log.read_line(&mut line).expect("UTF-8") > 0, "ended before it was ready");
            if let Some(at) = line.find("http://") {
                running.url = line[at..].split([' ', '"', '\n', '\u{1b}']).next().expect("a URL").to_owned();
            }
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn wrong_settings_exit_with_2_and_name_the_key() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let with = |args: &[&str]| {
        let mut command = serve(dir.path());
        command.args(args);
        run(command)
    };
    let (code, error) = with(&["--set", "http.adr=x"]);
    assert!(code == 2 && error.contains("http.adr") && error.contains("did you mean `http.addr`"), "{code} {error}");
    let (code, error) = with(&["--config", "/nowhere/cluster.toml"]);
    assert!(code == 2 && error.contains("/nowhere/cluster.toml"), "{code} {error}");
    let (code, error) = with(&["--no-such-flag"]);
    assert!(code == 2 && error.contains("--no-such-flag"), "{code} {error}");
    let mut command = serve(dir.path());
    command.env("TALLYMESH_WINDOWS__LATNESS", "1m");
    let (code, error) = run(command);
    assert!(code == 2 && error.contains("TALLYMESH_WINDOWS__LATNESS") && error.contains("windows.lateness"), "{code} {error}");
}

#[test]
fn a_signal_ends_it_with_0_and_what_cannot_start_exits_with_1() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut node = Running::start(serve(dir.path()));
        let (code, error) = run(serve(dir.path()));
        assert!(code == 1 && error.contains(&dir.path().join("data").display().to_string()), "{code} {error}");
        let port = node.url.strip_prefix("http://").expect("a URL");
        let (code, error) = run(serve_on(port, &dir.path().join("other")));
        assert!(code == 1 && error.contains("--http"), "{code} {error}");
        let id = rustix::process::Pid::from_child(&node.child);
        rustix::process::kill_process(id, signal).expect("signalled");
        assert_eq!(node.child.wait().expect("ended").code(), Some(0));
    }
}

#[test]
fn completions_are_printed() {
    let mut command = program();
    command.args(["completions", "bash"]);
    let output = command.output().expect("runs");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("tallymesh"));
}

#[test]
fn a_cut_table_says_that_there_is_more_also_as_csv() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let running = Running::start(serve(dir.path()));
    let file = dir.path().join("events.ndjson");
    std::fs::write(&file, "{\"event\":\"a\"}\n{\"event\":\"b\"}\n").expect("writes");
    let ask = |args: &[&str]| {
        let mut command = program();
        command.args(args).args(["--url", &running.url]);
        run(command)
    };
    assert_eq!(ask(&["seed", "--file", file.to_str().expect("UTF-8")]).0, 0);
    for format in ["csv", "table"] {
        let query = ["query", "--metric", "*", "--group-by", "event", "-o", format];
        let (code, said) = ask(&[&query[..], &["--limit", "1"]].concat());
        assert!(code == 0 && said.contains("--cursor"), "{format}: {code} {said}");
        let (code, said) = ask(&query);
        assert!(code == 0 && !said.contains("--cursor"), "{format}: {code} {said}");
    }
}
