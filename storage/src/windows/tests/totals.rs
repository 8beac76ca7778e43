//! Totals beside blocks against the windows that they stand for.

use super::*;

const METRICS: u32 = 5;
const KEYS: u32 = 40;

/// Keys belong to metrics in turn, metrics 0 to 2 to family 0, the others to family 1.
fn metric_of() -> Arc<Vec<u32>> {
    Arc::new((0..KEYS).map(|key| key % METRICS).collect())
}

fn families() -> Vec<u32> {
    vec![0, 0, 0, 1, 1]
}

/// The same selection by classes and by keys.
fn selections() -> Vec<(KeyGroups, Vec<u32>)> {
    let by_key = |group: &dyn Fn(u32) -> u32| (0..KEYS).map(|key| group(key % METRICS)).collect::<Vec<u32>>();
    let of_metric = |m| [(0, 1), (3, 0)].into_iter().find(|g| g.0 == m).map_or(u32::MAX, |g| g.1);
    vec![
        (KeyGroups::classes(KeyClass::Metric, metric_of(), Vec::new(), &[(0, 1), (3, 0)]), by_key(&of_metric)),
        (KeyGroups::classes(KeyClass::Family, metric_of(), families(), &[(0, 0)]), by_key(&|m| if m < 3 { 0 } else { u32::MAX })),
        (KeyGroups::classes(KeyClass::Family, metric_of(), families(), &[(0, 0), (1, 1)]), by_key(&|m| u32::from(m >= 3))),
    ]
}

fn answers(store: &WindowStore, plan: &ScanPlan, wants: Wants, groups: KeyGroups) -> BTreeMap<(u32, u32), Accumulator> {
    let mut gathered = CellMap::for_query(2, plan.buckets, 1 << 20, wants);
    let view = store.view(plan, groups);
    view.scan(wants, &mut gathered, &|| false).expect("few cells");
    let (cells, counts) = view.finish(gathered);
    cells.into_iter().chain(counts.cells()).map(|c| ((c.group, c.bucket), c.values)).collect()
}

fn plans(from_ms: i64) -> Vec<ScanPlan> {
    vec![
        plan(Grain::Minute, from_ms, from_ms + 3 * HOUR_MS, MINUTE_MS),
        plan(Grain::Minute, from_ms + 7 * MINUTE_MS, from_ms + 131 * MINUTE_MS, 31 * MINUTE_MS),
        plan(Grain::Minute, from_ms, from_ms + 4 * HOUR_MS, HOUR_MS),
        plan(Grain::Hour, from_ms, from_ms + DAY_MS, HOUR_MS),
        plan(Grain::Hour, from_ms + HOUR_MS, from_ms + 19 * HOUR_MS, 6 * HOUR_MS),
        plan(Grain::Day, from_ms, from_ms + 2 * DAY_MS, DAY_MS),
        plan(Grain::Day, from_ms, from_ms + 2 * DAY_MS, 2 * DAY_MS),
    ]
}

fn assert_classes_equal_keys(store: &WindowStore, events: &[Row]) {
    let none = Wants::default();
    let wants = [ALL, none, Wants { users: true, ..none }, Wants { quantiles: true, ..none }, Wants { last: true, ..none }];
    for plan in plans(Grain::Day.floor(T0)) {
        for (groups, by_key) in selections() {
            assert_same(&answers(store, &plan, ALL, groups.clone()), &expect(events, &plan, &by_key));
            for wants in wants {
                let counts = |groups| answers(store, &plan, wants, groups).into_iter().map(|(at, a)| (at, a.count, a.value_count));
                assert!(counts(groups.clone()).eq(counts(KeyGroups::dense(by_key.clone()))), "{wants:?}");
            }
        }
    }
}

fn rows(seed: u64, n: u64, from_ms: i64, span_ms: i64) -> Vec<Row> {
    let value = |r: u64| if r.is_multiple_of(3) { f64::NAN } else { (r % 1_000) as f64 / 8.0 - 20.0 };
    let row = |i: u64| {
        let r = mix(seed << 32 | i);
        let (user, session) = (if r.is_multiple_of(4) { 0 } else { mix(r % 4_000) | 1 }, mix(r % 90) | 1);
        Row { key: (r >> 8) as u32 % KEYS, time_ms: from_ms + (r >> 16) as i64 % span_ms, id: r, user, session, value: value(r >> 5) }
    };
    (0..n).map(row).collect()
}

