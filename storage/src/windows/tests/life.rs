//! What happens to windows over time.

use tallymesh_protocol::question::plan::{Retention, plan as plan_query};
use tallymesh_protocol::question::query::{Step, TimeRange, Zone};

use super::*;

#[test]
fn an_hour_is_folded_when_it_is_closed_and_a_day_after_it() {
    let mut store = WindowStore::new(settings());
    (0..300).for_each(|i| store.append(T0 + 1, row(i % 3, T0 + i64::from(i) * 10_000, u64::from(i))));
    store.tick(T0 + HOUR_MS + LATENESS_MS - 1);
    assert_eq!(store.stats().windows, [50 * 3, 0, 0], "sealed when its minutes are closed");
    store.tick(T0 + HOUR_MS + LATENESS_MS);
    assert_eq!(store.stats().windows, [150, 3, 0]);
    store.tick(T0 + DAY_MS + LATENESS_MS - 1);
    assert_eq!(store.stats().windows, [150, 3, 0]);
    store.tick(T0 + DAY_MS + LATENESS_MS);
    assert_eq!(store.stats().windows, [150, 3, 3]);
    for grain in Grain::ALL {
        assert_eq!(total(&store, grain, T0, T0 + DAY_MS, 3), 300);
    }
}

#[test]
fn late_rows_after_folding_count_once_at_every_grain() {
    let mut store = WindowStore::new(settings());
    let now = T0 + 3 * DAY_MS;
    store.append(T0, row(0, T0 + 5, 1));
    store.tick(now);
    store.tick(now + LATENESS_MS);
    assert_eq!(store.stats().windows, [1, 1, 1]);
    let now = now + LATENESS_MS;
    for (n, wait) in [(2, 0), (3, LATENESS_MS), (4, 2 * LATENESS_MS), (5, HOUR_MS)] {
        store.append(now, row(0, T0 + 5, n));
        for step in [0, wait] {
            store.tick(now + step);
            for grain in Grain::ALL {
                assert_eq!(total(&store, grain, T0, T0 + DAY_MS, 1), n, "{grain:?} after {step} ms");
            }
        }
    }
}

#[test]
fn a_hot_minute_is_sealed_by_its_rows_and_stays_within_bounds() {
    let mut store = WindowStore::new(settings());
    for i in 0..20_000u64 {
        store.append(T0, Row { user: mix(i) | 1, ..row(0, T0 + (i % 900) as i64, i) });
        if i % 1_000 == 999 {
            store.tick(T0);
            assert!(store.stats().open_rows < (SEAL_ROWS + 1_000) as u64);
        }
    }
    let cell = &ask(&store, &plan(Grain::Minute, T0, T0 + MINUTE_MS, MINUTE_MS), &[0])[&(0, 0)];
    assert_eq!(cell.count, 20_000);
    assert!((cell.users.estimate() / 20_000.0 - 1.0).abs() < 0.03, "{:?}", cell.users);
    assert!(store.stats().blocks < 8, "blocks of one partition are compacted: {:?}", store.stats());
}

#[test]
fn one_entry_cannot_open_more_rows_than_the_limit() {
    let mut store = WindowStore::new(settings());
    for i in 0..400_000u64 {
        store.append(T0, row(0, T0 + (mix(i) % 3_000) as i64 * HOUR_MS, i));
        assert!(store.open_rows < OPEN_ROWS_HARD_MAX);
    }
    store.tick(T0);
    assert!(store.open_rows < OPEN_ROWS_MAX && store.tails.len() <= OPEN_HOURS_MAX);
    assert_eq!(total(&store, Grain::Hour, T0, T0 + 3_000 * HOUR_MS, 1), 400_000);
}

