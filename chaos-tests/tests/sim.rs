//! Seeds of the simulation. `make sim FROM=.. SEEDS=..` runs more of them; see `chaos-tests/README.md`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use tallymesh_chaos_tests::sim::{Options, Report, run};

/// Seeds of every `make test`.
const SEEDS: u64 = 200;

/// Runs seeds on all cores, in order; calls `seen` for each as it comes.
fn run_all(from: u64, count: u64, options: &Options, mut seen: impl FnMut(Report)) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicU64::new(from);
    let (sender, reports) = mpsc::sync_channel(threads);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || sender.send(run(seed, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        reports.into_iter().for_each(&mut seen);
    });
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_is_lost_or_counted_twice_in_any_seed() {
    let (from, count) = (number("TALLYMESH_SIM_FROM", 0), number("TALLYMESH_SIM_SEEDS", SEEDS));
    let options = Options { is_traced: number("TALLYMESH_SIM_TRACE", 0) > 0, ..Options::default() };
    let (mut failed, mut done) = (Vec::new(), 0);
    let (mut acks, mut installed, mut terms, mut replaced) = (0, 0, 0, 0);
    run_all(from, count, &options, |report| {
        done += 1;
        let stats = report.stats;
        (acks, installed, terms, replaced) = (acks + stats.acks, installed + stats.installed, terms + stats.terms, replaced + stats.replaced);
        report.trace.iter().for_each(|line| println!("{line}"));
        if !report.violations.is_empty() {
            eprintln!("{}", report.failure());
            failed.push(report.seed);
        }
        if done % 100 == 0 {
            eprintln!("{done} of {count} seeds, {} failed", failed.len());
        }
        if count == 1 {
            eprintln!("{:?} {stats:?} trace {:016x} of {} events", report.virtual_time, report.trace_hash, report.trace_events);
        }
    });
    eprintln!("{done} seeds from {from}: {acks} acks, {terms} terms, {installed} snapshots installed, {replaced} nodes replaced; failed: {failed:?}");
    assert!(failed.is_empty(), "{} of {count} seeds fail: {failed:?}", failed.len());
    if count >= SEEDS {
        assert!(acks > count * 30 && terms > count && installed > count && replaced > count / 20, "the seeds are about something");
    }
}

#[test]
fn same_seed_is_the_same_run() {
    for seed in number("TALLYMESH_SIM_FROM", 0)..number("TALLYMESH_SIM_FROM", 0) + number("TALLYMESH_SIM_TWICE", 6) {
        let options = Options { is_traced: true, ..Options::default() };
        let (once, twice) = (run(seed, &options), run(seed, &options));
        if let Some(at) = once.trace.iter().zip(&twice.trace).position(|(a, b)| a != b) {
            let from = at.saturating_sub(5);
            panic!("seed {seed} goes apart at {at}:\n{:#?}\n{:#?}", &once.trace[from..=at], &twice.trace[from..=at]);
        }
        assert_eq!((once.trace_hash, once.trace_events, once.stats), (twice.trace_hash, twice.trace_events, twice.stats), "seed {seed}");
        assert!(once.trace_events > 1_000, "seed {seed} does something");
    }
}
