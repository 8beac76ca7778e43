//! What the node counts about itself. Counters are atomics; durations go into a sketch that forgets after two minutes, so that p99 is of now.

mod exposition;
mod latency;
mod process;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_protocol::event::RejectCode;

pub use exposition::{Exposition, Kind};
pub use latency::Latency;
pub use process::ProcessUse;

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub struct Metrics {
    pub events: Counter,
    pub duplicates: Counter,
    pub generated_ids: Counter,
    /// Requests whose batches were made again because metrics were defined meanwhile.
    pub made_again: Counter,
    pub encoded_bytes: Counter,
    pub decoded_bytes: Counter,
    /// Refused events that the dead-letter store did not take.
    pub letters_lost: Counter,
    pub panics: Counter,
    pub connections: AtomicU64,
    rejected: [Counter; RejectCode::ALL.len()],
    /// Queries that shards were asked.
    pub evaluated: Counter,
    append: Mutex<Latency>,
    query: Mutex<Latency>,
    routes: Mutex<HashMap<String, Route>>,
}

#[derive(Default)]
struct Route {
    latency: Latency,
    /// By method and status.
    answers: Vec<(&'static str, u16, u64)>,
}

impl Metrics {
    pub fn rejected(&self, code: RejectCode, count: u64) {
        self.rejected[code as usize].add(count);
    }

    /// `now` is monotonic.
    pub fn appended(&self, now: Duration, took: Duration) {
        self.append.lock().add(now, took);
    }

    /// `now` is monotonic. A query that was answered, whether from the cache or not.
    pub fn queried(&self, now: Duration, took: Duration) {
        self.query.lock().add(now, took);
    }

    /// `route` is the pattern, never the path: the number of series stays bounded.
    pub fn answered(&self, route: &str, method: &axum::http::Method, status: u16, now: Duration, took: Duration) {
        let method = method_name(method);
        let mut routes = self.routes.lock();
        let stats = match routes.get_mut(route) {
            Some(stats) => stats,
            None => routes.entry(route.to_owned()).or_default(),
        };
        stats.latency.add(now, took);
        match stats.answers.iter_mut().find(|(m, s, _)| (*m, *s) == (method, status)) {
            Some((_, _, count)) => *count += 1,
            None => stats.answers.push((method, status, 1)),
        }
    }

    /// Everything here as Prometheus text.
    pub fn expose(&self, now: Duration, out: &mut Exposition) {
        out.single("tallymesh_events_total", Kind::Counter, "Events newly counted.", self.events.get() as f64);
        out.single("tallymesh_duplicates_total", Kind::Counter, "Events that had been counted before.", self.duplicates.get() as f64);
        out.single("tallymesh_generated_ids_total", Kind::Counter, "Events that came without an id.", self.generated_ids.get() as f64);
        out.single(
            "tallymesh_requests_made_again_total",
            Kind::Counter,
            "Requests whose batches were made again because metrics were defined meanwhile.",
            self.made_again.get() as f64,
        );
        out.family("tallymesh_rejected_total", Kind::Counter, "Events refused, by reason.");
        for code in RejectCode::ALL {
            out.sample("tallymesh_rejected_total", &[("code", code.as_str())], self.rejected[code as usize].get() as f64);
        }
        out.family("tallymesh_ingest_bytes_total", Kind::Counter, "Bytes of ingest bodies as sent and decompressed.");
        out.sample("tallymesh_ingest_bytes_total", &[("form", "encoded")], self.encoded_bytes.get() as f64);
        out.sample("tallymesh_ingest_bytes_total", &[("form", "decoded")], self.decoded_bytes.get() as f64);
        out.single(
            "tallymesh_dead_letters_lost_total",
            Kind::Counter,
            "Refused events that could not be kept.",
            self.letters_lost.get() as f64,
        );
        out.single("tallymesh_panics_total", Kind::Counter, "Requests that ended in a panic.", self.panics.get() as f64);
        let connections = self.connections.load(Ordering::Relaxed);
        out.single("tallymesh_http_connections", Kind::Gauge, "Open connections.", connections as f64);
        out.family("tallymesh_append_seconds", Kind::Summary, "Time from a batch's hand-over to its being durable and applied.");
        self.append.lock().expose(now, "tallymesh_append_seconds", &[], out);
        out.single("tallymesh_queries_evaluated_total", Kind::Counter, "Queries that shards were asked.", self.evaluated.get() as f64);
        out.family("tallymesh_query_seconds", Kind::Summary, "Time from a query's parameters to its answer, cached or not.");
        self.query.lock().expose(now, "tallymesh_query_seconds", &[], out);
        self.expose_routes(now, out);
    }

    fn expose_routes(&self, now: Duration, out: &mut Exposition) {
        let mut routes = self.routes.lock();
        let mut routes: Vec<(&String, &mut Route)> = routes.iter_mut().collect();
        routes.sort_by_key(|(route, _)| *route);
        out.family("tallymesh_http_requests_total", Kind::Counter, "Requests answered.");
        for (route, stats) in &routes {
            for (method, status, count) in &stats.answers {
                let labels = [("route", route.as_str()), ("method", method), ("status", &status.to_string())];
                out.sample("tallymesh_http_requests_total", &labels, *count as f64);
            }
        }
        out.family("tallymesh_http_request_seconds", Kind::Summary, "Time from a request's head to its answer's head.");
        for (route, stats) in &mut routes {
            stats.latency.expose(now, "tallymesh_http_request_seconds", &[("route", route)], out);
        }
    }
}

fn method_name(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_said_once_and_codes_have_their_own_series() {
        let metrics = Metrics::default();
        metrics.rejected(RejectCode::BadJson, 3);
        let now = Duration::from_secs(1);
        for status in [200, 200, 422] {
            metrics.answered("/v1/events", &axum::http::Method::POST, status, now, Duration::from_millis(4));
        }
        metrics.answered("/v1/\"odd\"\n", &axum::http::Method::from_bytes(b"BREW").expect("token"), 405, now, Duration::ZERO);
        let mut out = Exposition::default();
        metrics.expose(now, &mut out);
        let text = out.finish();
        for line in [
            r#"tallymesh_rejected_total{code="bad_json"} 3"#,
            r#"tallymesh_rejected_total{code="future"} 0"#,
            r#"tallymesh_http_requests_total{route="/v1/events",method="POST",status="200"} 2"#,
            r#"tallymesh_http_requests_total{route="/v1/\"odd\"\n",method="other",status="405"} 1"#,
            r#"tallymesh_http_request_seconds_count{route="/v1/events"} 3"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing from\n{text}");
        }
        let mut families: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let all = families.len();
        families.dedup();
        assert_eq!(families.len(), all);
    }
}
