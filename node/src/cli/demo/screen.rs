//! What a demo of several nodes shows: who is there, what to try, a line that keeps up, and what happened.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::super::output::grouped;
use super::super::output::paint::Paint;
use super::nodes::Nodes;

/// Elsewhere than on a terminal the line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// An ack that takes longer is shown while it does.
const SLOW_ACK: Duration = Duration::from_millis(500);

/// What one node looks like from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    #[default]
    Starting,
    /// It takes events and answers.
    Ready,
    /// It runs, and does not say that it is ready.
    NotReady,
    Gone,
}

impl Look {
    fn mark(self, paint: Paint, name: &str) -> String {
        match self {
            Self::Ready => format!("{} {name}", paint.green("●")),
            Self::Starting => format!("{} {name}", paint.dim("○")),
            Self::NotReady => format!("{} {name}", paint.yellow("◐")),
            Self::Gone => format!("{} {}", paint.red("✗"), paint.dim(name)),
        }
    }
}

/// What is known of the traffic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub acked: u64,
    pub per_second: f64,
    pub last_ack: Duration,
    /// Since when an ack is waited for.
    pub waiting_since: Option<Instant>,
}

pub struct Screen {
    pub paint: Paint,
    bar: ProgressBar,
    is_terminal: bool,
    last_line: Instant,
}

impl Screen {
    pub fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::new_spinner();
        bar.set_draw_target(if is_terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() });
        if let Ok(style) = ProgressStyle::with_template("  {msg}") {
            bar.set_style(style);
        }
        Self { paint: Paint::stderr(), bar, is_terminal, last_line: Instant::now() }
    }

    /// Something happened.
    pub fn say(&self, text: &str) {
        if self.is_terminal { self.bar.println(text) } else { eprintln!("{text}") }
    }

    pub fn starting(&self, names: &[String], looks: &[Look]) {
        self.bar.set_message(format!("Starting   {}", marks(self.paint, names, looks)));
    }

    pub fn keep_up(&mut self, names: &[String], looks: &[Look], traffic: Traffic) {
        let line = status(self.paint, names, looks, traffic);
        if self.is_terminal {
            self.bar.set_message(line);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{line}");
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn marks(paint: Paint, names: &[String], looks: &[Look]) -> String {
    names.iter().zip(looks).map(|(name, look)| look.mark(paint, name)).collect::<Vec<_>>().join("  ")
}

fn status(paint: Paint, names: &[String], looks: &[Look], traffic: Traffic) -> String {
    let waits = traffic.waiting_since.map(|since| since.elapsed()).filter(|waited| *waited >= SLOW_ACK);
    let ack = match waits {
        Some(waited) => paint.red(&format!("waiting for an ack for {:.1} s", waited.as_secs_f64())),
        None => format!("last ack took {} ms", traffic.last_ack.as_millis()),
    };
    let acked = grouped(&traffic.acked.to_string());
    format!("{}   {acked} events acked, {:.0}/s, {ack}", marks(paint, names, looks), traffic.per_second)
}

/// What there is, and what to do with it.
pub fn banner(paint: Paint, nodes: &Nodes, filled: &str, rate: f64) -> String {
    let plan = nodes.plan();
    let width = plan.nodes.iter().map(|node| node.http.to_string().len()).max().unwrap_or(0);
    let mut text = format!("\n  {}\n\n", paint.bold(&format!("Tallymesh demo: {} nodes, one cluster", plan.nodes.len())));
    for (node, pid) in plan.nodes.iter().zip(nodes.pids()) {
        let url = format!("http://{}/", node.http);
        let pid = pid.map_or("not running".to_owned(), |pid| format!("pid {pid}"));
        text.push_str(&format!(
            "  {}   {}{}   {pid}\n",
            paint.bold(&node.name),
            paint.cyan(&url),
            " ".repeat(width - node.http.to_string().len())
        ));
    }
    let first = format!("http://{}", plan.nodes[0].http);
    let last = nodes.pids().last().copied().flatten().map_or("PID".to_owned(), |pid| pid.to_string());
    let example = format!("kill -9 {last}");
    text.push_str(&format!(
        "
  Data     {}: {filled}
  Traffic  about {rate} events/s over all nodes, following the time of day; what one does not take another is given

  Watch    tallymesh cluster status --watch --url {first}
  Kill     {}    and see the others go on
  Ask      tallymesh query --metric '*' --agg count,users --range 1h --group-by event --order=-value --url {first}
  Logs     {}/*.log

  Ctrl-C stops all of them.
",
        plan.dir.display(),
        paint.bold(&example),
        plan.dir.display()
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_shows_who_is_there_and_how_long_an_ack_takes() {
        let names = ["n1", "n2", "n3"].map(str::to_owned);
        let looks = [Look::Ready, Look::Gone, Look::NotReady];
        let traffic = Traffic { acked: 12_345, per_second: 9.6, last_ack: Duration::from_millis(23), waiting_since: None };
        assert_eq!(status(Paint::NONE, &names, &looks, traffic), "● n1  ✗ n2  ◐ n3   12,345 events acked, 10/s, last ack took 23 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn ack_that_is_waited_for_is_told() {
        let traffic = Traffic { waiting_since: Some(Instant::now()), ..Traffic::default() };
        tokio::time::advance(Duration::from_millis(1_400)).await;
        assert!(status(Paint::NONE, &[], &[], traffic).ends_with("waiting for an ack for 1.4 s"));
    }
}
