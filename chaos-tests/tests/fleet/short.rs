//! A short run of everything; long ones are `make chaos` and `tallymesh chaos`.

use std::time::Duration;

use anyhow::Result;
use tallymesh_chaos_tests::fleet::campaign::{CampaignOptions, Progress, run};
use tallymesh_chaos_tests::fleet::nemesis::plan::Kind;
use tallymesh_chaos_tests::fleet::report::Report;
use tallymesh_chaos_tests::process::binary;
use tokio::sync::watch;

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

#[tokio::test(flavor = "multi_thread")]
async fn one_node_keeps_its_promises_through_kills_and_pauses() -> Result<()> {
    let mut options = CampaignOptions::new(1, 1, binary()?);
    options.kinds = vec![Kind::KillLeader, Kind::Pause];
    options.steps_max = Some(4);
    options.lasts_max = Duration::from_secs(2);
    passes(&options).await.map(drop)
}
