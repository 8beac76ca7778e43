//! How far a long job is: a bar on a terminal, a line every few seconds elsewhere, always on stderr.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::grouped;

const LINE_EVERY: Duration = Duration::from_secs(2);

/// What the position of the bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Events,
    /// Of a file; events are told in the message.
    Bytes,
    /// Minutes of traffic.
    Minutes,
}

#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    is_terminal: bool,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// `total` in `unit`; `None` when it is not known.
    pub fn new(what: &'static str, total: Option<u64>, unit: Unit) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        bar.set_draw_target(if is_terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() });
        let counts = match unit {
            Unit::Events => "{human_pos}/{human_len}  ",
            Unit::Bytes => "{bytes}/{total_bytes}  ",
            Unit::Minutes => "{percent:>3} %  ",
        };
        let template = match total {
            Some(_) => format!("{{prefix}}  {{bar:32.cyan/blue}}  {counts}{{msg}}  {{eta}} left"),
            None => "{prefix}  {spinner}  {msg}  {elapsed}".to_owned(),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("━━╌"));
        }
        bar.set_prefix(what);
        let now = Instant::now();
        Self { bar, what, is_terminal, started: now, last_line: now }
    }

    /// `position` in the unit, and how many events that is.
    pub fn update(&mut self, position: u64, events: u64) {
        let per_second = events as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let text = format!("{} events, {}/s", grouped(&events.to_string()), grouped(&format!("{per_second:.0}")));
        self.bar.set_position(position);
        if self.is_terminal {
            self.bar.set_message(text);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let percent = self.bar.length().filter(|&l| l > 0).map(|l| format!("{} % ", position.min(l) * 100 / l)).unwrap_or_default();
            eprintln!("{}: {percent}{text}", self.what);
        }
    }

    /// A line above the bar.
    pub fn say(&self, line: &str) {
        if self.is_terminal {
            self.bar.println(line);
        } else {
            eprintln!("{line}");
        }
    }

    /// Takes the bar away and tells how long it took.
    pub fn finish(self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}