#[test]
fn totals_say_what_windows_say_whatever_comes_late_or_is_folded_since() {
    let mut store = WindowStore::new(settings());
    let mut events = Vec::new();
    let mut now_ms = T0;
    // Asked at every turn, so that totals are kept from before the late rows, the compactions and the folds.
    let steps: [(u64, i64, i64, i64); 7] = [
        (5_000, T0, 3 * HOUR_MS, 10 * MINUTE_MS),
        (200, T0, 3 * HOUR_MS, 5 * MINUTE_MS),
        (4_000, T0 + HOUR_MS, 20 * HOUR_MS, HOUR_MS),
        (300, T0, HOUR_MS, 30 * HOUR_MS),
        (200, T0 + 2 * HOUR_MS, MINUTE_MS, 5 * MINUTE_MS),
        (0, T0, 1, 40 * HOUR_MS),
        (400, T0 + 5 * HOUR_MS, DAY_MS, 5 * MINUTE_MS),
    ];
    for (seed, (n, from_ms, span_ms, passes_ms)) in (0..).zip(steps) {
        let late = rows(seed, n, from_ms, span_ms);
        late.iter().for_each(|&row| store.append(now_ms, row));
        events.extend(late);
        store.tick(now_ms);
        assert_classes_equal_keys(&store, &events);
        now_ms += passes_ms;
        store.tick(now_ms);
        assert_classes_equal_keys(&store, &events);
    }
    assert!(store.stats().totals_bytes > 0);
}

#[test]
fn totals_are_kept_through_a_save_and_made_again_after_a_restart() {
    let mut files = MemoryFiles::default();
    let mut store = WindowStore::new(settings());
    let events = rows(1, 8_000, T0, 2 * HOUR_MS);
    events.iter().for_each(|&row| store.append(T0, row));
    store.tick(T0 + 3 * HOUR_MS);
    assert_classes_equal_keys(&store, &events);
    let kept = store.stats().totals_bytes;
    let saved = save(&mut store, &mut files);
    assert_eq!(store.stats().totals_bytes, kept, "a block in its file is the same block");
    assert_classes_equal_keys(&store, &events);
    let restarted = WindowStore::load(&saved.manifest, settings(), &files).expect("just written");
    assert_eq!(restarted.stats().totals_bytes, 0);
    assert_classes_equal_keys(&restarted, &events);
    assert_eq!(restarted.stats().totals_bytes, kept);
}

#[test]
fn totals_stay_within_their_bytes_and_go_with_their_blocks() {
    const BYTES_MAX: usize = 256 << 10;
    let mut store = WindowStore::new(settings());
    store.totals_budget = Arc::new(crate::windows::totals::Budget::new(BYTES_MAX));
    store.unions = Arc::new(crate::windows::totals::Unions::new(store.totals_budget.clone()));
    // Every session is another, so that each hour's sets are large.
    for hour in 0..100 {
        for mut row in rows(hour as u64, 600, T0 + hour * HOUR_MS, HOUR_MS) {
            row.session = row.id | 1;
            store.append(T0, row);
        }
    }
    store.tick(T0 + 101 * HOUR_MS);
    let wants = Wants { sessions: true, ..Wants::default() };
    let all = |store: &WindowStore, from: i64, hours: i64| {
        let plan = plan(Grain::Minute, T0 + from * HOUR_MS, T0 + (from + hours) * HOUR_MS, HOUR_MS);
        let groups = KeyGroups::classes(KeyClass::Metric, metric_of(), Vec::new(), &[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
        answers(store, &plan, wants, groups).values().map(|a| a.sessions.estimate()).sum::<f64>()
    };
    for _ in 0..2 {
        for from in 0..100 {
            assert_eq!(all(&store, from, 1), 600.0);
            assert!(store.stats().totals_bytes <= BYTES_MAX as u64);
        }
    }
    // What is asked now is kept in place of what was asked once.
    (0..3).for_each(|_| assert_eq!(all(&store, 7, 20), 20.0 * 600.0));
    let kept = store.stats().totals_bytes;
    assert!(kept > 20 * 600 * 8, "{kept} bytes");
    all(&store, 7, 20);
    assert_eq!(store.stats().totals_bytes, kept);
    let hour = Some(HOUR_MS);
    store.set_settings(WindowSettings { retention_minute_ms: hour, retention_hour_ms: hour, retention_day_ms: hour, ..settings() });
    // What is folded by one tick is dropped by a later one.
    (0..100).for_each(|_| store.tick(T0 + 400 * DAY_MS));
    assert_eq!(store.stats().windows, [0; 3]);
    assert_eq!(store.stats().totals_bytes, 0);
}
