//! Seeded streams of product events as request bodies: 30 names and 60 countries zipf-like, 4 devices, 3 sources, 20 000 live sessions, 200 000 users
//! (30 % anonymous), 2 % of the events up to half an hour late, about 330 bytes each.

use std::io::Write;

use bytes::Bytes;
use tallymesh_protocol::time::{DAY_MS, HOUR_MS};

use crate::traffic::demo::random::{Cumulative, Random};

const NAMES: [&str; 30] = [
    "page_view",
    "button_click",
    "feature_used",
    "session_start",
    "search",
    "scroll",
    "item_viewed",
    "signup_started",
    "add_to_cart",
    "signup_completed",
    "error_occurred",
    "purchase",
    "login",
    "logout",
    "checkout_started",
    "video_played",
    "share",
    "comment_posted",
    "file_uploaded",
    "notification_opened",
    "invite_sent",
    "settings_changed",
    "plan_upgraded",
    "plan_downgraded",
    "export_run",
    "api_call",
    "webhook_received",
    "password_reset",
    "onboarding_step",
    "account_deleted",
];
const DEVICES: [(&str, f64); 4] = [("mobile", 48.0), ("desktop", 40.0), ("tablet", 9.0), ("tv", 3.0)];
const SOURCES: [(&str, f64); 3] = [("web", 58.0), ("mobile", 34.0), ("api", 8.0)];
const COUNTRIES: [&str; 60] = [
    "US", "IN", "GB", "DE", "BR", "FR", "CA", "JP", "AU", "ES", "IT", "NL", "MX", "PL", "SE", "KR", "ID", "TR", "CH", "AR", "BE", "NO",
    "DK", "FI", "IE", "PT", "SG", "ZA", "PH", "VN", "TH", "MY", "CO", "CL", "PE", "UA", "RO", "CZ", "GR", "HU", "IL", "AE", "SA", "EG",
    "NG", "KE", "PK", "BD", "LK", "NZ", "HK", "TW", "AT", "SK", "BG", "HR", "RS", "LT", "LV", "EE",
];
const PAGES: [&str; 8] = ["/", "/pricing", "/docs", "/blog", "/app/dashboard", "/app/settings", "/checkout", "/signup"];
const REFERRERS: [&str; 6] = ["google", "newsletter", "direct", "twitter", "partner", "none"];
const SESSIONS_LIVE: usize = 20_000;
const USERS: f64 = 200_000.0;
const LATE_SHARE: f64 = 0.02;

/// Over how long the events are spread, which decides how many share a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// A day: most one-minute keys get one or two events
    Sparse,
    /// An hour
    Dense,
}

impl Shape {
    pub fn span_ms(self) -> i64 {
        match self {
            Self::Sparse => DAY_MS,
            Self::Dense => HOUR_MS,
        }
    }
}

struct Session {
    id: u128,
    user: Option<u32>,
    device: &'static str,
    country: &'static str,
    source: &'static str,
}

/// Makes `count` events in time order, ending at `end_ms`.
pub struct Stream {
    random: Random,
    names: Cumulative,
    countries: Cumulative,
    sessions: Vec<Session>,
    made: u64,
    count: u64,
    start_ms: i64,
    span_ms: i64,
}

impl Stream {
    pub fn new(seed: u64, shape: Shape, count: u64, end_ms: i64) -> Self {
        let span_ms = shape.span_ms();
        Self {
            random: Random::of(seed, 0xbe7c, 0),
            names: Cumulative::zipf(NAMES.len(), 1.1),
            countries: Cumulative::zipf(COUNTRIES.len(), 1.0),
            sessions: Vec::with_capacity(SESSIONS_LIVE),
            made: 0,
            count,
            start_ms: end_ms - span_ms,
            span_ms,
        }
    }

