//! A whole run: a fleet, clients, harm by schedule, and at the end every answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::load::ledger::Ledger;
use super::load::writers::WriterOptions;
use super::load::{Load, What, probes, readers, stream, writers};
use super::nemesis::plan::{Kind, Outlines, Step, plan};
use super::nemesis::{self, Fault};
use super::report::gaps::rounded;
use super::report::{Material, Report};
use super::verify::truth::Truth;
use super::verify::{Verdict, verify};
use super::watch::Watch;
use super::{FOUNDED_WITHIN, Findings, Fleet, FleetOptions};

/// Before the first fault and after the last one, so that there is something to compare with.
const QUIET: Duration = Duration::from_secs(2);
/// A schedule is never longer; a step takes some seconds.
const STEPS_PER_SECOND: f64 = 0.5;
/// All replicas are equal within this time after the last write.
const EQUAL_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct CampaignOptions {
    pub fleet: FleetOptions,
    pub seed: u64,
    pub kinds: Vec<Kind>,
    /// Faults begin until this is over.
    pub time: Duration,
    /// No more faults than this.
    pub steps_max: Option<usize>,
    pub lasts_max: Duration,
    pub writers: u16,
    pub writing: WriterOptions,
    pub readers: u64,
    pub read_every: Duration,
    /// Between two probes of one shard through one node.
    pub probe_every: Duration,
    /// At the end all nodes are killed, and every answer is compared once more.
    pub power_cut_at_end: bool,
}

impl CampaignOptions {
    pub fn new(nodes: usize, seed: u64, binary: PathBuf) -> Self {
        let mut fleet = FleetOptions::new(nodes, binary);
        stream::DEFINITIONS.clone_into(&mut fleet.config);
        Self {
            fleet,
            seed,
            kinds: Kind::ALL.to_vec(),
            time: Duration::from_secs(60),
            steps_max: None,
            lasts_max: Duration::from_secs(60),
            writers: 2 * nodes as u16,
            writing: WriterOptions { batches_per_second: 5.0, events_max: 300, duplicates: 0.05 },
            readers: nodes as u64,
            read_every: Duration::from_millis(100),
            probe_every: Duration::from_millis(200),
            power_cut_at_end: true,
        }
    }

    /// What will be done, in this order, as far as the time lasts.
    pub fn schedule(&self) -> Vec<Step> {
        let most = (self.time.as_secs_f64() * STEPS_PER_SECOND).ceil() as usize;
        let steps = self.steps_max.unwrap_or(most);
        let kinds = self.kinds.iter().copied().filter(|kind| self.is_large_enough_for(*kind)).collect();
        let outlines = Outlines { nodes: self.fleet.nodes, shards: self.fleet.shards, kinds, steps, lasts_max: self.lasts_max };
        plan(self.seed, &outlines)
    }

    /// Whether the fleet has enough nodes for this kind; others are left out.
    pub fn is_large_enough_for(&self, kind: Kind) -> bool {
        self.fleet.nodes >= kind.nodes_min(self.fleet.copies())
    }
}

/// How far a run is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub elapsed: Duration,
    pub doing: String,
    pub faults: usize,
    pub acked: u64,
    pub findings: usize,
}

/// Runs it.
///
/// # Errors
/// The fleet could not even be started; everything else is in the report.
pub async fn run(options: &CampaignOptions, progress: &watch::Sender<Progress>) -> Result<Report> {
    progress.send_modify(|progress| "founding".clone_into(&mut progress.doing));
    let fleet = Arc::new(Fleet::start(options.fleet.clone()).await?);
    let report = run_on(&fleet, options, progress).await;
    if !report.as_ref().is_ok_and(Report::passed) {
        fleet.keep();
    }
    report
}

