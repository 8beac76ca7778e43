//! Shards that leave a node and come back.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tallymesh_chaos_tests::fleet::node::http::Asked;

use super::desk::{Desk, PATIENCE, options};

/// Files in the directories of a node's shards.
fn shard_files(data_dir: &Path) -> std::io::Result<Vec<String>> {
    let mut files = Vec::new();
    for shard in std::fs::read_dir(data_dir.join("shards"))? {
        for file in std::fs::read_dir(shard?.path())? {
            let file = file?;
            files.push(format!("{} ({} bytes)", file.path().display(), file.metadata()?.len()));
        }
    }
    Ok(files)
}

async fn drain(desk: &Desk, name: &str, drains: bool) -> Result<()> {
    let body = json!({ "node": name, "undo": !drains });
    match desk.fleet.http.post(&desk.fleet.nodes[0], "/v1/cluster/drain", &body, Duration::from_secs(10)).await {
        Asked::Answered(_) => Ok(()),
        other => anyhow::bail!("draining {name}: {other:?}"),
    }
}

/// Replicas on a node that keep up.
async fn replicas_on(desk: &Desk, name: &str) -> Result<usize, String> {
    let cluster = desk.fleet.cluster(0).await.map_err(|error| format!("{error:#}"))?;
    let node = cluster["nodes"].as_array().into_iter().flatten().find(|node| node["name"] == name);
    node.and_then(|node| node["replicas"].as_u64()).map(|count| count as usize).ok_or_else(|| cluster.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_went_elsewhere_leaves_no_bytes_and_comes_back_whole() -> Result<()> {
    let mut options = options(3)?;
    options.replication = "2".to_owned();
    options.settings = vec!["cluster.leftover_grace=3s".to_owned()];
    let mut desk = Desk::start(options).await?;
    desk.write_some(&[0, 1, 2], 20).await?;
    let left = desk.fleet.nodes[2].data_dir.clone();
    drain(&desk, "n3", true).await?;
    // A replica that is given up leaves a snapshot, so that it holds no log back.
    let left_behind = desk.fleet.until("something is left", PATIENCE, async || {
        let files = shard_files(&left).map_err(|error| error.to_string())?;
        if files.is_empty() { Err("there are no files".to_owned()) } else { Ok(()) }
    });
    left_behind.await?;
    let gone = desk.fleet.until("nothing is left of the shards", PATIENCE, async || {
        let files = shard_files(&left).map_err(|error| error.to_string())?;
        if files.is_empty() { Ok(()) } else { Err(files.join(", ")) }
    });
    gone.await?;
    desk.logged(2, "given up is removed").await?;
    for figure in ["tallymesh_leftovers_removed_total", "tallymesh_leftovers_removed_bytes_total"] {
        // What is gone from the disk is counted a moment later, once the log says so too.
        let counted = desk.fleet.until(figure, PATIENCE, async || match desk.fleet.http.figure(&desk.fleet.nodes[2], figure).await {
            Ok(value) if value >= 1.0 => Ok(()),
            Ok(value) => Err(format!("{value}")),
            Err(error) => Err(format!("{error:#}")),
        });
        counted.await?;
    }
    desk.write_some(&[0, 1, 2], 20).await?;
    // A node that starts with votes and without logs is a member like any other.
    desk.fleet.nodes[2].kill().await?;
    desk.fleet.nodes[2].start().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    drain(&desk, "n3", false).await?;
    let back = desk.fleet.until("shards are on all nodes again", PATIENCE, async || match replicas_on(&desk, "n3").await? {
        few if few < 10 => Err(format!("{few} replicas on n3")),
        _ => whole(&desk).await,
    });
    back.await?;
    desk.write_some(&[0, 1, 2], 10).await?;
    desk.settle_and_compare().await?;
    // What came back is what others have: it carries them.
    desk.fleet.nodes[1].kill().await?;
    desk.fleet.nodes[1].start().await?;
    desk.settle_and_compare().await
}

/// Every shard is where it is placed.
async fn whole(desk: &Desk) -> Result<(), String> {
    let cluster = desk.fleet.cluster(0).await.map_err(|error| format!("{error:#}"))?;
    let moves = |shard: &serde_json::Value| ["coming", "going"].iter().any(|key| shard[key].as_array().is_none_or(|of| !of.is_empty()));
    let moving = cluster["shards"].as_array().into_iter().flatten().find(|shard| moves(shard));
    moving.map_or(Ok(()), |shard| Err(shard.to_string()))
}
