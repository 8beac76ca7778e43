//! What a run came to, for people and (as JSON) for programs.

pub mod gaps;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::load::{Outcome, Record, What};
use super::nemesis::Fault;
use super::nemesis::plan::{Kind, Step};
use super::verify::Verdict;
use gaps::{Acks, Times, longest};

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub nodes: usize,
    /// Mutual TLS between them.
    pub tls: bool,
    pub replication: String,
    pub shards: u16,
    pub took_s: f64,
    pub events: usize,
    /// Requests of writers and probes.
    pub writes: Requests,
    pub reads: Requests,
    /// Batches that no ack had settled when the faults were over.
    pub resent_at_end: usize,
    pub verdict: Verdict,
    /// By kind of fault.
    pub faults: BTreeMap<Kind, OfKind>,
    /// Milliseconds of answers at nodes that were well, while others were not, and in quiet times.
    pub read_ms_during_faults: Times,
    /// The same of those that take a flagged answer.
    pub partial_read_ms_during_faults: Times,
    pub read_ms_quiet: Times,
    pub write_ms_quiet: Times,
    /// Requests that failed though only graceful things were done.
    pub failed_while_graceful: usize,
    /// Changes of leaders, and those that no fault explains.
    pub leader_changes: usize,
    pub leader_changes_unexplained: usize,
    pub cpu_seconds: f64,
    pub events_per_cpu_second: f64,
    /// Why requests failed, and how often.
    pub reasons: BTreeMap<String, u64>,
    pub schedule: Vec<Step>,
    pub findings: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Requests {
    pub ok: usize,
    pub flagged: usize,
    pub refused: usize,
    pub unknown: usize,
}

/// All times in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OfKind {
    pub times: usize,
    /// Longest time without an ack, of each shard that a victim led.
    pub write_gap: Times,
    /// The same of all other shards.
    pub write_gap_others: Times,
    /// Longest time without a complete answer, from any node.
    pub read_gap: Times,
    pub heal: Times,
}

/// What a report is made of.
pub struct Material<'a> {
    pub records: &'a [Record],
    pub faults: &'a [Fault],
    pub shards: u16,
}

impl Material<'_> {
    pub fn requests(&self, is: impl Fn(What) -> bool) -> Requests {
        let mut requests = Requests::default();
        for record in self.records.iter().filter(|record| is(record.what)) {
            *match record.outcome {
                Outcome::Ok => &mut requests.ok,
                Outcome::Flagged => &mut requests.flagged,
                Outcome::Refused => &mut requests.refused,
                Outcome::Unknown => &mut requests.unknown,
            } += 1;
        }
        requests
    }

    pub fn by_kind(&self) -> BTreeMap<Kind, OfKind> {
        let acks = Acks::of(self.records);
        let answered = |record: &&Record| record.what.is_read() && record.outcome == Outcome::Ok;
        let mut answers: Vec<f64> = self.records.iter().filter(answered).map(|record| record.ended_ms).collect();
        answers.sort_by(f64::total_cmp);
        let mut gaps: BTreeMap<Kind, [Vec<f64>; 4]> = BTreeMap::new();
        for fault in self.faults {
            let [led, others, read, heal] = gaps.entry(fault.step.kind).or_default();
            for shard in 0..self.shards {
                let gap = acks.gap(shard, fault.began_ms, fault.over_ms);
                if fault.led.contains(&shard) { led.push(gap) } else { others.push(gap) }
            }
            read.push(longest(&answers, fault.began_ms, fault.over_ms));
            heal.push(fault.heal_ms);
        }
        let of_kind = |(kind, [led, others, read, heal]): (Kind, [Vec<f64>; 4])| {
            let of_kind = OfKind {
                times: heal.len(),
                write_gap: Times::of(led),
                write_gap_others: Times::of(others),
                read_gap: Times::of(read),
                heal: Times::of(heal),
            };
            (kind, of_kind)
        };
        gaps.into_iter().map(of_kind).collect()
    }

    /// Answers at nodes that were well: while a fault lasted or healed, and else.
    pub fn times(&self, what: impl Fn(What) -> bool, during_faults: bool) -> Times {
        let in_fault =
            |record: &Record| self.faults.iter().any(|f| record.ended_ms >= f.began_ms && record.began_ms <= f.ended_ms + f.heal_ms);
        let counts = |record: &&Record| {
            what(record.what)
                && !record.at_victim
                && in_fault(record) == during_faults
                && matches!(record.outcome, Outcome::Ok | Outcome::Flagged)
        };
        Times::of(self.records.iter().filter(counts).map(|record| record.ended_ms - record.began_ms).collect())
    }

    /// Requests that failed after a graceful thing and before anything else was done. A node that has ended refuses connections until it is back: nothing was
    /// sent to it then.
    pub fn failed_while_graceful(&self) -> usize {
        let failed = |record: &&Record| matches!(record.outcome, Outcome::Unknown) && self.is_graceful(record.ended_ms);
        self.records.iter().filter(failed).count()
    }

    /// Whether the last thing that was done before a moment was a graceful one.
    pub fn is_graceful(&self, at_ms: f64) -> bool {
        let last = self.faults.iter().filter(|fault| fault.began_ms <= at_ms).max_by(|a, b| a.began_ms.total_cmp(&b.began_ms));
        last.is_some_and(|fault| fault.step.kind.is_graceful())
    }

    /// Whether a fault may be behind what happened at a moment.
    pub fn explains(&self, at_ms: f64) -> bool {
        const AFTERMATH_MS: f64 = 2_000.0;
        self.faults.iter().any(|fault| at_ms >= fault.began_ms && at_ms <= fault.over_ms + AFTERMATH_MS)
    }
}

