//! A short run of everything; long ones are `make chaos` and `tallymesh chaos`.

use std::time::Duration;

use anyhow::Result;
use tallymesh_chaos_tests::fleet::campaign::{CampaignOptions, Progress, run};
use tallymesh_chaos_tests::fleet::nemesis::plan::Kind;
use tallymesh_chaos_tests::fleet::report::Report;
use tallymesh_chaos_tests::process::binary;
use tokio::sync::watch;

/// Voters' leases on their leader last one and a half seconds: a lead that waits for them was not handed over. Half of those that are take far less, also on a busy machine.
const ELECTION_MS: f64 = 1_200.0;

pub async fn passes(options: &CampaignOptions) -> Result<Report> {
    for step in options.schedule() {
        eprintln!("will {step}");
    }
    let report = run(options, &watch::Sender::new(Progress::default())).await?;
    eprintln!("{report}");
    anyhow::ensure!(report.passed(), "seed {}: see above", report.seed);
    Ok(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_keep_their_promises_through_kills_pauses_cuts_and_restarts() -> Result<()> {
    let mut options = CampaignOptions::new(3, 2, binary()?);
    options.kinds = vec![
        Kind::KillLeader,
        Kind::Pause,
        Kind::Isolate,
        Kind::OneWay,
        Kind::NonTransitive,
        Kind::Restart,
        Kind::Kill,
        Kind::Wipe,
        Kind::Drain,
    ];
    options.steps_max = Some(9);
    options.lasts_max = Duration::from_secs(4);
    passes(&options).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_keep_their_promises_over_tls() -> Result<()> {
    let mut options = CampaignOptions::new(3, 4, binary()?);
    options.fleet.tls = true;
    options.kinds = vec![Kind::KillLeader, Kind::Isolate, Kind::Restart, Kind::Wipe];
    options.steps_max = Some(4);
    options.lasts_max = Duration::from_secs(2);
    passes(&options).await.map(drop)
}

/// Fewer shards than usual: what is looked for is in each of them, and two processors run it all.
fn five(seed: u64, replication: &str, kinds: &[Kind]) -> Result<CampaignOptions> {
    let mut options = CampaignOptions::new(5, seed, binary()?);
    options.fleet.shards = 4;
    replication.clone_into(&mut options.fleet.replication);
    options.kinds = kinds.to_vec();
    options.steps_max = Some(kinds.len());
    options.lasts_max = Duration::from_secs(3);
    Ok(options)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_with_five_copies_outlive_two_at_once_and_hand_over_without_an_election() -> Result<()> {
    let kinds = [Kind::KillMinority, Kind::IsolateMinority, Kind::Restart, Kind::Drain];
    let report = passes(&five(1, "5", &kinds)?).await?;
    for kind in [Kind::Restart, Kind::Drain] {
        let gap = report.faults[&kind].write_gap;
        anyhow::ensure!(gap.p50 < ELECTION_MS, "{kind}: half of the write gaps took {} ms and more: that is an election", gap.p50);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_with_three_copies_move_shards_and_lose_two_nodes_at_once() -> Result<()> {
    passes(&five(2, "3", &[Kind::Move, Kind::KillMinority, Kind::Drain, Kind::Move])?).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_keeps_its_promises_through_kills_and_pauses() -> Result<()> {
    let mut options = CampaignOptions::new(1, 1, binary()?);
    options.kinds = vec![Kind::KillLeader, Kind::Pause];
    options.steps_max = Some(4);
    options.lasts_max = Duration::from_secs(2);
    passes(&options).await.map(drop)
}
