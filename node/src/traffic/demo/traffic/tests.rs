use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;

/// 2026-03-11 00:00 UTC, a Wednesday.
const WEDNESDAY: i64 = 1_773_187_200_000;

fn day(seed: u64, rate: f64) -> Vec<SampleEvent> {
    Traffic::new(seed, rate).minutes_from(WEDNESDAY).take(1_440).flat_map(|(_, events)| events).collect()
}

fn count(events: &[SampleEvent], name: &str) -> f64 {
    events.iter().filter(|e| e.name == name).count() as f64
}

#[test]
fn a_minute_made_alone_is_the_same_as_in_a_run() {
    let traffic = Traffic::new(7, 4.0);
    for (start_ms, events) in traffic.minutes_from(WEDNESDAY + 10 * HOUR_MS).take(45).skip(33) {
        assert_eq!(traffic.minute(start_ms), events);
        assert!(events.iter().all(|e| Grain::Minute.floor(e.timestamp_ms) == start_ms));
        assert!(!events.is_empty());
    }
}

#[test]
fn a_lower_rate_sends_a_part_of_the_same_events() {
    let lines = |rate| -> HashSet<Vec<u8>> {
        let mut lines = HashSet::new();
        for event in Traffic::new(7, rate).minute(WEDNESDAY + 15 * HOUR_MS) {
            let mut line = Vec::new();
            event.write_ndjson(&mut line);
            lines.insert(line);
        }
        lines
    };
    let (few, many) = (lines(2.0), lines(20.0));
    assert!(few.len() > 20 && few.len() * 5 < many.len(), "{} of {}", few.len(), many.len());
    assert!(few.is_subset(&many));
}

#[test]
fn another_seed_makes_other_events() {
    let ids: HashSet<_> = Traffic::new(1, 5.0).minute(WEDNESDAY).iter().map(SampleEvent::event_id).collect();
    assert!(Traffic::new(2, 5.0).minute(WEDNESDAY).iter().all(|e| !ids.contains(&e.event_id())));
}

#[test]
fn event_ids_of_a_day_are_unique() {
    let events = day(1, 3.0);
    let ids: HashSet<_> = events.iter().map(SampleEvent::event_id).collect();
    assert_eq!(ids.len(), events.len());
}

#[test]
fn the_rate_is_the_mean_of_the_day() {
    let events = day(3, 4.0).len() as f64;
    let per_second = events / 86_400.0 / 1.112;
    assert!((3.8..4.2).contains(&per_second), "{per_second} events/s");
}

#[test]
fn the_rate_holds_also_when_visits_are_few() {
    let draws = |mean| (0..20_000).map(|i| poisson(mean, &mut Random::of(1, i, 0)) as f64).sum::<f64>() / 20_000.0;
    for mean in [0.05, 0.7, 4.0, 29.0, 31.0, 500.0] {
        assert!((draws(mean) / mean - 1.0).abs() < 0.08, "{mean}: {}", draws(mean));
    }
}

#[test]
fn nights_are_quieter_than_days() {
    let mut by_hour = [0u32; 24];
    for event in day(1, 4.0) {
        by_hour[(event.timestamp_ms.rem_euclid(DAY_MS) / HOUR_MS) as usize] += 1;
    }
    let (least, most) = (by_hour.iter().min().expect("24 hours"), by_hour.iter().max().expect("24 hours"));
    assert!(*least > 0 && most > &(least * 2), "{by_hour:?}");
}

#[test]
fn the_funnel_converts_as_told_and_in_order() {
    let events = day(1, 6.0);
    let share = count(&events, "signup_completed") / count(&events, "signup_started");
    assert!((0.33..0.43).contains(&share), "{share}");
    let mut begun = HashSet::new();
    let mut started = HashSet::new();
    for event in &events {
        match event.name {
            "session_start" => assert!(begun.insert(event.session)),
            "signup_started" => assert!(started.insert((event.session, event.user))),
            // The first visits of the day began the day before.
            "signup_completed" if begun.contains(&event.session) => assert!(started.contains(&(event.session, event.user)), "{event:?}"),
            _ => {}
        }
    }
}

#[test]
fn errors_are_rare_but_come_in_spikes() {
    let events = day(1, 5.0);
    let share = count(&events, "error_occurred") / events.len() as f64;
    assert!((0.003..0.012).contains(&share), "{share}");
    let incidents = (0..7 * 1_440).filter(|m| Traffic::new(1, 1.0).error_rate(WEDNESDAY + m * MINUTE_MS) > ERROR_RATE).count();
    assert!((20..400).contains(&incidents), "{incidents} minutes of a week");
}

#[test]
fn traffic_looks_like_a_product() {
    let events = day(1, 3.0);
    let all = events.len() as f64;
    let anonymous = events.iter().filter(|e| e.user.is_none()).count() as f64 / all;
    assert!((0.25..0.35).contains(&anonymous), "{anonymous} anonymous");
    for name in [
        "session_start",
        "session_end",
        "page_view",
        "button_click",
        "search",
        "login",
        "feature_used",
        "purchase",
        "invite_sent",
        "api_call",
    ] {
        assert!(count(&events, name) > 10.0, "{name}");
    }
    let mut countries = BTreeMap::<_, u32>::new();
    let mut visits_of = HashMap::<u64, HashSet<u128>>::new();
    for event in &events {
        *countries.entry(event.country).or_default() += 1;
        if let Some(user) = event.user {
            visits_of.entry(user).or_default().insert(event.session);
        }
        assert!(event.name != "purchase" || event.value.is_some_and(|v| v > 0.0));
        assert_eq!(event.name == "feature_used", event.properties.feature.is_some());
        assert!(event.name != "page_view" || event.properties.page.is_some());
    }
    assert!(countries.len() >= 30 && countries["US"] > 2 * countries["DE"], "{countries:?}");
    let returning = visits_of.values().filter(|visits| visits.len() > 1).count() as f64 / visits_of.len() as f64;
    assert!((0.1..0.9).contains(&returning), "{returning} of users come again");
}

#[test]
fn visits_span_minutes_and_end_in_time() {
    let events = day(1, 2.0);
    let mut spans = HashMap::<u128, (i64, i64)>::new();
    for event in &events {
        let span = spans.entry(event.session).or_insert((event.timestamp_ms, event.timestamp_ms));
        span.1 = event.timestamp_ms;
    }
    assert!(spans.values().all(|(from, to)| to - from < SESSION_MINUTES_MAX * MINUTE_MS));
    assert!(spans.values().filter(|(from, to)| to - from > 2 * MINUTE_MS).count() > 50);
}

#[test]
fn a_line_is_one_json_object_of_the_schema() {
    for event in day(1, 0.5) {
        let mut line = Vec::new();
        event.write_ndjson(&mut line);
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
        let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        let parsed =
            tallymesh_protocol::event::parse::parse_event(std::str::from_utf8(&line).expect("text").trim_end()).expect("a valid event");
        assert_eq!((parsed.name.as_ref(), parsed.timestamp_ms, parsed.value), (event.name, Some(event.timestamp_ms), event.value));
        assert_eq!(parsed.default_dimensions(), [Some(event.source), Some(event.device), Some(event.country)]);
        assert!(!parsed.has_extra_fields);
        assert_eq!(json["event_id"], event.event_id());
        assert_eq!(json["event"], event.name);
        assert_eq!(json["timestamp"], event.timestamp_ms);
        assert_eq!(json["value"].as_f64(), event.value);
        assert_eq!(json["properties"]["page"].as_str(), event.properties.page);
    }
}