#[test]
fn one_tick_merges_a_bounded_number_of_bytes_and_later_ones_the_rest() {
    let mut store = WindowStore::new(settings());
    for hour in 0..36 {
        for i in 0..15_000u64 {
            let time_ms = T0 + hour * HOUR_MS + i as i64;
            store.append(T0, Row { key: i as u32, time_ms, id: i, user: mix(i) | 1, session: mix(i) | 1, value: 0.5 });
        }
        store.tick(T0);
    }
    let unfolded = |s: &WindowStore| -> usize {
        let blocks = s.levels[0].values().flat_map(|p| &p.blocks).filter(|b| !b.folded);
        blocks.map(|b| b.block.bytes().len()).sum()
    };
    let digest = store.digest();
    let before = unfolded(&store);
    store.tick(T0 + 10 * DAY_MS);
    let after = unfolded(&store);
    assert!(after > 0 && before - after <= 2 * TICK_MERGE_BYTES_MAX, "{before} bytes to fold, then {after}");
    let mut ticks = 0;
    while unfolded(&store) > 0 || !store.crowded.is_empty() {
        store.tick(T0 + 10 * DAY_MS + LATENESS_MS);
        ticks += 1;
        assert!(ticks < 100, "does not come to an end");
    }
    assert_eq!(store.digest(), digest);
}

/// So much time goes by between two rounds of the same windows.
fn windows_that_come_again_and_again(pause_ms: i64) {
    const ROUNDS: u64 = 16;
    const WINDOWS: u64 = 16_384;
    let mut store = WindowStore::new(settings());
    let mut now = T0 + HOUR_MS;
    for round in 0..ROUNDS {
        for i in 0..WINDOWS {
            let (key, minute) = ((i % 1_024) as u32, (i / 1_024) as i64);
            let id = round * WINDOWS + i;
            let time_ms = T0 + minute * MINUTE_MS + round as i64;
            store.append(now, Row { key, time_ms, id, user: mix(id) | 1, session: mix(id) | 1, value: 0.5 });
        }
        now += pause_ms;
        (0..3).for_each(|_| store.tick(now));
        let [minutes, hours, _] = store.stats().windows;
        assert!(minutes <= 6 * WINDOWS, "round {round}: {minutes} of {WINDOWS}");
        assert!(hours <= 6 * 1_024, "round {round}: {hours} of 1024");
    }
    for grain in Grain::ALL {
        assert_eq!(total(&store, grain, T0, T0 + DAY_MS, 1_024), ROUNDS * WINDOWS, "{grain:?}");
    }
}

#[test]
fn windows_that_come_again_after_they_were_folded_are_joined_whatever_the_size_of_their_blocks() {
    windows_that_come_again_and_again(2 * LATENESS_MS);
}

#[test]
fn windows_that_come_again_before_their_hour_is_closed_are_joined_whatever_the_size_of_their_blocks() {
    windows_that_come_again_and_again(1);
}

/// As a stream that is sent again and again with other events: rounds begin and end within an hour, some rows are late, so blocks span most of it.
#[test]
fn windows_of_a_stream_that_comes_again_are_joined_however_large_their_hour_is() {
    const ROUNDS: u64 = 16;
    const ROUND_ROWS: u64 = 60_000;
    const KEYS: u64 = 500;
    let mut store = WindowStore::new(settings());
    let start_ms = T0 + 25 * MINUTE_MS;
    let mut n = 0;
    for _ in 0..ROUNDS {
        for i in 0..ROUND_ROWS {
            n += 1;
            let r = mix(n);
            let late_ms = if r.is_multiple_of(50) { (mix(r) % 1_800_000) as i64 } else { 0 };
            let time_ms = (start_ms + (i * HOUR_MS as u64 / ROUND_ROWS) as i64 - late_ms).max(start_ms);
            let (user, session) = (mix(r ^ 1) | 1, mix(r ^ 2) | 1);
            store.append(T0 + 2 * HOUR_MS, Row { key: (mix(r ^ 3) % KEYS) as u32, time_ms, id: n, user, session, value: 0.5 });
            if i % 600 == 599 {
                store.tick(T0 + 2 * HOUR_MS);
            }
        }
    }
    settle(&mut store, T0 + 2 * HOUR_MS);
    let stats = store.stats();
    assert!(stats.windows[0] < 2 * 60 * KEYS, "{stats:?}");
    assert_eq!(total(&store, Grain::Minute, T0, T0 + 2 * HOUR_MS, KEYS as usize), ROUNDS * ROUND_ROWS);
    let largest = store.levels[0].values().flat_map(|p| &p.blocks).map(|b| b.block.bytes().len()).max();
    assert!(largest.is_some_and(|bytes| bytes < 2 << 20), "{largest:?} bytes in one block");
}

