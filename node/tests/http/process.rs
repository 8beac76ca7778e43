//! The program as a child: its exit codes, its signals, its words.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
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
    let (code, error) = with(&["--set", "retention.minute=3y"]);
    assert!(code == 2 && error.contains("retention.minute") && error.contains("retention.hour"), "{code} {error}");
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
fn a_directory_that_cannot_be_written_is_named() {
    // Nobody can make a directory here, not even the superuser.
    let (code, error) = run(serve(Path::new("/proc/tallymesh")));
    assert!(code == 1 && error.contains("/proc/tallymesh"), "{code} {error}");
}

/// The sum of a metric's series, by a client that keeps no connection.
fn metric(url: &str, name: &str) -> f64 {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").expect("a URL")).expect("connected");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

#[test]
fn five_thousand_idle_connections_cost_little_and_the_node_goes_on() {
    const IDLE: usize = 5_000;
    // As most shells and service managers start it: fewer files than connections, unless the node raises the limit itself.
    tallymesh_node::boot::open_files::raise_limit();
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut program = Command::new("sh");
    program.args(["-c", "ulimit -Sn 1024; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tallymesh")]);
    let of_serve = serve(dir.path());
    program.args(of_serve.get_args()).args(["--set", &format!("clients.connections_max={}", IDLE + 8)]);
    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let node = Running::start(program);
    let address = node.url.strip_prefix("http://").expect("a URL");
    let before = metric(&node.url, "process_resident_memory_bytes");
    let idle: Vec<TcpStream> = (0..IDLE)
        .map(|i| {
            let mut stream = TcpStream::connect(address).expect("connected");
            if i % 2 == 0 {
                // Half of them have asked something and stay open.
                stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
                let read = stream.read(&mut [0; 1_024]).expect("answered");
                assert!(read > 0);
            }
            stream
        })
        .collect();
    assert!(metric(&node.url, "tallymesh_http_connections") >= IDLE as f64);
    let each = (metric(&node.url, "process_resident_memory_bytes") - before) / IDLE as f64;
    println!("{each:.0} bytes of memory for each idle connection");
    assert!(each < 48_000.0, "{each} bytes for each idle connection");
    // A few places are left for this client; beyond them it is told so.
    let more: Vec<TcpStream> = (0..9).map(|_| TcpStream::connect(address).expect("connected")).collect();
    let mut refused = String::new();
    let _ = (&more[8]).read_to_string(&mut refused);
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("rate_limited"), "{refused}");
    drop(idle);
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
