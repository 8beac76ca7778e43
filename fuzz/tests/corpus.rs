//! The short run: the corpus, and random mutations of it, through the same targets as the long one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

use tallymesh_fuzz::mutate::{Random, mutate};
use tallymesh_fuzz::{INPUT_BYTES_MAX, TARGETS};

/// Mutations tried of each target, times what `TALLYMESH_FUZZ_FACTOR` says: some seconds without optimisation.
const RUNS: usize = 1_000;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("a file"))).collect()
}

/// Runs one input; what fails is kept as a file to replay.
fn try_input(name: &str, input: &[u8], origin: &str) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect("a target").1;
    if std::panic::catch_unwind(|| target(input)).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("finding-{name}"));
        std::fs::write(&path, input).expect("written");
        panic!("{origin} breaks a promise; kept as {}: put it into fuzz/corpus/{name} once it is mended", path.display());
    }
}

fn run(name: &str) {
    let corpus = corpus(name);
    assert!(corpus.len() >= 20, "{name} has hardly any corpus");
    for (path, input) in &corpus {
        assert!(input.len() <= INPUT_BYTES_MAX);
        try_input(name, input, &path.display().to_string());
    }
    let factor = std::env::var("TALLYMESH_FUZZ_FACTOR").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut random = Random::new(RandomState::new().build_hasher().finish());
    for _ in 0..RUNS * factor {
        let mut input = corpus[random.below(corpus.len())].1.clone();
        let other = &corpus[random.below(corpus.len())].1;
        mutate(&mut random, &mut input, other);
        try_input(name, &input, "a mutation");
    }
}

#[test]
fn bodies_are_read_as_a_naive_reader_reads_them() {
    run("events");
}

#[test]
fn queries_are_planned_without_gaps_and_pages_add_up() {
    run("queries");
}

#[test]
fn batches_are_refused_or_counted_as_columns_add_up() {
    run("batches");
}

#[test]
fn recovered_logs_hold_what_was_written_or_stop() {
    run("segments");
}

#[test]
fn queries_and_answers_between_nodes_are_refused_or_read_within_bounds() {
    run("wire");
}
