//! Does harm by a schedule, undoes it, and waits until the fleet is well again.

pub mod machine;
pub mod plan;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::Instant;

use super::Fleet;
use super::load::Load;
use super::node::http::Asked;
use super::node::{Life, Node};
use super::proxy::weather::{Way, Weather, between};
use plan::{Kind, Step};

/// All is well again within this time after a fault, or it is a finding.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// A drained node leads nothing within this time.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);
/// A shard is where it was moved within this time: two leads are handed over, each some seconds old, and a copy is brought up in between.
const MOVE_TIME_MAX: Duration = Duration::from_secs(90);
/// Every copy is there again within this time after a fault.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks at what an operator waits for.
const OPERATOR_LOOK: Duration = Duration::from_millis(100);
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
    let led = match step.kind {
        Kind::Move => BTreeSet::from([step.target as u16]),
        _ => victims.iter().flat_map(|&victim| load.watch.led_by(victim)).map(|shard| shard as u16).collect(),
    };
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
    // Another disk that is lost before, or another node that is asked to end, would be one too many for some shard.
    whole(&load.fleet).await.with_context(|| format!("after: {step}"))?;
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

/// Every shard has as many copies with a vote as it should, and each of them answers.
async fn whole(fleet: &Fleet) -> Result<()> {
    let copies = fleet.options.copies().min(fleet.nodes.len());
    let until = fleet.until("every shard has all its copies", WHOLE_WITHIN, async || {
        let cluster = fleet.cluster(0).await.map_err(|error| format!("{error:#}"))?;
        let lacks = |shard: &&Value| {
            let voters = rows(shard, "replicas").iter().filter(|replica| replica["role"] != "learner");
            let (all, there) = voters.fold((0, 0), |(all, there), voter| (all + 1, there + usize::from(!voter["applied"].is_null())));
            there < copies || there < all
        };
        rows(&cluster, "shards").iter().find(lacks).map_or(Ok(()), |shard| Err(shard.to_string()))
    });
    until.await.map(drop)
}

fn rows<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn victims(load: &Load, step: &Step) -> BTreeSet<usize> {
    let nodes = load.fleet.nodes.len();
    let in_a_row = |count: usize| (0..count).map(|i| (step.target + i) % nodes).collect();
    match step.kind {
        Kind::KillLeader | Kind::Pause | Kind::Move => {
            BTreeSet::from([load.watch.leader(step.target as u64).unwrap_or(step.target % nodes)])
        }
        Kind::KillAll | Kind::Rolling | Kind::Slow => (0..nodes).collect(),
        Kind::KillMajority => in_a_row(nodes / 2 + 1),
        Kind::KillMinority | Kind::IsolateMinority => in_a_row((nodes - 1) / 2),
        Kind::NonTransitive => BTreeSet::from([step.target, step.other]),
        Kind::Kill | Kind::Isolate | Kind::OneWay | Kind::Restart | Kind::Wipe | Kind::Drain => BTreeSet::from([step.target]),
    }
}

async fn harm(load: &Load, step: &Step, victims: &BTreeSet<usize>) -> Result<()> {
    let fleet = &load.fleet;
    match step.kind {
        Kind::KillLeader | Kind::Kill | Kind::KillAll | Kind::KillMajority | Kind::KillMinority | Kind::Wipe => {
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
        Kind::Isolate | Kind::OneWay | Kind::NonTransitive | Kind::IsolateMinority => {
            fleet.proxy.forecast.set(ways(fleet, step, victims), CUT);
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
        Kind::Move => move_shard(load, step).await?,
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
        load.pause(OPERATOR_LOOK).await;
    }
    Ok(())
}

/// Has a shard led by a node that has no copy of it, and waits until that is over.
async fn move_shard(load: &Load, step: &Step) -> Result<()> {
    let (fleet, deadline) = (&load.fleet, Instant::now() + MOVE_TIME_MAX);
    let door = &fleet.nodes[step.other % fleet.nodes.len()];
    let shard = async || {
        let cluster = fleet.http.get_ok(door, "/v1/cluster", &[]).await?;
        let shard = rows(&cluster, "shards").iter().find(|shard| shard["shard"] == step.target).cloned();
        shard.with_context(|| format!("{} knows no shard {}", door.name, step.target))
    };
    let to = loop {
        let now = shard().await?;
        let has_one = |node: &Node| ["placed", "going"].iter().any(|of| rows(&now, of).iter().any(|name| *name == *node.name));
        let free: Vec<&Node> = fleet.nodes.iter().filter(|node| !has_one(node)).collect();
        anyhow::ensure!(!free.is_empty(), "every node has a copy of shard {}: {now}", step.target);
        let to = &free[step.other % free.len()].name;
        let body = serde_json::json!({ "shard": step.target, "node": to });
        match fleet.http.post(door, "/v1/cluster/move", &body, MOVE_TIME_MAX).await {
            Asked::Answered(_) => break to,
            // The fleet itself had just moved it.
            Asked::Problem(_, detail) if detail.contains("has changed meanwhile") && Instant::now() < deadline => {}
            other => anyhow::bail!("{} was asked {body}: {other:?}", door.name),
        }
        load.pause(OPERATOR_LOOK).await;
    };
    let mut has_come = false;
    loop {
        let now = shard().await?;
        has_come |= rows(&now, "replicas").iter().any(|replica| replica["node"] == **to && replica["role"] != "learner");
        // The fleet goes on balancing itself: it may have the shard led by another node before this one ever led it.
        let leads = now["leader"] == **to || rows(&now, "placed").first().is_some_and(|first| *first != **to);
        if has_come && leads && rows(&now, "coming").is_empty() && rows(&now, "going").is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "shard {} is not led by {to} after {MOVE_TIME_MAX:?}: {now}", step.target);
        load.pause(OPERATOR_LOOK).await;
    }
}

fn ways(fleet: &Fleet, step: &Step, victims: &BTreeSet<usize>) -> Vec<Way> {
    let others: Vec<usize> = (0..fleet.nodes.len()).filter(|node| !victims.contains(node)).collect();
    match step.kind {
        Kind::NonTransitive => between(&[step.target], &[step.other]),
        Kind::OneWay if step.other.is_multiple_of(2) => others.iter().map(|&other| (step.target, other)).collect(),
        Kind::OneWay => others.iter().map(|&other| (other, step.target)).collect(),
        _ => between(&victims.iter().copied().collect::<Vec<_>>(), &others),
    }
}
