//! Random worlds, as many as the environment says.

use super::world::World;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// `TALLYMESH_ORACLE_SEED` is the first seed, `TALLYMESH_ORACLE_WORLDS` how many follow; without, the seeds are the same in each run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_a_whole_node_equal_a_plain_count() {
    const TURNS: usize = 24;
    const CASES_MIN: usize = 1_000;
    const FIRST_SEED: u64 = 609_300_004;
    let seed = from_environment("TALLYMESH_ORACLE_SEED");
    let worlds = from_environment("TALLYMESH_ORACLE_WORLDS");
    let first = seed.unwrap_or(FIRST_SEED);
    println!("first seed {first}");
    let (mut lived, mut asked, mut snapshots, mut blocks) = (0, 0, 0, 0);
    while worlds.map_or(asked < CASES_MIN, |worlds| lived < worlds) {
        let seed = first + lived;
        let mut world = World::new(seed).await;
        if let Err(wrong) = world.live(TURNS).await {
            panic!(
                "seed {seed}, question {}: {wrong}\n\nagain: TALLYMESH_ORACLE_SEED={seed} TALLYMESH_ORACLE_WORLDS=1 \
                 cargo test -p tallymesh-node --test it answers_of_a_whole_node",
                world.asked
            );
        }
        (lived, asked) = (lived + 1, asked + world.asked);
        snapshots += u32::from(world.from_snapshot);
        blocks += u32::from(world.from_blocks);
        println!("seed {seed}: {} questions", world.asked);
    }
    println!(
        "{asked} questions to {lived} nodes ({snapshots} started from snapshots, {blocks} had sealed windows), all answered as a plain count would"
    );
    assert!(worlds.is_some() || (snapshots > 0 && blocks > 0), "nothing but open rows was read");
}
