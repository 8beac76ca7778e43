use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// `rows` rows of `keys` keys over `span_ms` before `now + ahead_ms`, all in one entry.
    Rows {
        seed: u64,
        rows: usize,
        keys: u32,
        span_ms: i64,
        ahead_ms: i64,
        users: u64,
    },
    /// Time passes.
    Tick(i64),
    SaveAndLoad,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let span = prop_oneof![Just(1_000), Just(MINUTE_MS), Just(HOUR_MS), Just(3 * DAY_MS), Just(400 * DAY_MS)];
    let rows = prop_oneof![4 => 1usize..60, 3 => 60usize..3_000, 1 => Just(20_000)];
    let users = prop_oneof![Just(3u64), Just(50), Just(6_000)];
    let keys = prop_oneof![1u32..4, 40u32..300];
    let rows = (any::<u64>(), rows, keys, span, -DAY_MS..HOUR_MS, users)
        .prop_map(|(seed, rows, keys, span_ms, ahead_ms, users)| Op::Rows { seed, rows, keys, span_ms, ahead_ms, users });
    let tick = prop_oneof![0..10_000i64, Just(LATENESS_MS), Just(HOUR_MS), Just(DAY_MS)].prop_map(Op::Tick);
    proptest::collection::vec(prop_oneof![5 => rows, 4 => tick, 2 => Just(Op::SaveAndLoad)], 1..14)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % n.max(1)
    }
}

fn make_rows(random: &mut Random, rows: usize, keys: u32, from_ms: i64, span_ms: i64, users: u64) -> Vec<Row> {
    let identity = |random: &mut Random| if random.below(5) == 0 { 0 } else { mix(random.below(users) + 1) | 1 };
    let value = |random: &mut Random| match random.below(6) {
        0 | 1 => f64::NAN,
        2 => -(random.below(1_000_000) as f64) / 7.0,
        3 => [0.0, 1e-300, 3.5e12, f64::from(f32::MAX)][random.below(4) as usize],
        _ => random.below(500) as f64 * 0.25,
    };
    let make = |_| Row {
        key: random.below(u64::from(keys)) as u32,
        time_ms: from_ms + random.below(span_ms as u64) as i64,
        id: random.below(u64::MAX),
        user: identity(random),
        session: identity(random),
        value: value(random),
    };
    (0..rows).map(make).collect()
}

/// Slices of mixed grains with gaps, several for a bucket now and then.
fn random_plan(random: &mut Random, from_ms: i64, days: i64) -> ScanPlan {
    let mut at = Grain::Day.floor(from_ms);
    let end = at + days * DAY_MS;
    let mut slices = Vec::new();
    while at < end && slices.len() < 400 {
        let aligned: Vec<Grain> = Grain::ALL.into_iter().filter(|g| g.floor(at) == at).collect();
        let grain = aligned[random.below(aligned.len() as u64) as usize];
        let to_ms = at + (1 + random.below(if grain == Grain::Day { 40 } else { 30 }) as i64) * grain.ms();
        if random.below(8) > 0 {
            slices.push(Slice { from_ms: at, to_ms, grain, bucket: random.below(20) as u32 });
        }
        at = to_ms;
    }
    ScanPlan { slices, buckets: 20 }
}

fn check_answers(random: &mut Random, store: &WindowStore, events: &[Row], now_ms: i64) {
    let groups: Vec<u32> = (0..300).map(|_| [0, 1, 2, u32::MAX][random.below(4) as usize]).collect();
    for (from_ms, days) in [(now_ms - 2 * DAY_MS, 4), (now_ms - 403 * DAY_MS, 406)] {
        let plan = random_plan(random, from_ms, days);
        assert_same(&ask(store, &plan, &groups), &expect(events, &plan, &groups));
    }
    let mut few = vec![u32::MAX; 300];
    (0..3).for_each(|group| few[random.below(8) as usize] = group);
    for grain in Grain::ALL {
        let from_ms = Grain::Day.floor(now_ms - 3 * DAY_MS);
        let plan = plan(grain, from_ms, from_ms + 5 * DAY_MS, DAY_MS);
        assert_same(&ask(store, &plan, &few), &expect(events, &plan, &few));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn answers_equal_those_of_an_oracle_whatever_is_sealed_folded_or_reloaded(ops in ops(), seed in any::<u64>()) {
        let mut files = MemoryFiles::default();
        let mut store = WindowStore::new(settings());
        // The same calls without the saves: a replica that never restarted.
        let mut replica = WindowStore::new(settings());
        let mut events = Vec::new();
        let mut now_ms = T0 + 7 * HOUR_MS;
        let mut random = Random(seed);
        for op in &ops {
            match *op {
                Op::Rows { seed, rows, keys, span_ms, ahead_ms, users } => {
                    let rows = make_rows(&mut Random(seed), rows, keys, now_ms + ahead_ms - span_ms, span_ms, users);
                    for &row in &rows {
                        store.append(now_ms, row);
                        replica.append(now_ms, row);
                    }
                    events.extend(rows);
                    store.tick(now_ms);
                    replica.tick(now_ms);
                }
                Op::Tick(ms) => {
                    now_ms += ms;
                    store.tick(now_ms);
                    replica.tick(now_ms);
                }
                Op::SaveAndLoad => {
                    let saved = save(&mut store, &mut files);
                    files.keep_only(&saved);
                    let digest = store.digest();
                    let json = serde_json::to_string(&saved.manifest).expect("plain values");
                    store = WindowStore::load(&serde_json::from_str(&json).expect("own JSON"), settings(), &files).expect("just written");
                    prop_assert_eq!(store.digest(), digest);
                }
            }
            prop_assert!(shape(&store) == shape(&replica), "state depends on the calls alone, not on restarts");
        }
        let digest = store.digest();
        check_answers(&mut random, &store, &events, now_ms);
        for _ in 0..6 {
            now_ms += DAY_MS;
            store.tick(now_ms);
        }
        prop_assert_eq!(store.stats().open_rows, 0);
        prop_assert_eq!(store.digest(), digest, "folding changes no count");
        check_answers(&mut random, &store, &events, now_ms - 6 * DAY_MS);
    }
}
