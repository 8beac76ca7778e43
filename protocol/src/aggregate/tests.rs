//! Stated errors against the truth, over many seeded sets, put together as windows, shards and an answer put them together.

use super::*;
use crate::hash::identity_hash;
use crate::limits::WINDOW_EXACT_ENTRIES_MAX;

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Equally likely by order of magnitude.
    fn log_uniform(&mut self, least: f64, most: f64) -> f64 {
        least * (most / least).powf(self.unit())
    }
}

/// `users` distinct ids, each in one to three of some windows on some shards, as an answer holds them.
fn gathered(random: &mut Random, users: u32) -> Distinct {
    let windows = 1 + random.log_uniform(1.0, 200.0) as usize;
    let set = random.bits();
    let mut hashes = vec![Vec::new(); windows];
    for user in 0..users {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&set.to_le_bytes());
        id[8..].copy_from_slice(&user.to_le_bytes());
        let hash = identity_hash(&id);
        for _ in 0..1 + random.bits() % 3 {
            hashes[random.bits() as usize % windows].push(hash);
        }
    }
    let mut shards = vec![Distinct::default(); 4];
    for (window, hashes) in hashes.into_iter().enumerate() {
        let shard = &mut shards[window % 4];
        if hashes.len() > WINDOW_EXACT_ENTRIES_MAX {
            shard.merge_sketch(&sketch_of(hashes).serialize());
        } else {
            hashes.into_iter().for_each(|hash| shard.insert(hash));
        }
    }
    shards.iter().fold(Distinct::default(), |mut all, shard| {
        all.merge(shard);
        all
    })
}

/// How `sets` sets of some size came out: share within the stated error, mean and mean square of the relative error of the estimated ones, how many
/// were exact.
fn coverage(seed: u64, sets: usize, least: f64, most: f64) -> (f64, f64, f64, usize) {
    let mut random = Random(seed);
    let (mut within, mut exact, mut errors) = (0, 0, Vec::new());
    for _ in 0..sets {
        let users = random.log_uniform(least, most) as u32;
        let set = gathered(&mut random, users);
        let error = set.estimate() / f64::from(users) - 1.0;
        within += usize::from(error.abs() <= set.relative_error());
        if set.is_exact() {
            assert_eq!(error, 0.0, "{users} users");
            exact += 1;
        } else {
            errors.push(error);
        }
    }
    let mean = |f: fn(f64) -> f64| errors.iter().map(|e| f(*e)).sum::<f64>() / errors.len().max(1) as f64;
    (within as f64 / sets as f64, mean(|e| e), mean(|e| e * e).sqrt(), exact)
}

#[test]
fn distinct_counts_are_within_their_stated_error_in_95_of_100() {
    let (small, ..) = coverage(1, 200, 1.0, 1_000.0);
    assert_eq!(small, 1.0, "few are counted exactly");
    for (seed, sets, least, most) in [(2, 700, 1_000.0, 16_000.0), (3, 300, 16_000.0, 40_000.0), (4, 4, 200_000.0, 300_000.0)] {
        let (within, bias, spread, exact) = coverage(seed, sets, least, most);
        println!(
            "{sets} sets of {least}-{most}: {within:.3} within two standard errors ({:.4}), {exact} exact, mean error {bias:.5}, standard error {spread:.5}",
            DISTINCT_TWO_STANDARD_ERRORS
        );
        assert!(within >= if sets > 100 { 0.95 } else { 0.5 }, "{within} of {least}-{most}");
        assert!(bias.abs() < DISTINCT_TWO_STANDARD_ERRORS / 2.0 / (sets as f64).sqrt() * 4.0, "biased by {bias}");
        assert!(spread < DISTINCT_TWO_STANDARD_ERRORS / 2.0 * 1.1 + f64::from(u8::from(sets < 100)), "standard error {spread}");
    }
}

#[test]
fn quantiles_are_always_within_their_stated_error() {
    let mut random = Random(5);
    let mut worst = 0.0f64;
    for _ in 0..1_000 {
        let count = random.log_uniform(1.0, 3_000.0) as usize;
        let magnitude = random.log_uniform(1e-3, 300.0);
        let sign = [1.0, -1.0, 0.0][random.bits() as usize % 3];
        let value = |random: &mut Random| {
            // Nearer to zero is zero.
            let size = 10f64.powf((random.unit() - 0.5) * 2.0 * magnitude).max(1.1e-9);
            let is_negative = sign < 0.0 || (sign == 0.0 && random.bits().is_multiple_of(2));
            if random.bits().is_multiple_of(50) {
                0.0
            } else if is_negative {
                -size
            } else {
                size
            }
        };
        let mut values: Vec<f64> = (0..count).map(|_| value(&mut random)).collect();
        let mut parts = vec![Quantiles::default(); 5];
        values.iter().enumerate().for_each(|(i, v)| parts[i % 5].add(bin_of(*v), 1));
        let mut all = Quantiles::default();
        parts.iter().for_each(|part| all.merge(part));
        values.sort_by(f64::total_cmp);
        for q in [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0, random.unit()] {
            let right = values[(q * (count - 1) as f64).floor() as usize];
            let got = all.quantile(q).expect("has values");
            let error = if right == 0.0 { got.abs() } else { (got - right).abs() / right.abs() };
            worst = worst.max(error);
            assert!(error <= QUANTILE_RELATIVE_ERROR * (1.0 + 1e-9), "q {q} of {count}: {got}, not {right}");
        }
    }
    println!("1000 sets of values: the worst quantile is off by {worst:.6}, stated {QUANTILE_RELATIVE_ERROR}");
}