impl Report {
    pub fn passed(&self) -> bool {
        self.findings.is_empty() && self.verdict.lost == 0 && self.verdict.twice == 0 && self.verdict.differences.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} nodes{}, replication {}, {} shards, {:.0} s",
            self.seed,
            self.nodes,
            if self.tls { " over TLS" } else { "" },
            self.replication,
            self.shards,
            self.took_s
        )?;
        writeln!(f, "events      {}, lost {}, counted twice {}", self.events, self.verdict.lost, self.verdict.twice)?;
        writeln!(
            f,
            "compared    {} answers, {} values, {} differences",
            self.verdict.questions,
            self.verdict.values,
            self.verdict.differences.len()
        )?;
        for (name, requests) in [("writes", self.writes), ("reads", self.reads)] {
            let Requests { ok, flagged, refused, unknown } = requests;
            writeln!(f, "{name:<11} {ok} ok, {flagged} flagged, {refused} refused, {unknown} without an answer")?;
        }
        writeln!(f, "at the end  {} batches sent again", self.resent_at_end)?;
        let quiet = |times: Times| format!("p50 {} p99 {} max {} ms", times.p50, times.p99, times.max);
        writeln!(
            f,
            "read        {} in quiet; during faults, at nodes that were well, {} for all or nothing, {} for all or a flagged part",
            quiet(self.read_ms_quiet),
            quiet(self.read_ms_during_faults),
            quiet(self.partial_read_ms_during_faults)
        )?;
        writeln!(f, "write       {} in quiet", quiet(self.write_ms_quiet))?;
        writeln!(f, "graceful    {} failed requests", self.failed_while_graceful)?;
        writeln!(f, "leaders     {} changes, {} without a fault", self.leader_changes, self.leader_changes_unexplained)?;
        writeln!(f, "CPU         {:.1} s of all nodes, {:.0} events a CPU-second", self.cpu_seconds, self.events_per_cpu_second)?;
        if !self.faults.is_empty() {
            writeln!(f, "\nms p50/p99/max   times  write gap (led by a victim)  write gap (others)      read gap                heal")?;
        }
        for (kind, of) in &self.faults {
            let cell = |times: Times| if times.count == 0 { "-".to_owned() } else { format!("{}/{}/{}", times.p50, times.p99, times.max) };
            let [led, others, read, heal] = [of.write_gap, of.write_gap_others, of.read_gap, of.heal].map(cell);
            writeln!(f, "{kind:<16} {:>5}  {led:<27}  {others:<22}  {read:<22}  {heal}", of.times)?;
        }
        if !self.reasons.is_empty() {
            writeln!(f, "\nfailures")?;
        }
        for (reason, times) in &self.reasons {
            writeln!(f, "{times:>6}  {reason}")?;
        }
        for (what, lines) in [("differences", &self.verdict.differences), ("FINDINGS", &self.findings)] {
            if !lines.is_empty() {
                writeln!(f, "\n{what}")?;
            }
            lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        writeln!(f, "\n{}", if self.passed() { "PASSED" } else { "FAILED" })
    }
}