/// Ticks until nothing is due at `now`; blocks that are merged into such as are merged again would have it never end.
fn settle(store: &mut WindowStore, now: i64) {
    for _ in 0..200 {
        store.tick(now);
        if store.due_ms().is_none_or(|due_ms| due_ms > now) {
            return;
        }
    }
    panic!("compaction does not come to an end: {:?}", store.stats());
}

#[test]
fn compaction_comes_to_an_end_at_every_grain() {
    const KEYS: u64 = 8_000;
    let mut store = WindowStore::new(settings());
    let mut now = T0;
    for day in 0..20 {
        for i in 0..KEYS {
            let id = day as u64 * KEYS + i;
            let time_ms = T0 + day * DAY_MS + (i % 24) as i64 * HOUR_MS;
            store.append(now, Row { key: i as u32, time_ms, id, user: mix(id) | 1, session: mix(id ^ 9) | 1, value: i as f64 });
        }
        now = T0 + (day + 1) * DAY_MS + 3 * LATENESS_MS;
        settle(&mut store, now);
    }
    let days = store.levels[Grain::Day as usize].values().flat_map(|p| &p.blocks).map(|b| b.block.bytes().len()).sum::<usize>();
    assert!(days > 6 << 20, "{days} bytes of days are enough to be cut");
    assert_eq!(total(&store, Grain::Day, T0, T0 + 20 * DAY_MS, KEYS as usize), 20 * KEYS);
}

#[test]
fn each_grain_is_kept_as_long_as_its_retention_says() {
    let kept = WindowSettings {
        retention_minute_ms: Some(DAY_MS),
        retention_hour_ms: Some(3 * DAY_MS),
        retention_day_ms: Some(40 * DAY_MS),
        ..settings()
    };
    let mut store = WindowStore::new(kept);
    store.append(T0, row(0, T0, 1));
    let mut at = |ms| {
        store.tick(T0 + ms);
        store.stats().windows
    };
    assert_eq!(at(HOUR_MS + LATENESS_MS), [1, 1, 0]);
    assert_eq!(at(2 * HOUR_MS + DAY_MS - 1), [1, 1, 1]);
    assert_eq!(at(2 * HOUR_MS + DAY_MS), [0, 1, 1]);
    assert_eq!(at(5 * DAY_MS - 1), [0, 1, 1]);
    assert_eq!(at(5 * DAY_MS), [0, 0, 1]);
    assert_eq!(at(40 * DAY_MS), [0, 0, 1]);
    // Late by more than a day: counted at the grains still kept.
    let now = T0 + 40 * DAY_MS;
    store.append(now, row(0, now - 2 * DAY_MS, 2));
    for wait in [LATENESS_MS, 2 * LATENESS_MS, 3 * LATENESS_MS] {
        store.tick(now + wait);
    }
    assert_eq!(store.stats().windows, [0, 1, 2]);
    assert_eq!(total(&store, Grain::Hour, now - 2 * DAY_MS, now, 1), 1);
    store.tick(T0 + 112 * DAY_MS);
    assert_eq!(store.stats().windows[2], 1, "the first stretch of days is past its retention");
}

