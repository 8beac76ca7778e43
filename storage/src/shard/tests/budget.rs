//! Keys beyond the budget, against plain maps that follow the rule on their own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tallymesh_protocol::cardinality::{KeyBudget, MetricBudget, OTHER};
use tallymesh_protocol::question::answer::{OtherEvents, PartialAnswer};

use super::*;

/// Metric, then dimension values.
type Key = (MetricKind, String, Vec<Option<String>>);

fn budget(keys: u64, per_metric: u64, event_names: u64) -> KeyBudget {
    let metric = |keys| MetricBudget { event: keys, defined: keys };
    let metrics = BTreeMap::from([("event1".to_owned(), metric(2))]);
    KeyBudget { keys, reserved: 1, event_names, per_metric: metric(per_metric), metrics }
}

fn configure(index: u64, budget: Option<KeyBudget>) -> (u64, bytes::Bytes) {
    let settings = ShardSettings { lateness_ms: 60_000, cardinality: budget, ..initial_settings() };
    (index, encode_configure(BASE_MS, &settings))
}

fn home(event: &Event) -> Key {
    (MetricKind::Default, format!("event{}", event.name), event.texts().to_vec())
}

fn amounts(dimension: u8) -> Key {
    (MetricKind::Defined, "amounts".to_owned(), vec![Some(format!("v{dimension}"))])
}

fn other_of(kind: MetricKind, metric: &str, dimensions: usize) -> Key {
    (kind, metric.to_owned(), vec![Some(OTHER.to_owned()); dimensions])
}

#[derive(Clone, Debug)]
struct Counted {
    /// As it came.
    event: Event,
    value: Option<f64>,
    /// What it counts under.
    key: Key,
}

/// The rule once more: which keys have a name of their own, and what every row counts under.
#[derive(Default)]
struct Oracle {
    budget: Option<KeyBudget>,
    keys: BTreeMap<(MetricKind, String), BTreeSet<Key>>,
    ids: BTreeSet<u128>,
    rows: Vec<Counted>,
    /// Rows that were put under an other key, by its metric.
    beyond: BTreeMap<(MetricKind, String), u64>,
    /// Event names known when the first one was beyond the budget.
    safe_names: Option<BTreeSet<String>>,
}

impl Oracle {
    fn admit(&mut self, key: &Key) -> Key {
        let (kind, name, dimensions) = key;
        let known = self.keys.get(&(*kind, name.clone()));
        if known.is_some_and(|keys| keys.contains(key)) {
            return key.clone();
        }
        if let Some(budget) = &self.budget {
            let names = self.keys.keys().filter(|(kind, _)| *kind == MetricKind::Default).count() as u64;
            if known.is_none() && *kind == MetricKind::Default && names >= budget.event_names {
                let names = self.keys.keys().filter(|(kind, _)| *kind == MetricKind::Default).map(|(_, name)| name.clone());
                self.safe_names.get_or_insert_with(|| names.collect());
                return other_of(*kind, OTHER, dimensions.len());
            }
            let of_metric = known.map_or(0, BTreeSet::len) as u64;
            let all = self.keys.values().map(BTreeSet::len).sum::<usize>() as u64;
            let limit = budget.metrics.get(name).unwrap_or(&budget.per_metric).event;
            if of_metric >= limit || (all >= budget.keys && of_metric >= budget.reserved) {
                self.keys.entry((*kind, name.clone())).or_default();
                return other_of(*kind, name, dimensions.len());
            }
        }
        self.keys.entry((*kind, name.clone())).or_default().insert(key.clone());
        key.clone()
    }

    fn part(&mut self, events: &[Event]) {
        // Every key of the part is looked up once, in order of first appearance.
        let mut names: HashMap<Key, Key> = HashMap::new();
        for event in events {
            for key in [Some(home(event)), event.derived.map(|(d, _)| amounts(d))].into_iter().flatten() {
                names.entry(key).or_insert_with_key(|key| self.admit(key));
            }
        }
        for event in events.iter().filter(|e| self.ids.insert(e.hash())).collect::<Vec<_>>() {
            let rows = [Some((home(event), event.value)), event.derived.map(|(d, value)| (amounts(d), value))];
            for (own, value) in rows.into_iter().flatten() {
                let key = names[&own].clone();
                if key != own {
                    *self.beyond.entry((key.0, key.1.clone())).or_default() += 1;
                }
                self.rows.push(Counted { event: event.clone(), value, key });
            }
        }
    }