/// Runs it on a fleet that is ready.
///
/// # Errors
/// Not even the first events were taken.
pub async fn run_on(fleet: &Arc<Fleet>, options: &CampaignOptions, progress: &watch::Sender<Progress>) -> Result<Report> {
    let by_schedule = async |load: &Arc<Load>, faults: &mut Vec<Fault>| {
        for step in options.schedule() {
            if load.now_ms() > options.time.as_secs_f64() * 1e3 {
                break;
            }
            progress.send_modify(|progress| (progress.doing, progress.faults) = (step.to_string(), faults.len()));
            faults.push(nemesis::step(load, &step).await?);
        }
        while options.steps_max.is_none() && load.now_ms() < options.time.as_secs_f64() * 1e3 && load.pause(QUIET).await {}
        Ok(())
    };
    during(fleet, options, progress, by_schedule).await
}

/// Clients and the comparison at the end, around harm of any kind.
///
/// # Errors
/// Not even the first events were taken. What `harm` fails with is a finding.
pub async fn during(
    fleet: &Arc<Fleet>,
    options: &CampaignOptions,
    progress: &watch::Sender<Progress>,
    harm: impl AsyncFnOnce(&Arc<Load>, &mut Vec<Fault>) -> Result<()>,
) -> Result<Report> {
    let (findings, began) = (Findings::default(), Instant::now());
    let watching = Arc::new(Watch::new(fleet.clone(), findings.clone(), began));
    let ledger = Ledger::new(options.seed, findings.clone());
    let load = Arc::new(Load::new(fleet.clone(), watching.clone(), ledger, findings.clone(), began));
    let (mut tasks, unwatch) = (JoinSet::new(), CancellationToken::new());
    tasks.spawn(watching.run(unwatch.clone()));
    tasks.spawn(tell(load.clone(), progress.clone(), unwatch.clone()));
    let mut clients = clients(&load, options).await?;

    let mut faults = Vec::new();
    load.pause(QUIET).await;
    findings.check(harm(&load, &mut faults).await);
    load.pause(QUIET).await;
    let cpu_seconds = fleet.cpu_seconds().await;
    progress.send_modify(|progress| "settling".clone_into(&mut progress.doing));
    load.stop.cancel();
    while let Some(ended) = clients.join_next().await {
        findings.check(ended.context("a client"));
    }
    let (verdict, resent_at_end) = match at_end(&load, options, progress).await {
        Ok(end) => end,
        Err(error) => {
            findings.add(format!("{error:#}"));
            (Verdict::default(), 0)
        }
    };
    unwatch.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(report(&load, options, &faults, verdict, resent_at_end, cpu_seconds))
}

async fn clients(load: &Arc<Load>, options: &CampaignOptions) -> Result<JoinSet<()>> {
    let keys = probes::find_keys(load, options.fleet.shards).await?;
    let mut clients = JoinSet::new();
    for writer in 0..options.writers {
        clients.spawn(writers::run(load.clone(), writer, options.writing));
    }
    for reader in 0..options.readers {
        clients.spawn(readers::run(load.clone(), reader, options.writers.max(1), options.read_every));
    }
    for node in 0..load.fleet.nodes.len() {
        for (shard, &key) in keys.iter().enumerate() {
            clients.spawn(probes::run(load.clone(), node, shard as u16, key, options.probe_every));
        }
    }
    Ok(clients)
}

/// Everything is sent until it is acked, then everything is asked.
async fn at_end(load: &Arc<Load>, options: &CampaignOptions, progress: &watch::Sender<Progress>) -> Result<(Verdict, usize)> {
    let fleet = &load.fleet;
    fleet.proxy.forecast.clear(true);
    fleet.all_ready(FOUNDED_WITHIN).await?;
    load.findings.check(fleet.check_network());
    let resent = writers::settle(load).await?;
    progress.send_modify(|progress| "comparing every answer".clone_into(&mut progress.doing));
    let truth = Truth::of(&load.ledger);
    load.findings.check(replicas_equal(fleet).await);
    let mut verdict = verify(fleet, &truth).await?;
    if options.power_cut_at_end && verdict.differences.is_empty() {
        progress.send_modify(|progress| "killing all nodes, comparing once more".clone_into(&mut progress.doing));
        for node in &fleet.nodes {
            node.kill().await?;
        }
        for node in &fleet.nodes {
            node.start().await?;
        }
        fleet.all_ready(FOUNDED_WITHIN).await.context("after all nodes were killed")?;
        let again = verify(fleet, &truth).await.context("after all nodes were killed")?;
        verdict.questions += again.questions;
        verdict.values += again.values;
        (verdict.lost, verdict.twice) = (again.lost, again.twice);
        verdict.differences.extend(again.differences.iter().map(|difference| format!("after all nodes were killed: {difference}")));
    }
    Ok((verdict, resent))
}

