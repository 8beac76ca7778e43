//! What the single-fault tests share: a fleet, a few writes at a time, and the comparison at the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tallymesh_chaos_tests::fleet::load::ledger::Ledger;
use tallymesh_chaos_tests::fleet::load::stream::{Batch, DEFINITIONS, Shape};
use tallymesh_chaos_tests::fleet::load::{Load, What, writers};
use tallymesh_chaos_tests::fleet::node::http::Asked;
use tallymesh_chaos_tests::fleet::now::wall_ms;
use tallymesh_chaos_tests::fleet::verify::truth::Truth;
use tallymesh_chaos_tests::fleet::verify::{ALL_TIME, verify};
use tallymesh_chaos_tests::fleet::watch::Watch;
use tallymesh_chaos_tests::fleet::{Findings, Fleet, FleetOptions};
use tallymesh_chaos_tests::process::binary;
use tokio::time::Instant;

pub const PATIENCE: Duration = Duration::from_secs(60);
const SEED: u64 = 5;
const EVENTS_MAX: u16 = 200;

pub struct Desk {
    pub fleet: Arc<Fleet>,
    pub load: Arc<Load>,
    findings: Findings,
    number: u32,
}

pub fn options(nodes: usize) -> Result<FleetOptions> {
    let mut options = FleetOptions::new(nodes, binary()?);
    DEFINITIONS.clone_into(&mut options.config);
    Ok(options)
}

impl Desk {
    /// A fleet that is ready.
    pub async fn start(options: FleetOptions) -> Result<Self> {
        Ok(Self::at(Fleet::start(options).await?))
    }

    pub fn at(fleet: Fleet) -> Self {
        let (fleet, findings, began) = (Arc::new(fleet), Findings::default(), Instant::now());
        let watch = Arc::new(Watch::new(fleet.clone(), findings.clone(), began));
        let ledger = Ledger::new(SEED, findings.clone());
        let load = Arc::new(Load::new(fleet.clone(), watch, ledger, findings.clone(), began));
        Self { fleet, load, findings, number: 0 }
    }

    /// One batch; whether it was acked.
    pub async fn write(&mut self, node: usize) -> bool {
        self.number += 1;
        let shape = Shape::Mixed { events_max: EVENTS_MAX };
        let (place, request) = self.load.open(Batch { writer: node as u16, number: self.number, made_ms: wall_ms(), shape });
        self.load.attempt(place, &request, node, What::Write).await.is_some()
    }

    /// So many batches at each of these nodes, all of which must be acked.
    pub async fn write_some(&mut self, nodes: &[usize], batches: usize) -> Result<()> {
        for _ in 0..batches {
            for &node in nodes {
                ensure!(self.write(node).await, "n{} did not ack: {:?}\n{}", node + 1, self.load.reasons(), self.fleet.logs());
            }
        }
        Ok(())
    }

    /// Counts everything through one node.
    pub async fn count(&self, node: usize, partial: &str) -> Asked {
        let mut query = vec![("metric", "*"), ("partial", partial), ("timeout_ms", "3000")];
        query.extend(ALL_TIME);
        self.fleet.http.ask(&self.fleet.nodes[node], "/v1/query", &query, Duration::from_secs(10)).await
    }

    /// Everything is acked, then every answer of every node is right.
    pub async fn settle_and_compare(&self) -> Result<()> {
        self.fleet.all_ready(PATIENCE).await?;
        writers::settle(&self.load).await?;
        let verdict = verify(&self.fleet, &Truth::of(&self.load.ledger)).await?;
        ensure!(verdict.differences.is_empty(), "{}\n{}", verdict.differences.join("\n"), self.fleet.logs());
        ensure!(self.findings.list().is_empty(), "{}", self.findings.list().join("\n"));
        Ok(())
    }

    /// Waits until a node's log has this text since it was started last.
    pub async fn logged(&self, node: usize, text: &str) -> Result<()> {
        let log = &self.fleet.nodes[node];
        let said = async || {
            let whole = std::fs::read_to_string(&log.log).map_err(|e| e.to_string())?;
            let last = whole.rsplit(&format!("---- {} starts", log.name)).next().unwrap_or_default().to_owned();
            if last.contains(text) { Ok(()) } else { Err(format!("{} did not say `{text}`", log.name)) }
        };
        let began = Instant::now();
        while let Err(missing) = said().await {
            ensure!(began.elapsed() < PATIENCE, "{missing}\n{}", log.log_tail());
            tokio::time::sleep(tallymesh_chaos_tests::fleet::LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// A node's answer to `/ready` is no, now and a while later.
pub async fn stays_unready(fleet: &Fleet, node: usize, time: Duration) -> Result<String> {
    let began = Instant::now();
    loop {
        let said = fleet.http.ready(&fleet.nodes[node]).await;
        let why = said.err().with_context(|| format!("{} is ready and must not be\n{}", fleet.nodes[node].name, fleet.logs()))?;
        if began.elapsed() > time {
            return Ok(why);
        }
        tokio::time::sleep(tallymesh_chaos_tests::fleet::LOOK_EVERY).await;
    }
}
