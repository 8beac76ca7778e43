//! Does harm by a schedule, undoes it, and waits until the fleet is well again.

pub mod plan;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::Fleet;
use super::http::Asked;
use super::load::Load;
use super::node::Life;
use super::proxy::weather::{Way, Weather, between};
use plan::{Kind, Step};

/// All is well again within this time after a fault, or it is a finding.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// A drained node leads nothing within this time.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);
const DRAIN_LOOK: Duration = Duration::from_millis(100);
const CUT: Weather = Weather { cut: true, delay: Duration::ZERO, loss: 0.0 };
const SLOW: Weather = Weather { cut: false, delay: Duration::from_millis(30), loss: 0.05 };

/// A harm that was done. Times are milliseconds of the run.
#[derive(Clone, Debug)]
pub struct Fault {
    pub step: Step,
    pub victims: BTreeSet<usize>,
    /// Shards that the victims led.
    pub led: BTreeSet<u16>,
    pub began_ms: f64,
    pub ended_ms: f64,
    /// From the fault's end until every node was ready.
    pub heal_ms: f64,
    /// Before the next one.
    pub over_ms: f64,
}

/// Does one step, from the harm to the quiet time after it.
///
/// # Errors
/// The fleet is not well in time, or a process cannot be handled.
pub async fn step(load: &Load, step: &Step) -> Result<Fault> {
    let victims = victims(load, step);
    let led = victims.iter().flat_map(|&victim| load.watch.led_by(victim)).map(|shard| shard as u16).collect();
    let began_ms = load.now_ms();
    if !step.kind.is_graceful() {
        load.victims.lock().extend(&victims);
    }
    let done = harm(load, step, &victims).await;
    let ended_ms = load.now_ms();
    done.with_context(|| step.to_string())?;
    let healed = Instant::now();
    well(&load.fleet, HEALED_WITHIN).await.with_context(|| format!("after: {step}"))?;
    let heal_ms = healed.elapsed().as_secs_f64() * 1e3;
    load.victims.lock().clear();
    load.pause(step.then).await;
    Ok(Fault { step: step.clone(), victims, led, began_ms, ended_ms, heal_ms, over_ms: load.now_ms() })
}

/// Every node runs and is ready.
async fn well(fleet: &Fleet, patience: Duration) -> Result<()> {
    for node in &fleet.nodes {
        anyhow::ensure!(node.life().await == Life::Up, "{} does not run\n{}", node.name, node.log_tail());
    }
    fleet.all_ready(patience).await.map(drop)
}

fn victims(load: &Load, step: &Step) -> BTreeSet<usize> {
    let nodes = load.fleet.nodes.len();
    match step.kind {
        Kind::KillLeader | Kind::Pause => BTreeSet::from([load.watch.leader(step.target as u64).unwrap_or(step.target % nodes)]),
        Kind::KillAll | Kind::Rolling | Kind::Slow => (0..nodes).collect(),
        Kind::KillMajority => (0..nodes / 2 + 1).map(|i| (step.target + i) % nodes).collect(),
        Kind::NonTransitive => BTreeSet::from([step.target, step.other]),
        Kind::Kill | Kind::Isolate | Kind::OneWay | Kind::Restart | Kind::Wipe | Kind::Drain => BTreeSet::from([step.target]),
    }
}

async fn harm(load: &Load, step: &Step, victims: &BTreeSet<usize>) -> Result<()> {
    let fleet = &load.fleet;
    match step.kind {
        Kind::KillLeader | Kind::Kill | Kind::KillAll | Kind::KillMajority | Kind::Wipe => {
            for &victim in victims {
                fleet.nodes[victim].kill().await?;
            }
            load.pause(step.lasts).await;
            for &victim in victims {
                if step.kind == Kind::Wipe {
                    fleet.nodes[victim].wipe().await?;
                }
                fleet.nodes[victim].start().await?;
            }
        }
        Kind::Pause => {
            for &victim in victims {
                fleet.nodes[victim].pause().await?;
            }
            load.pause(step.lasts).await;
            for &victim in victims {
                fleet.nodes[victim].resume().await?;
            }
        }
        Kind::Isolate | Kind::OneWay | Kind::NonTransitive => {
            fleet.proxy.forecast.set(ways(fleet, step), CUT);
            load.pause(step.lasts).await;
            fleet.proxy.forecast.clear(step.break_off);
        }
        Kind::Slow => {
            let all: Vec<usize> = (0..fleet.nodes.len()).collect();
            fleet.proxy.forecast.set(between(&all, &all), SLOW);
            load.pause(step.lasts).await;
            fleet.proxy.forecast.clear(false);
        }
        Kind::Drain => {
            for &victim in victims {
                drain(load, victim, false).await?;
                led_away(load, victim).await?;
                load.pause(step.lasts).await;
                drain(load, victim, true).await?;
            }
        }
        Kind::Restart | Kind::Rolling => {
            for &victim in victims {
                fleet.terminate(victim).await?;
                load.pause(step.lasts).await;
                fleet.nodes[victim].start().await?;
                // An operator, or a service manager's roll-out, waits for this before the next one.
                fleet.all_ready(HEALED_WITHIN).await?;
            }
        }
    }
    Ok(())
}

/// Asks any other node, as an operator may.
async fn drain(load: &Load, victim: usize, undo: bool) -> Result<()> {
    let fleet = &load.fleet;
    let door = &fleet.nodes[(victim + 1) % fleet.nodes.len()];
    let body = serde_json::json!({ "node": fleet.nodes[victim].name, "undo": undo });
    match fleet.http.post(door, "/v1/cluster/drain", &body, DRAIN_TIME_MAX).await {
        Asked::Answered(_) => Ok(()),
        other => anyhow::bail!("{} was asked {body}: {other:?}", door.name),
    }
}

/// Until a node leads nothing.
async fn led_away(load: &Load, victim: usize) -> Result<()> {
    let deadline = Instant::now() + DRAIN_TIME_MAX;
    while !load.watch.led_by(victim).is_empty() {
        anyhow::ensure!(Instant::now() < deadline, "{} still leads after {DRAIN_TIME_MAX:?}", load.fleet.nodes[victim].name);
        load.pause(DRAIN_LOOK).await;
    }
    Ok(())
}

fn ways(fleet: &Fleet, step: &Step) -> Vec<Way> {
    let others: Vec<usize> = (0..fleet.nodes.len()).filter(|&node| node != step.target).collect();
    match step.kind {
        Kind::NonTransitive => between(&[step.target], &[step.other]),
        Kind::OneWay if step.other.is_multiple_of(2) => others.iter().map(|&other| (step.target, other)).collect(),
        Kind::OneWay => others.iter().map(|&other| (other, step.target)).collect(),
        _ => between(&[step.target], &others),
    }
}