    fn session(&mut self) -> Session {
        let r = &mut self.random;
        Session {
            id: r.wide_bits(),
            user: r.chance(0.7).then(|| (r.unit().powi(2) * USERS) as u32),
            device: r.weighted(&DEVICES).unwrap_or("mobile"),
            country: COUNTRIES[self.countries.pick(r)],
            source: r.weighted(&SOURCES).unwrap_or("web"),
        }
    }

    fn pick_session(&mut self) -> usize {
        if self.sessions.len() < SESSIONS_LIVE {
            let session = self.session();
            self.sessions.push(session);
            return self.sessions.len() - 1;
        }
        let at = self.random.below(SESSIONS_LIVE as u64) as usize;
        if self.random.chance(0.08) {
            self.sessions[at] = self.session();
        }
        at
    }

    fn write_event(&mut self, out: &mut Vec<u8>) {
        let due = self.start_ms + (self.made as f64 / self.count as f64 * self.span_ms as f64) as i64;
        let late_ms = if self.random.chance(LATE_SHARE) { self.random.between(5_000.0, 1_800_000.0) as i64 } else { 0 };
        let jitter_ms = self.random.between(-200.0, 200.0) as i64;
        let timestamp = (due + jitter_ms - late_ms).clamp(self.start_ms, self.start_ms + self.span_ms - 1);
        let at = self.pick_session();
        let name = NAMES[self.names.pick(&mut self.random)];
        let r = &mut self.random;
        let session = &self.sessions[at];
        // Writing to a `Vec` cannot fail.
        let _ = write!(
            out,
            "{{\"event_id\":\"{}\",\"event\":\"{name}\",\"timestamp\":{timestamp},\"session_id\":\"{}\",\"user_id\":",
            Uuid(r.wide_bits()),
            Uuid(session.id)
        );
        let _ = match session.user {
            Some(user) => write!(out, "\"u_{user:06}\""),
            None => write!(out, "null"),
        };
        let _ = write!(
            out,
            ",\"device_type\":\"{}\",\"country_code\":\"{}\",\"source\":\"{}\",\"value\":{:.2},\"properties\":{{\"page\":\"{}\",\"referrer\":\"{}\"",
            session.device,
            session.country,
            session.source,
            r.exponential(40.0),
            PAGES[r.below(8) as usize],
            REFERRERS[r.below(6) as usize]
        );
        let extras = r.below(4);
        if extras > 0 {
            let _ = write!(out, ",\"ab_bucket\":\"exp_{}\"", r.below(20));
        }
        if extras > 1 {
            let _ = write!(out, ",\"app_version\":\"4.{}.{}\"", r.below(12), r.below(9));
        }
        if extras > 2 {
            let _ = write!(out, ",\"is_new\":{}", r.chance(0.5));
        }
        out.extend_from_slice(b"}}\n");
        self.made += 1;
    }

    /// All events as NDJSON bodies of `batch` events.
    pub fn bodies(mut self, batch: u64) -> Vec<Body> {
        let mut bodies = Vec::with_capacity(self.count.div_ceil(batch) as usize);
        bodies.extend(std::iter::from_fn(|| self.body(batch)));
        bodies
    }

