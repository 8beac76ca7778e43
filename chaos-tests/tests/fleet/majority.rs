//! Without a majority nothing is acked and nothing is said that is not known; with it again the fleet goes on by itself.

use anyhow::{Result, ensure};
use tallymesh_chaos_tests::fleet::load::SEND_TIME_MAX;
use tallymesh_chaos_tests::fleet::node::http::{Asked, Body, Sent};

use super::desk::{Desk, PATIENCE, options};

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_acks_nothing_and_says_so_and_the_majority_goes_on_when_it_is_back() -> Result<()> {
    let mut desk = Desk::start(options(3)?).await?;
    desk.write_some(&[0, 1, 2], 5).await?;
    for node in [1, 2] {
        desk.fleet.nodes[node].kill().await?;
    }
    let event = Body { bytes: br#"{"event":"lonely","event_id":"1"}"#.to_vec(), content_type: "application/json", gzip: false };
    match desk.fleet.http.send(&desk.fleet.nodes[0], event, SEND_TIME_MAX * 2).await {
        Sent::Unknown(said) if said.starts_with("503") => {}
        other => anyhow::bail!("503 is what a minority answers to writes: {other:?}"),
    }
    match desk.count(0, "fail").await {
        Asked::Problem(503 | 504, _) => {}
        other => anyhow::bail!("an error is what a minority answers to reads: {other:?}"),
    }
    match desk.count(0, "allow").await {
        Asked::Answered(answer) => ensure!(answer["receipt"]["complete"] == false, "flagged: {answer}"),
        Asked::Problem(503 | 504, _) => {}
        other => anyhow::bail!("a flagged answer or an error is what a minority answers to reads that allow it: {other:?}"),
    }
    ensure!(desk.fleet.http.ready(&desk.fleet.nodes[0]).await.is_err(), "a minority is not ready");
    desk.fleet.nodes[2].start().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    desk.write_some(&[0, 2], 5).await?;
    desk.fleet.nodes[1].start().await?;
    // The lonely event may have been kept; it is in no question that is compared, but in `*`: so it is sent for good and counted by nobody else.
    desk.fleet.all_ready(PATIENCE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_outlives_the_death_of_all_nodes_at_once() -> Result<()> {
    let mut desk = Desk::start(options(3)?).await?;
    for _ in 0..3 {
        desk.write_some(&[0, 1, 2], 5).await?;
        for node in &desk.fleet.nodes {
            node.kill().await?;
        }
        for node in &desk.fleet.nodes {
            node.start().await?;
        }
        desk.fleet.all_ready(PATIENCE).await?;
    }
    desk.settle_and_compare().await
}
