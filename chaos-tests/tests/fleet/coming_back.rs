//! Nodes that were away, wiped or frozen.

use anyhow::Result;

use super::desk::{Desk, PATIENCE, options};

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_is_rebuilt_and_then_carries_the_others() -> Result<()> {
    let mut desk = Desk::start(options(3)?).await?;
    desk.write_some(&[0, 1, 2], 10).await?;
    desk.fleet.nodes[2].kill().await?;
    desk.fleet.nodes[2].wipe().await?;
    desk.write_some(&[0, 1], 10).await?;
    desk.fleet.nodes[2].start().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    fully_replicated(&desk).await?;
    // What it holds must be whole: with it and one other, everything goes on.
    desk.fleet.nodes[0].kill().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    desk.write_some(&[1, 2], 5).await?;
    desk.fleet.nodes[0].start().await?;
    desk.settle_and_compare().await
}

/// Each shard has three replicas that keep up.
async fn fully_replicated(desk: &Desk) -> Result<()> {
    let whole = desk.fleet.until("every shard has three replicas", PATIENCE, async || {
        let cluster = desk.fleet.cluster(0).await.map_err(|error| format!("{error:#}"))?;
        let lacking = cluster["shards"].as_array().into_iter().flatten().find(|shard| {
            let mut voters = shard["replicas"].as_array().into_iter().flatten().filter(|replica| replica["role"] != "learner");
            let moves = ["coming", "going"].iter().any(|key| shard[key].as_array().is_none_or(|of| !of.is_empty()));
            // One that does not answer has applied nothing that is known.
            moves || voters.clone().count() != 3 || voters.any(|replica| replica["applied"].is_null())
        });
        lacking.map_or(Ok(()), |shard| Err(shard.to_string()))
    });
    whole.await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_that_wakes_up_acks_nothing_on_its_own() -> Result<()> {
    let mut desk = Desk::start(options(3)?).await?;
    desk.write_some(&[0, 1, 2], 5).await?;
    for frozen in [0, 1, 2] {
        desk.fleet.nodes[frozen].pause().await?;
        let others: Vec<usize> = (0..3).filter(|&node| node != frozen).collect();
        // Some wait for the new leaders and may be put off.
        for _ in 0..10 {
            for &node in &others {
                desk.write(node).await;
            }
        }
        desk.fleet.nodes[frozen].resume().await?;
        desk.write(frozen).await;
        desk.fleet.all_ready(PATIENCE).await?;
    }
    desk.settle_and_compare().await
}
