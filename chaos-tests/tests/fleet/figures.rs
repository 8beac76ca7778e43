//! The figures that are promised of failovers. They take minutes and a machine that does nothing else: `make chaos-figures`.

use std::time::Duration;

use anyhow::{Result, ensure};
use tallymesh_chaos_tests::fleet::campaign::CampaignOptions;
use tallymesh_chaos_tests::fleet::nemesis::plan::Kind;
use tallymesh_chaos_tests::fleet::report::Report;
use tallymesh_chaos_tests::fleet::report::gaps::Times;
use tallymesh_chaos_tests::process::binary;

use super::short::passes;

const WRITE_GAP_P50_MS_MAX: f64 = 1_000.0;
const KILL_GAP_P99_MS_MAX: f64 = 2_500.0;
const SILENCE_GAP_P99_MS_MAX: f64 = 4_000.0;
const GRACEFUL_GAP_MS_MAX: f64 = 200.0;
const READ_P99_MS_MAX: f64 = 1_000.0;
/// Between two probes of one shard through one node, where short gaps are looked for.
const FINE_PROBE: Duration = Duration::from_millis(50);

/// How many faults; fewer for a shorter look.
fn times(default: usize) -> usize {
    std::env::var("TALLYMESH_CHAOS_TIMES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn options(seed: u64, kinds: &[Kind], steps: usize) -> Result<CampaignOptions> {
    let mut options = CampaignOptions::new(3, seed, binary()?);
    options.kinds = kinds.to_vec();
    options.steps_max = Some(steps);
    options.time = Duration::from_secs(24 * 3_600);
    options.lasts_max = Duration::from_secs(1);
    Ok(options)
}

fn at_most(what: &str, got: f64, most: f64) -> Result<()> {
    ensure!(got <= most, "{what}: {got} ms, {most} are promised");
    Ok(())
}

fn write_gap(report: &Report, kind: Kind) -> Times {
    report.faults[&kind].write_gap
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos-figures"]
async fn leaders_killed_three_hundred_times() -> Result<()> {
    let report = passes(&options(31, &[Kind::KillLeader], times(300))?).await?;
    let gap = write_gap(&report, Kind::KillLeader);
    at_most("write gap p50", gap.p50, WRITE_GAP_P50_MS_MAX)?;
    at_most("write gap p99", gap.p99, KILL_GAP_P99_MS_MAX)?;
    // Whoever wants all or nothing waits for the next leader.
    at_most("query p99 during failover, complete or flagged", report.partial_read_ms_during_faults.p99, READ_P99_MS_MAX)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos-figures"]
async fn leaders_that_fall_silent() -> Result<()> {
    let mut options = options(32, &[Kind::Pause, Kind::Isolate], times(60))?;
    options.lasts_max = Duration::from_secs(8);
    let report = passes(&options).await?;
    for kind in [Kind::Pause, Kind::Isolate] {
        at_most(&format!("write gap p99, {kind}"), write_gap(&report, kind).p99, SILENCE_GAP_P99_MS_MAX)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make chaos-figures"]
async fn nodes_that_are_asked_to_end() -> Result<()> {
    let mut options = options(33, &[Kind::Restart, Kind::Drain], times(60))?;
    // A gap is only seen as finely as is looked.
    options.probe_every = FINE_PROBE;
    let report = passes(&options).await?;
    for kind in [Kind::Restart, Kind::Drain] {
        at_most(&format!("write gap p99, {kind}"), write_gap(&report, kind).p99, GRACEFUL_GAP_MS_MAX)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour: make chaos-figures"]
async fn no_leader_changes_at_full_load() -> Result<()> {
    let mut options = options(34, &[], 0)?;
    options.steps_max = None;
    options.time = Duration::from_secs(60 * times(30) as u64);
    // As much as is taken, in many small requests: they cost more than their events, and all events of half an hour are compared at the end.
    options.writers = 12;
    options.writing.batches_per_second = 200.0;
    options.writing.events_max = 100;
    let report = passes(&options).await?;
    ensure!(report.leader_changes == 0, "{} leader changes, and nobody did any harm", report.leader_changes);
    Ok(())
}