/// Windows are dropped by whole partitions, so a plan made in the last moment of one reads what has passed its retention a moment later.
#[test]
fn query_planned_before_a_border_of_retention_finds_everything_behind_it() {
    // The partition of days that holds `T0` ends 26 days after it.
    for (grain, kept_ms, border_ms) in
        [(Grain::Minute, DAY_MS, T0 + HOUR_MS), (Grain::Hour, 3 * DAY_MS, T0 + DAY_MS), (Grain::Day, 64 * DAY_MS, T0 + 26 * DAY_MS)]
    {
        let kept = |g: Grain| Some(if g < grain { DAY_MS } else { kept_ms });
        let mut store = WindowStore::new(WindowSettings {
            retention_minute_ms: kept(Grain::Minute),
            retention_hour_ms: kept(Grain::Hour),
            retention_day_ms: kept(Grain::Day),
            ..settings()
        });
        let retention = |g: Grain| kept(g).map(|ms| ms as u64);
        let retention = Retention { minute_ms: retention(Grain::Minute), hour_ms: retention(Grain::Hour), day_ms: retention(Grain::Day) };
        let now = border_ms + kept_ms;
        let from_ms = border_ms - grain.ms();
        store.append(from_ms, row(0, from_ms, 1));
        (1..=3).for_each(|wait| store.tick(border_ms + wait * LATENESS_MS));
        let range = TimeRange { from_ms, to_ms: border_ms };
        let plan = plan_query(range, Step::None, &Zone::utc(), retention, now - 1).expect("a plan");
        assert_eq!((plan.grain, plan.range), (grain, range));
        store.tick(now + MINUTE_MS);
        let answer = ask(&store, &plan.scan, &[0]);
        assert_eq!(answer.get(&(0, 0)).map(|cell| cell.count), Some(1), "{grain:?}");
    }
}

#[test]
fn the_watermark_stops_at_open_rows_and_at_lateness() {
    let mut store = WindowStore::new(settings());
    let now = T0 + DAY_MS;
    assert_eq!(store.watermark_ms(now), now - LATENESS_MS);
    store.append(now, row(0, T0 + 90_000, 1));
    assert_eq!(store.watermark_ms(now), T0 + MINUTE_MS);
    store.tick(now + LATENESS_MS);
    assert_eq!(store.watermark_ms(now + LATENESS_MS), now);
}

#[test]
fn a_save_writes_what_is_new_and_files_do_not_leak() {
    let mut store = WindowStore::new(settings());
    let mut files = MemoryFiles::default();
    let mut most_files = 0;
    for hour in 0..200 {
        let now = T0 + hour * HOUR_MS;
        (0..2_000u64).for_each(|i| store.append(now, row((i % 700) as u32, now + (i * 1_700) as i64, i)));
        store.tick(now + HOUR_MS);
        let saved = save(&mut store, &mut files);
        files.keep_only(&saved);
        most_files = most_files.max(saved.files().count());
        let on_disk: usize = files.files.values().map(Bytes::len).sum();
        assert!(on_disk < 3 * store.stats().bytes as usize + 1_000_000, "{on_disk} bytes on disk for {:?}", store.stats());
    }
    assert!(most_files < 60, "{most_files} files");
    let all = store.stats().bytes as usize;
    assert!(files.written < 8 * all, "{} bytes written in all for a state of {all}", files.written);
    let before = files.written;
    let saved = save(&mut store, &mut files);
    assert!(files.written - before < all / 20, "nothing new, yet {} bytes written", files.written - before);
    let loaded = WindowStore::load(&saved.manifest, settings(), &files).expect("just written");
    assert!(shape(&loaded) == shape(&store));
    // Mapped blocks are slices: no second copy.
    let slices = loaded.levels.iter().flat_map(BTreeMap::values).flat_map(|p| &p.blocks);
    let inside = |b: &Bytes| files.files.values().any(|f| f.as_ptr_range().contains(&b.as_ptr()));
    assert!(slices.into_iter().all(|s| inside(s.block.bytes())));
}

#[test]
fn a_file_that_is_mostly_dead_is_rewritten_by_the_next_save() {
    let mut store = WindowStore::new(WindowSettings { retention_minute_ms: Some(2 * DAY_MS), ..settings() });
    let mut files = MemoryFiles::default();
    (0..9_000u64).for_each(|i| store.append(T0, row((i % 30) as u32, T0 + i as i64 * 9_000, i)));
    (0..4).for_each(|n| store.tick(T0 + DAY_MS + n * LATENESS_MS));
    let first = save(&mut store, &mut files);
    let again = save(&mut store, &mut files);
    assert_eq!(again.manifest.files, first.manifest.files, "nothing changed, nothing is written");
    let before = total(&store, Grain::Hour, T0, T0 + DAY_MS, 30);
    store.tick(T0 + 4 * DAY_MS);
    assert_eq!(store.stats().windows[0], 0, "minutes are past their retention");
    let second = save(&mut store, &mut files);
    assert!(second.files().all(|f| first.files().all(|old| old != f)), "the old file is no longer needed");
    files.keep_only(&second);
    let loaded = WindowStore::load(&second.manifest, settings(), &files).expect("just written");
    assert_eq!((total(&loaded, Grain::Hour, T0, T0 + DAY_MS, 30), before), (9_000, 9_000));
}