    /// The next `batch` events, or as many as are left.
    pub fn body(&mut self, batch: u64) -> Option<Body> {
        let events = batch.min(self.count - self.made);
        let mut ndjson = Vec::with_capacity(events as usize * 360);
        for _ in 0..events {
            self.write_event(&mut ndjson);
        }
        ndjson.shrink_to_fit();
        (events > 0).then(|| Body { ndjson: ndjson.into(), events })
    }
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Body {
    pub ndjson: Bytes,
    pub events: u64,
}

/// How every line of a body begins.
const LINE_HEAD: &[u8] = b"{\"event_id\":\"";
/// Hexadecimal digits of an id that differ between rounds.
const ROUND_DIGITS: usize = 8;

impl Body {
    /// The same events with other ids, in each round others: new events of the same windows.
    pub fn in_round(&self, round: u32) -> Self {
        if round == 0 {
            return self.clone();
        }
        let mut ndjson = self.ndjson.to_vec();
        let mut start = 0;
        while let Some(line) = ndjson.get_mut(start..).filter(|rest| !rest.is_empty()) {
            let end = memchr::memchr(b'\n', line).map_or(line.len(), |at| at + 1);
            if let Some(digits) = line.get_mut(LINE_HEAD.len()..LINE_HEAD.len() + ROUND_DIGITS) {
                let old = std::str::from_utf8(digits).ok().and_then(|d| u32::from_str_radix(d, 16).ok()).unwrap_or_default();
                // Another number for each round, and never the old one.
                digits.copy_from_slice(format!("{:08x}", old ^ round.wrapping_mul(0x9e37_79b1)).as_bytes());
            }
            start += end;
        }
        Self { ndjson: ndjson.into(), events: self.events }
    }
}

/// Version 4 layout, as SDKs send it.
struct Uuid(u128);

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        uuid::Builder::from_random_bytes(self.0.to_be_bytes()).into_uuid().hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use tallymesh_protocol::event::parse::parse_event;

    use super::*;

    const END: i64 = 1_773_187_200_000;

    #[test]
    fn the_same_seed_makes_the_same_bodies() {
        let bodies = |seed| Stream::new(seed, Shape::Dense, 500, END).bodies(200);
        let text = |seed| bodies(seed).into_iter().map(|b| b.ndjson).collect::<Vec<_>>();
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        assert_eq!(bodies(1).iter().map(|b| b.events).collect::<Vec<_>>(), [200, 200, 100]);
    }

    #[test]
    fn a_round_has_other_ids_and_is_otherwise_the_same() {
        let bodies = Stream::new(3, Shape::Dense, 300, END).bodies(100);
        let (mut ids, mut rest) = (HashSet::new(), HashSet::new());
        for round in 0..4 {
            for body in bodies.iter().map(|b| b.in_round(round)) {
                for line in std::str::from_utf8(&body.ndjson).expect("text").lines() {
                    let event = parse_event(line).expect("a valid event");
                    assert!(ids.insert(event.event_id.expect("an id").into_owned()));
                    rest.insert(line[LINE_HEAD.len() + ROUND_DIGITS..].to_owned());
                }
            }
        }
        assert_eq!((ids.len(), rest.len()), (1_200, 300));
    }

    #[test]
    fn events_are_valid_distinct_and_of_the_right_size_and_time() {
        const COUNT: u64 = 30_000;
        for shape in [Shape::Sparse, Shape::Dense] {
            let (mut ids, mut names, mut anonymous, mut bytes) = (HashSet::new(), HashMap::<String, u32>::new(), 0, 0);
            for body in Stream::new(42, shape, COUNT, END).bodies(10_000) {
                bytes += body.ndjson.len();
                for line in std::str::from_utf8(&body.ndjson).expect("text").lines() {
                    let event = parse_event(line).expect("a valid event");
                    assert!(ids.insert(event.event_id.clone().expect("an id").into_owned()));
                    assert!((END - shape.span_ms()..END).contains(&event.timestamp_ms.expect("a time")));
                    assert!(event.value.is_some() && event.session_id.is_some() && !event.has_extra_fields);
                    anonymous += u32::from(event.user_id.is_none());
                    *names.entry(event.name.into_owned()).or_default() += 1;
                }
            }
            assert_eq!(ids.len() as u64, COUNT);
            assert_eq!(names.len(), NAMES.len());
            // 1 / (1 + 1/2^1.1 + ... + 1/30^1.1)
            let share = f64::from(names["page_view"]) / COUNT as f64;
            assert!((0.28..0.34).contains(&share), "{share}");
            assert!((0.27..0.33).contains(&(f64::from(anonymous) / COUNT as f64)));
            assert!((300..360).contains(&(bytes as u64 / COUNT)), "{} bytes an event", bytes as u64 / COUNT);
        }
    }
}