    fn check(&self, state: &ShardState) {
        let metrics: BTreeMap<(MetricKind, String), (u64, u64)> =
            state.metrics().into_iter().map(|m| ((m.kind, m.metric), (m.keys, m.other_rows))).collect();
        let mut expected: BTreeMap<(MetricKind, String), (u64, u64)> =
            self.keys.iter().map(|(name, keys)| (name.clone(), (keys.len() as u64, 0))).collect();
        for (name, rows) in &self.beyond {
            expected.entry(name.clone()).or_default().1 = *rows;
        }
        // The metric for names beyond may have a key and no row yet, where all that came were duplicates.
        let seen = metrics.iter().filter(|(name, use_)| **use_ != (0, 0) || expected.contains_key(*name));
        assert_eq!(seen.map(|(n, u)| (n.clone(), *u)).collect::<BTreeMap<_, _>>(), expected);
        assert_eq!(state.stats().other_rows, self.beyond.values().sum::<u64>());

        let all = |row: &&Counted| row.key.0 == MetricKind::Default;
        self.check_total(state, MetricSelector::All, all);
        self.check_total(state, MetricSelector::Defined("amounts".into()), |row| row.key.0 == MetricKind::Defined);
        for name in (0..8).map(|n| format!("event{n}")).chain([OTHER.to_owned()]) {
            self.check_total(state, MetricSelector::Event(name.clone()), |row| row.key.0 == MetricKind::Default && row.key.1 == name);
        }
        // Known keys and the other ones, each for itself.
        let dimensions = [0, 1, 2].map(DimensionRef::Index);
        let answer = ask(state, MetricSelector::All, &[&[DimensionRef::EventName], &dimensions[..]].concat(), &[]);
        let mut groups: BTreeMap<Vec<Option<String>>, u64> = BTreeMap::new();
        for row in self.rows.iter().filter(all) {
            *groups.entry([vec![Some(row.key.1.clone())], row.key.2.clone()].concat()).or_default() += 1;
        }
        let got: BTreeMap<_, _> = answer.cells.iter().map(|c| (answer.groups[c.group as usize].clone(), c.values.count)).collect();
        assert_eq!(got, groups);
        let beyond = self.rows.iter().filter(all).filter(|row| is_other(&row.key)).count() as u64;
        assert_eq!((answer.other.counted, answer.other.unjudged), (beyond, 0));
    }