#[test]
fn a_save_that_raced_with_compaction_marks_what_is_left() {
    let mut store = WindowStore::new(settings());
    let mut files = MemoryFiles::default();
    for n in 0..3 {
        (0..5_000u64).for_each(|i| store.append(T0, row((i % 40) as u32, T0 + (i % 1_000) as i64 + n, i)));
        store.tick(T0);
    }
    let saved = store.save_plan().write(&mut files).expect("memory does not fail");
    (0..4).for_each(|d| store.tick(T0 + d * DAY_MS));
    store.mark_saved(&saved);
    let saved = save(&mut store, &mut files);
    let loaded = WindowStore::load(&saved.manifest, settings(), &files).expect("just written");
    assert!(shape(&loaded) == shape(&store));
}

#[test]
fn a_save_lets_go_of_what_was_read_of_earlier_files() {
    let mut store = WindowStore::new(settings());
    let mut files = MemoryFiles { maps: Maps::Anew, ..MemoryFiles::default() };
    let addresses = |store: &WindowStore| {
        let blocks = store.levels.iter().flat_map(BTreeMap::values).flat_map(|p| &p.blocks);
        blocks.map(|b| (b.id, b.block.bytes().as_ptr() as usize)).collect::<BTreeMap<_, _>>()
    };
    (0..5_000u64).for_each(|i| store.append(T0, row((i % 40) as u32, T0 + (i % 1_000) as i64, i)));
    store.tick(T0 + HOUR_MS);
    let first = save(&mut store, &mut files);
    let before = addresses(&store);
    let digest = store.digest();
    let second = save(&mut store, &mut files);
    assert_eq!(second.manifest, first.manifest, "nothing is written again");
    let after = addresses(&store);
    assert!(before.keys().eq(after.keys()) && !before.is_empty());
    assert!(before.iter().all(|(id, address)| after[id] != *address), "they are read through another map");
    assert_eq!(store.digest(), digest);
    // A file that somebody removed is still read where it is mapped.
    files.maps = Maps::Lost;
    save(&mut store, &mut files);
    assert_eq!(addresses(&store), after);
    assert_eq!(store.digest(), digest);
}

#[test]
fn too_many_cells_and_cancelling_stop_a_scan() {
    let mut store = WindowStore::new(settings());
    (0..100).for_each(|i| store.append(T0, row(i, T0, u64::from(i))));
    let one = plan(Grain::Minute, T0, T0 + HOUR_MS, HOUR_MS);
    let groups = || KeyGroups::pairs((0..100).map(|k| (k, k)).collect());
    let mut cells = CellMap::new(100, 1, 99);
    assert_eq!(store.scan(&one, ALL, groups(), &mut cells), Err(ScanStopped::TooManyCells { cells_max: 99 }));
    store.tick(T0 + HOUR_MS);
    let mut cells = CellMap::new(100, 1, 100);
    assert_eq!(store.view(&one, groups()).scan(ALL, &mut cells, &|| true), Err(ScanStopped::Cancelled));
    store.scan(&one, ALL, groups(), &mut cells).expect("as many as allowed");
    assert_eq!(cells.into_cells().len(), 100);
}

#[test]
fn times_far_out_of_range_do_not_overflow() {
    let mut store = WindowStore::new(settings());
    for (n, time_ms) in [i64::MIN, -1, 0, i64::MAX].into_iter().enumerate() {
        store.append(T0, row(0, time_ms, n as u64));
    }
    (0..3).for_each(|n| store.tick(T0 + n * DAY_MS));
    store.tick(i64::MAX);
    assert_eq!(total(&store, Grain::Day, -DAY_MS, DAY_MS, 1), 2);
    let mut files = MemoryFiles::default();
    let saved = save(&mut store, &mut files);
    assert!(WindowStore::load(&saved.manifest, settings(), &files).is_ok());
}
