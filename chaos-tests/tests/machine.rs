//! Faults by the machine's own means: network namespaces, a full disk, a disk whose syncs fail, clocks that are off. `make chaos` runs them, as root; they fail, and
//! do not pass, where something is missing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tallymesh_chaos_tests::fleet::campaign::{CampaignOptions, Progress, during};
use tallymesh_chaos_tests::fleet::load::Load;
use tallymesh_chaos_tests::fleet::nemesis::Fault;
use tallymesh_chaos_tests::fleet::nemesis::machine::clock::FakeClock;
use tallymesh_chaos_tests::fleet::nemesis::machine::failing_sync::from_sync_on;
use tallymesh_chaos_tests::fleet::nemesis::machine::full_disk::SmallDisk;
use tallymesh_chaos_tests::fleet::nemesis::machine::need_root;
use tallymesh_chaos_tests::fleet::nemesis::machine::network::Namespaces;
use tallymesh_chaos_tests::fleet::node::Dressing;
use tallymesh_chaos_tests::fleet::report::Report;
use tallymesh_chaos_tests::fleet::{FOUNDED_WITHIN, Fleet};
use tallymesh_chaos_tests::process::binary;
use tokio::sync::watch;

const SEED: u64 = 3;
/// While a fault lasts.
const A_WHILE: Duration = Duration::from_secs(6);
const HEALED_WITHIN: Duration = Duration::from_secs(90);

/// Of the fleets in here; also one node has to outlive what its machine does.
fn nodes() -> usize {
    std::env::var("TALLYMESH_CHAOS_NODES").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// A fleet whose nodes are dressed before they start, harm, and the comparison at the end.
async fn endures(
    options: &CampaignOptions,
    dress: impl AsyncFnOnce(&Fleet) -> Result<()>,
    harm: impl AsyncFnOnce(&Arc<Load>) -> Result<()>,
) -> Result<Report> {
    let fleet = Fleet::prepare(options.fleet.clone()).await?;
    dress(&fleet).await?;
    for node in &fleet.nodes {
        node.start().await?;
    }
    fleet.all_ready(FOUNDED_WITHIN).await?;
    let fleet = Arc::new(fleet);
    let harm = async |load: &Arc<Load>, _: &mut Vec<Fault>| harm(load).await;
    let report = during(&fleet, options, &watch::Sender::new(Progress::default()), harm).await?;
    eprintln!("{report}");
    ensure!(report.passed(), "see above");
    Ok(report)
}

async fn restart(load: &Load, node: usize) -> Result<()> {
    let process = &load.fleet.nodes[node];
    // It may have ended by itself.
    if process.ended().await.is_none() {
        process.kill().await.ok();
    }
    process.start().await?;
    load.fleet.all_ready(HEALED_WITHIN).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: make chaos"]
async fn packets_dropped_by_the_kernel_and_pulled_cables() -> Result<()> {
    // Between one node there is nothing to cut.
    let network = Namespaces::make(3)?;
    let mut options = CampaignOptions::new(3, SEED, binary()?);
    options.fleet.addresses = network.addresses();
    let dress = async |fleet: &Fleet| {
        for (number, node) in fleet.nodes.iter().enumerate() {
            node.dress(network.dressing(number)).await;
        }
        Ok(())
    };
    endures(&options, dress, async |load: &Arc<Load>| {
        // One way, the other way, one pair only, a cable.
        for cuts in [vec![(0, 1), (0, 2)], vec![(1, 0), (2, 0)], vec![(1, 2), (2, 1)]] {
            for (from, to) in cuts {
                network.cut(from, to)?;
            }
            load.pause(A_WHILE).await;
            network.heal()?;
            load.fleet.all_ready(HEALED_WITHIN).await?;
        }
        network.plug(2, false)?;
        load.victims.lock().insert(2);
        load.pause(A_WHILE).await;
        network.plug(2, true)?;
        load.victims.lock().clear();
        load.fleet.all_ready(HEALED_WITHIN).await.map(drop)
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: make chaos"]
async fn a_full_disk_of_one_node() -> Result<()> {
    need_root("a small disk")?;
    let dir = tempfile::tempdir()?;
    let mut options = CampaignOptions::new(nodes(), SEED, binary()?);
    options.fleet.dir = Some(dir.path().to_owned());
    let victim = nodes() / 2;
    // The log itself shall hit the end of the disk, not only the watch before it.
    options.fleet.settings.extend(["log.segment=1MiB", "log.max=32MiB"].map(str::to_owned));
    let disk = SmallDisk::mount(&dir.path().join(format!("n{}", victim + 1)), 400)?;
    endures(
        &options,
        async |_: &Fleet| Ok(()),
        async |load: &Arc<Load>| {
            for _ in 0..2 {
                load.victims.lock().insert(1);
                disk.fill()?;
                load.pause(A_WHILE).await;
                disk.free()?;
                // A replica that hit the end of its disk is stopped until its process is started again.
                if load.fleet.all_ready(A_WHILE).await.is_err() {
                    restart(load, victim).await?;
                }
                load.victims.lock().clear();
            }
            Ok(())
        },
    )
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace: make chaos"]
async fn a_disk_whose_syncs_fail() -> Result<()> {
    let options = CampaignOptions::new(nodes(), SEED, binary()?);
    let report = endures(
        &options,
        async |fleet: &Fleet| {
            fleet.nodes[0].dress(from_sync_on(600, &fleet.dir().join("n1.strace"))?).await;
            Ok(())
        },
        async |load: &Arc<Load>| {
            load.victims.lock().insert(0);
            let failing = async || {
                let trace = std::fs::read_to_string(load.fleet.dir().join("n1.strace")).map_err(|e| e.to_string())?;
                if trace.contains("INJECTED") { Ok(()) } else { Err("no sync failed yet".to_owned()) }
            };
            // The node may end by itself: that is one way to stop.
            while failing().await.is_err() {
                load.pause(Duration::from_millis(100)).await;
            }
            load.pause(A_WHILE).await;
            load.fleet.nodes[0].dress(Dressing::default()).await;
            restart(load, 0).await?;
            load.victims.lock().clear();
            Ok(())
        },
    )
    .await?;
    ensure!(report.writes.ok > 0, "the others went on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: make chaos"]
async fn clocks_that_are_off_and_jump() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut options = CampaignOptions::new(nodes(), SEED, binary()?);
    options.fleet.dir = Some(dir.path().to_owned());
    let clocks: Vec<FakeClock> = (1..=nodes()).map(|node| FakeClock::new(dir.path(), &format!("n{node}"))).collect::<Result<_>>()?;
    let dress = async |fleet: &Fleet| {
        for (node, clock) in fleet.nodes.iter().zip(&clocks) {
            node.dress(clock.dressing()?).await;
        }
        Ok(())
    };
    endures(&options, dress, async |load: &Arc<Load>| {
        // Up to what is tolerated of the future, so that no event is refused.
        for (node, offset) in [(0, "+30s"), (1, "-90s"), (2, "+20m"), (0, "-40m"), (1, "+3h"), (2, "+0"), (0, "+0"), (1, "+0")] {
            clocks[node % clocks.len()].set(offset)?;
            load.pause(A_WHILE / 3).await;
        }
        load.fleet.all_ready(HEALED_WITHIN).await.map(drop)
    })
    .await
    .map(drop)
}