    /// What is true of all rows must be answered, whatever they count under.
    fn check_total(&self, state: &ShardState, metric: MetricSelector, belongs: impl Fn(&&Counted) -> bool) {
        let rows: Vec<&Counted> = self.rows.iter().filter(belongs).collect();
        let answer = ask(state, metric.clone(), &[], &[]);
        let Some(cell) = answer.cells.first() else {
            assert_eq!(rows.len(), 0, "{metric:?}");
            return;
        };
        let got = &cell.values;
        let values: Vec<f64> = rows.iter().filter_map(|r| r.value).collect();
        assert_eq!((got.count, got.value_count), (rows.len() as u64, values.len() as u64), "{metric:?}");
        assert!((got.sum - values.iter().sum::<f64>()).abs() < 1e-6, "{metric:?}");
        assert_eq!(got.min, values.iter().copied().fold(f64::INFINITY, f64::min));
        assert_eq!(got.max, values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        assert_eq!(got.quantiles.count(), values.len() as u64);
        let last = rows.iter().filter_map(|r| Some((r.event.time_ms, r.event.hash() as u64, r.value?))).max_by_key(|l| (l.0, l.1));
        assert_eq!(got.last.map(|l| (l.time_ms, l.id, l.value)), last);
        let users: BTreeSet<u64> = rows.iter().map(|r| r.event.user_hash()).filter(|u| *u > 0).collect();
        assert_eq!((got.users.estimate(), got.sessions.estimate()), (users.len() as f64, users.len() as f64));
        assert_eq!(answer.other.counted, if metric == MetricSelector::Event(OTHER.into()) { answer.other.counted } else { 0 });
    }

    /// A filter on a dimension counts the rows whose value was kept; of the rest it says how many there are.
    fn check_filter(&self, state: &ShardState, name: &str, dimension: usize, negated: bool, value: Option<&str>) {
        let filter = DimensionFilter { dimension: DimensionRef::Index(dimension), negated, values: vec![value.map(str::to_owned)] };
        let answer = ask(state, MetricSelector::Event(name.to_owned()), &[], &[filter]);
        let of_name = |row: &&Counted| row.key.0 == MetricKind::Default && row.key.1 == name;
        let kept = self.rows.iter().filter(of_name).filter(|r| !is_other(&r.key));
        let wanted = kept.filter(|r| (r.key.2[dimension].as_deref() == value) != negated).count() as u64;
        assert_eq!(answer.cells.iter().map(|c| c.values.count).sum::<u64>(), wanted);
        // A name that was always known has no events among those without one.
        let is_safe = self.safe_names.as_ref().is_none_or(|names| names.contains(name));
        let metrics: &[&str] = if is_safe { &[name] } else { &[name, OTHER] };
        let beyond = self.rows.iter().filter(|r| r.key.0 == MetricKind::Default && is_other(&r.key));
        let lost = beyond.filter(|r| metrics.contains(&r.key.1.as_str()));
        assert_eq!((answer.other.counted, answer.other.unjudged), (0, lost.count() as u64), "{name}");
    }
}

fn is_other(key: &Key) -> bool {
    key.2.iter().all(|d| d.as_deref() == Some(OTHER))
}

fn ask(state: &ShardState, metric: MetricSelector, group_by: &[DimensionRef], filters: &[DimensionFilter]) -> PartialAnswer {
    let slice = Slice { from_ms: BASE_MS - DAY_MS, to_ms: BASE_MS + 10 * DAY_MS, grain: Grain::Day, bucket: 0 };
    let query = ShardQuery {
        tenant: "default".into(),
        metric,
        group_by: group_by.to_vec(),
        filters: filters.to_vec(),
        plan: ScanPlan { slices: vec![slice], buckets: 1 },
        wants: Wants { values: true, last: true, users: true, sessions: true, quantiles: true },
        cells_max: 10_000,
    };
    state.query(&query).expect("answers")
}

#[derive(Clone, Debug)]
enum Step {
    Entry(Vec<Vec<Event>>),
    Budget(Option<KeyBudget>),
    Reopen,
}

fn an_event() -> impl Strategy<Value = Event> {
    let value = prop::option::of(-50.0..50.0f64);
    (0..200u64, 0..8u8, [0..3u8, 0..2u8, 0..3u8], 0..4_000_000i64, 0..9u8, value.clone(), prop::option::of((0..6u8, value))).prop_map(
        |(id, name, dimensions, offset, user, value, derived)| Event {
            id,
            name,
            dimensions,
            time_ms: BASE_MS + offset,
            user,
            value,
            derived,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let budgets = (1..40u64, 1..8u64, 1..10u64).prop_map(|(keys, per_metric, names)| Some(budget(keys, per_metric, names)));
    let entries = prop::collection::vec(prop::collection::vec(an_event(), 0..40), 1..3).prop_map(Step::Entry);
    let step =
        prop_oneof![6 => entries, 1 => Just(Step::Reopen), 1 => budgets.clone().prop_map(Step::Budget), 1 => Just(Step::Budget(None))];
    (budgets, prop::collection::vec(step, 1..16)).prop_map(|(first, steps)| [vec![Step::Budget(first)], steps].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn totals_stay_exact_and_known_keys_go_on_by_themselves(steps in steps(), filters in prop::collection::vec((0..8u8, 0..3usize, any::<bool>(), prop::option::of(0..3u8)), 8)) {
        let (_, files) = simulated();
        let mut state = ShardState::new(OPTIONS);
        let mut replica = ShardState::new(OPTIONS);
        let mut oracle = Oracle::default();
        for (index, step) in (1..).zip(&steps) {
            let command = match step {
                Step::Entry(parts) => {
                    parts.iter().for_each(|part| oracle.part(part));
                    (index, encode_batches(BASE_MS, &parts.iter().map(|p| encode(p, 0)).collect::<Vec<_>>()))
                }
                Step::Budget(budget) => {
                    oracle.budget.clone_from(budget);
                    configure(index, budget.clone())
                }
                Step::Reopen => {
                    let saved = state.save_plan().write(&files, b"").expect("saves");
                    state.mark_saved(&saved);
                    state = ShardState::open(&files, OPTIONS).expect("opens").expect("was saved").0;
                    (index, encode_tick(BASE_MS))
                }
            };
            state.apply(command.0, &command.1).expect("applies");
            replica.apply(command.0, &command.1).expect("applies");
            prop_assert_eq!(state.checksum(), replica.checksum());
        }
        oracle.check(&state);
        for (name, dimension, negated, value) in filters {
            let value = value.map(|n| format!("v{n}"));
            oracle.check_filter(&state, &format!("event{name}"), dimension, negated, value.as_deref());
        }
    }
}

fn apply(state: &mut ShardState, index: u64, events: &[Event]) {
    let applied = state.apply(index, &encode_batches(BASE_MS, &[encode(events, 0)])).expect("applies");
    assert_eq!(applied.parts[0].counted as usize, events.len());
}

fn keyed(id: u64, name: u8, key: u8) -> Event {
    Event { name, dimensions: [key, 0, 0], derived: Some((key, Some(1.0))), ..event(id) }
}

#[test]
fn a_duplicate_is_known_whatever_key_it_counted_under() {
    let mut state = ShardState::new(OPTIONS);
    let (index, command) = configure(1, Some(budget(100, 2, 9)));
    state.apply(index, &command).expect("applies");
    let events: Vec<Event> = (0..10).map(|n| keyed(n, 0, n as u8)).collect();
    apply(&mut state, 2, &events);
    // A larger budget does not make a retry a new event, nor move what is counted.
    let (index, command) = configure(3, None);
    state.apply(index, &command).expect("applies");
    let again = state.apply(4, &encode_batches(BASE_MS, &[encode(&events, 0)])).expect("applies");
    assert_eq!((again.parts[0].counted, again.parts[0].duplicates), (0, 10));
    let info = &state.metrics_over_budget()[0];
    assert_eq!(
        (info.metric.as_str(), info.keys, info.other_rows),
        ("event0", 10, 8),
        "keys are known by now, their events stay where they were"
    );
}

#[test]
fn a_million_keys_make_no_more_of_them_than_the_budget_has() {
    let mut state = ShardState::new(OPTIONS);
    let (index, command) = configure(1, Some(budget(1_000, 500, 20)));
    state.apply(index, &command).expect("applies");
    let entry = |index: u64| {
        let key = |n: u64| {
            let mut key = Vec::new();
            let name = if n.is_multiple_of(2) { "page_view".to_owned() } else { format!("event {n}") };
            encode_key(&mut key, MetricKind::Default, "default", &name, [Some(format!("source {n}").as_str()), None, None]);
            key
        };
        let keys: Vec<Vec<u8>> = (index * 10_000..(index + 1) * 10_000).map(key).collect();
        let ends = keys.iter().scan(0u32, |end, key| {
            *end += key.len() as u32;
            Some(*end)
        });
        let n = keys.len();
        let batch = ShardBatch {
            key_hashes: keys.iter().map(|k| key_hash(k)).collect(),
            key_ends: ends.collect(),
            key_bytes: keys.concat(),
            keys: (0..n as u32).collect(),
            times: vec![BASE_MS; n],
            ids: keys.iter().map(|k| key_hash(k)).collect(),
            users: vec![0; n],
            sessions: vec![0; n],
            values: vec![1.0; n],
            ..ShardBatch::default()
        };
        encode_batches(BASE_MS, &[batch.encode()])
    };
    let mut memory = Vec::new();
    for index in 0..100 {
        state.apply(index + 2, &entry(index)).expect("applies");
        memory.push(state.stats().keys_memory_bytes);
    }
    let stats = state.stats();
    assert_eq!(stats.counters.events, 1_000_000);
    // 500 of page_view, one of each of 19 other names, and the other keys of page_view and of the names.
    assert_eq!((stats.keys, stats.other_rows), (500 + 19 + 2, 1_000_000 - 519));
    assert_eq!(memory[0], memory[99], "nothing grows once the budget is used up");
    assert!(memory[99] < 200_000, "{} bytes of keys", memory[99]);
    let all = ask(&state, MetricSelector::All, &[], &[]);
    assert_eq!((all.cells[0].values.count, all.cells[0].values.sum), (1_000_000, 1e6));
}

#[test]
fn a_metric_that_uses_up_all_keys_leaves_the_others_theirs() {
    let mut state = ShardState::new(OPTIONS);
    let (index, command) = configure(1, Some(KeyBudget { reserved: 2, ..budget(10, 50, 9) }));
    state.apply(index, &command).expect("applies");
    apply(&mut state, 2, &(0..40).map(|n| Event { derived: None, ..keyed(n, 0, n as u8) }).collect::<Vec<_>>());
    apply(&mut state, 3, &(40..45).map(|n| Event { derived: None, ..keyed(n, 3, n as u8) }).collect::<Vec<_>>());
    let keys: Vec<(String, u64, u64)> = state.metrics().into_iter().map(|m| (m.metric, m.keys, m.other_rows)).collect();
    assert_eq!(keys, [("event0".to_owned(), 10, 30), ("event3".to_owned(), 2, 3)]);
}

#[test]
fn a_filter_on_other_means_the_other_rows_themselves() {
    let mut state = ShardState::new(OPTIONS);
    let (index, command) = configure(1, Some(budget(100, 2, 9)));
    state.apply(index, &command).expect("applies");
    apply(&mut state, 2, &(0..10).map(|n| keyed(n, 0, n as u8)).collect::<Vec<_>>());
    let on = |negated, values: &[&str]| {
        let values = values.iter().map(|v| Some((*v).to_owned())).collect();
        let answer = ask(
            &state,
            MetricSelector::Event("event0".into()),
            &[],
            &[DimensionFilter { dimension: DimensionRef::Index(0), negated, values }],
        );
        (answer.cells.iter().map(|c| c.values.count).sum::<u64>(), answer.other)
    };
    let other = |counted, unjudged| OtherEvents { counted, unjudged, names_beyond: false };
    assert_eq!(on(false, &[OTHER]), (8, other(8, 0)));
    assert_eq!(on(false, &["v0", OTHER]), (9, other(8, 0)));
    assert_eq!(on(true, &[OTHER]), (2, other(0, 0)), "whoever leaves them out has been told");
    assert_eq!(on(true, &["v0"]), (1, other(0, 8)));
    assert_eq!(on(false, &["v7"]), (0, other(0, 8)), "v7 is among them, but nobody knows");
}

#[test]
fn what_uses_the_budget_up_has_a_name() {
    let mut state = ShardState::new(OPTIONS);
    let (index, command) = configure(1, Some(budget(100, 6, 2)));
    state.apply(index, &command).expect("applies");
    apply(
        &mut state,
        2,
        &(0..20).map(|n| Event { dimensions: [n as u8, (n % 2) as u8, 0], ..keyed(n, n as u8 / 10, 0) }).collect::<Vec<_>>(),
    );
    apply(&mut state, 3, &[keyed(90, 7, 0)]);
    let uses = state.dimension_uses(MetricKind::Default, "default", "event0");
    assert_eq!(uses.iter().map(|u| u.values.len()).collect::<Vec<_>>(), [6, 2, 0]);
    assert_eq!(uses[0].samples, ["v5", "v4", "v3", "v2", "v1"], "the newest that were kept");
    let names = state.name_use("default");
    assert_eq!((names.values.len(), names.samples), (2, vec!["event1".to_owned(), "event0".to_owned()]));
}
