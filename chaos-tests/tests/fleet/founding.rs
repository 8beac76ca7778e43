//! How a fleet comes to be, and who is kept out of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tallymesh_chaos_tests::fleet::node::credentials::Credentials;
use tallymesh_chaos_tests::fleet::node::{Dressing, Life};
use tallymesh_chaos_tests::fleet::{Fleet, FleetOptions};

use super::desk::{Desk, PATIENCE, options, stays_unready};

/// Long enough for a mistake to show.
const A_WHILE: Duration = Duration::from_secs(4);

fn with(args: &[&str]) -> Dressing {
    Dressing { args: args.iter().map(Into::into).collect(), ..Dressing::default() }
}

/// Three founders, and a fourth node that was not started.
async fn three_and_a_guest() -> Result<Desk> {
    three_and_a_guest_of(options(4)?).await
}

async fn three_and_a_guest_of(mut options: FleetOptions) -> Result<Desk> {
    options.founders = Some(3);
    let fleet = Fleet::prepare(options).await?;
    for node in &fleet.nodes[..3] {
        node.start().await?;
    }
    fleet.all_ready(PATIENCE).await?;
    Ok(Desk::at(fleet))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cluster_is_founded_once_all_founders_are_there_in_any_order() -> Result<()> {
    let fleet = Fleet::prepare(options(3)?).await?;
    fleet.nodes[2].start().await?;
    fleet.nodes[0].start().await?;
    for node in [0, 2] {
        stays_unready(&fleet, node, A_WHILE).await?;
    }
    // One that was there comes back while it waits.
    fleet.nodes[0].kill().await?;
    fleet.nodes[0].start().await?;
    fleet.nodes[1].start().await?;
    fleet.all_ready(PATIENCE).await?;
    let mut desk = Desk::at(fleet);
    desk.write_some(&[0, 1, 2], 5).await?;
    desk.settle_and_compare().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_of_another_cluster_name_founds_nothing_with_the_others() -> Result<()> {
    let fleet = Fleet::prepare(options(3)?).await?;
    fleet.nodes[1].dress(with(&["--set", "cluster.name=another"])).await;
    for node in &fleet.nodes {
        node.start().await?;
    }
    for node in 0..3 {
        stays_unready(&fleet, node, A_WHILE).await?;
    }
    let desk = Desk::at(fleet);
    desk.logged(1, "another").await?;
    // The operator mends it.
    desk.fleet.nodes[1].kill().await?;
    desk.fleet.nodes[1].dress(Dressing::default()).await;
    desk.fleet.nodes[1].start().await?;
    desk.fleet.all_ready(PATIENCE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn founders_that_are_configured_differently_say_so_and_found_nothing() -> Result<()> {
    let fleet = Fleet::prepare(options(3)?).await?;
    fleet.nodes[2].dress(with(&["--set", "cluster.shards=8"])).await;
    for node in &fleet.nodes {
        node.start().await?;
    }
    stays_unready(&fleet, 0, A_WHILE).await?;
    let desk = Desk::at(fleet);
    desk.logged(0, "configured differently").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_later_joins_and_serves() -> Result<()> {
    let mut desk = three_and_a_guest().await?;
    desk.write_some(&[0, 1, 2], 5).await?;
    desk.fleet.nodes[3].start().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    desk.write_some(&[3], 5).await?;
    desk.settle_and_compare().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_of_a_living_nodes_name_is_kept_out() -> Result<()> {
    let mut desk = three_and_a_guest().await?;
    desk.fleet.nodes[3].dress(Dressing { flags: vec![("--node", "n1".into())], ..Dressing::default() }).await;
    desk.fleet.nodes[3].start().await?;
    refused(&desk, 3).await?;
    desk.fleet.nodes[3].kill().await.ok();
    desk.write_some(&[0, 1, 2], 5).await?;
    desk.fleet.nodes[3].wipe().await?;
    desk.fleet.nodes[3].dress(Dressing::default()).await;
    desk.fleet.nodes[3].start().await?;
    desk.settle_and_compare().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_certificate_of_another_ca_is_kept_out_and_let_in_with_one_of_the_fleets() -> Result<()> {
    let mut desk = three_and_a_guest_of(FleetOptions { tls: true, ..options(4)? }).await?;
    desk.fleet.check_network()?;
    let guest = &desk.fleet.nodes[3];
    let other =
        Credentials::make(&desk.fleet.options.binary, desk.fleet.dir().join("other-certs"), std::slice::from_ref(&guest.name)).await?;
    let settings = other.settings(&guest.name);
    guest.dress(with(&["--set", &settings[0], "--set", &settings[1], "--set", &settings[2]])).await;
    guest.start().await?;
    // Both sides say why; nobody else hears of it.
    desk.logged(3, "signed by another CA").await?;
    desk.logged(0, "signed by another CA").await?;
    desk.write_some(&[0, 1, 2], 5).await?;
    refused(&desk, 3).await?;
    let guest = &desk.fleet.nodes[3];
    guest.kill().await.ok();
    guest.dress(Dressing::default()).await;
    guest.start().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    desk.write_some(&[3, 0], 5).await?;
    desk.settle_and_compare().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_another_nodes_data_does_no_harm() -> Result<()> {
    let mut desk = three_and_a_guest().await?;
    desk.write_some(&[0, 1, 2], 5).await?;
    // As a careless operator would copy it: of a stopped node, which is then started again.
    desk.fleet.terminate(1).await?;
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&desk.fleet.nodes[1].data_dir).arg(&desk.fleet.nodes[3].data_dir).status()?;
    ensure!(copied.success(), "cp");
    desk.fleet.nodes[1].start().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    desk.fleet.nodes[3].start().await?;
    refused(&desk, 3).await?;
    desk.write_some(&[0, 1, 2], 5).await?;
    desk.fleet.nodes[3].kill().await.ok();
    desk.fleet.nodes[3].wipe().await?;
    desk.fleet.nodes[3].start().await?;
    desk.settle_and_compare().await
}

/// It ended by itself with an error, or stays unready.
async fn refused(desk: &Desk, node: usize) -> Result<()> {
    let began = tokio::time::Instant::now();
    while began.elapsed() < A_WHILE {
        if desk.fleet.nodes[node].life().await == Life::Down {
            let status = desk.fleet.nodes[node].ended().await.context("a status")?;
            ensure!(!status.success(), "it ended with {status}");
            return Ok(());
        }
        stays_unready(&desk.fleet, node, Duration::ZERO).await?;
        tokio::time::sleep(tallymesh_chaos_tests::fleet::LOOK_EVERY).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_copies_than_nodes_are_not_promised() -> Result<()> {
    let mut options = options(3)?;
    "5".clone_into(&mut options.replication);
    let fleet = Fleet::prepare(options).await?;
    for node in &fleet.nodes {
        node.start().await?;
    }
    let desk = Desk::at(fleet);
    // Either way an operator hears of it, and nothing is acked on fewer copies than were asked for.
    refused(&desk, 0).await?;
    desk.logged(0, "replication").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_differs_later_is_refused_at_boot() -> Result<()> {
    let desk = Desk::start(options(3)?).await?;
    desk.fleet.terminate(2).await?;
    desk.fleet.nodes[2].dress(with(&["--set", "cluster.shards=4"])).await;
    desk.fleet.nodes[2].start().await?;
    refused(&desk, 2).await?;
    desk.logged(2, "shards").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_the_cluster_has_otherwise_is_told_by_every_node() -> Result<()> {
    let mut desk = Desk::start(options(3)?).await?;
    let told = async |fleet: &Fleet, door: usize| -> Result<Vec<Value>> {
        let cluster = fleet.cluster(door).await?;
        Ok(cluster["nodes"].as_array().context("nodes")?.iter().map(|node| node["deviates"].clone()).collect())
    };
    ensure!(told(&desk.fleet, 0).await? == [json!([]), json!([]), json!([])], "all are configured alike");
    desk.fleet.terminate(2).await?;
    desk.fleet.nodes[2].dress(with(&["--set", "windows.lateness=3m", "--set", "retention.minute=9d"])).await;
    desk.fleet.nodes[2].start().await?;
    desk.fleet.all_ready(PATIENCE).await?;
    desk.logged(2, "windows.lateness, retention.minute").await?;
    for door in 0..3 {
        let deviates = told(&desk.fleet, door).await?;
        ensure!(deviates.iter().filter(|of| **of == json!(["windows.lateness", "retention.minute"])).count() == 1, "{deviates:?}");
        ensure!(deviates.iter().filter(|of| **of == json!([])).count() == 2, "{deviates:?}");
    }
    // It takes part all the same.
    desk.write_some(&[0, 1, 2], 3).await?;
    desk.settle_and_compare().await
}
