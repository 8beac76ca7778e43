//! The coverage-guided driver: `TARGET` names the target, the arguments are libFuzzer's. `make fuzz` builds it with the coverage passes of rustc
//! (stable) that libFuzzer reads.
#![no_main]

use std::sync::OnceLock;

use tallymesh_fuzz::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

fn choose() -> Target {
    let name = std::env::var("TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, target)) => *target,
        None => panic!("TARGET={name}: there are {}", TARGETS.map(|(known, _)| known).join(", ")),
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.get_or_init(choose)(data));