/// The replicas of each shard come to the same place in its log and have the same state there.
async fn replicas_equal(fleet: &Fleet) -> Result<()> {
    let until = fleet.until("all replicas are equal", EQUAL_WITHIN, async || {
        let cluster = fleet.cluster(0).await.map_err(|error| format!("{error:#}"))?;
        for shard in cluster["shards"].as_array().into_iter().flatten() {
            let replicas = shard["replicas"].as_array().map_or(&[][..], Vec::as_slice);
            let state = |replica: &Value| (replica["applied"].clone(), replica["checksum"].clone());
            if replicas.iter().any(|replica| state(replica) != state(&replicas[0])) {
                return Err(format!("shard {}: {replicas:?}", shard["shard"]));
            }
        }
        Ok(())
    });
    until.await.map(drop)
}

async fn tell(load: Arc<Load>, progress: watch::Sender<Progress>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    while !stop.is_cancelled() {
        ticks.tick().await;
        progress.send_modify(|progress| {
            progress.elapsed = Duration::from_secs_f64(load.now_ms() / 1e3);
            progress.acked = load.ledger.bounds.least(None);
            progress.findings = load.findings.list().len();
        });
    }
}

fn report(load: &Load, options: &CampaignOptions, faults: &[Fault], verdict: Verdict, resent_at_end: usize, cpu_seconds: f64) -> Report {
    let records = load.records();
    let material = Material { records: &records, faults, shards: options.fleet.shards };
    let mut first = std::collections::BTreeSet::new();
    // The first sight of a shard's leader is no change.
    let changes: Vec<f64> =
        load.watch.changes().iter().filter(|change| !first.insert(change.shard)).map(|change| change.at.as_secs_f64() * 1e3).collect();
    let events = load.ledger.bounds.most(None) as usize;
    let mut findings = load.findings.list();
    let failed_while_graceful = material.failed_while_graceful();
    if failed_while_graceful > 0 {
        let mut why: Vec<String> = load.told().into_iter().filter(|(at, _)| material.is_graceful(*at)).map(|(_, why)| why).collect();
        why.sort_unstable();
        why.dedup();
        findings.push(format!(
            "{failed_while_graceful} requests failed though nodes were only asked to end, or to give or take shards: {}",
            why.join("; ")
        ));
    }
    Report {
        seed: options.seed,
        nodes: options.fleet.nodes,
        tls: options.fleet.tls,
        replication: options.fleet.replication.clone(),
        shards: options.fleet.shards,
        took_s: rounded(load.now_ms() / 1e3),
        events,
        writes: material.requests(|what| !what.is_read()),
        reads: material.requests(What::is_read),
        resent_at_end,
        verdict,
        faults: material.by_kind(),
        read_ms_during_faults: material.times(|what| what == What::Read, true),
        partial_read_ms_during_faults: material.times(|what| what == What::PartialRead, true),
        read_ms_quiet: material.times(What::is_read, false),
        write_ms_quiet: material.times(|what| !what.is_read(), false),
        failed_while_graceful,
        leader_changes: changes.len(),
        leader_changes_unexplained: changes.iter().filter(|&&at| !material.explains(at)).count(),
        cpu_seconds: rounded(cpu_seconds),
        events_per_cpu_second: rounded(events as f64 / cpu_seconds.max(0.001)),
        reasons: load.reasons(),
        schedule: faults.iter().map(|fault| fault.step.clone()).collect(),
        findings,
    }
}
