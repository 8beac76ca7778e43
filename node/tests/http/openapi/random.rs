//! Requests made at random from the document: most by its rules, some against them. Whatever comes back is documented, and no fault of the node.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::contract::Contract;
use super::{ENDLESS, TestNode, lines};

const REQUESTS: usize = 600;
const SEED: u64 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_are_answered_as_documented_and_none_is_a_fault() {
    let node = TestNode::start().await;
    assert_eq!(node.post_ndjson(lines(0..200)).await.counts().1, 200);
    let contract = Contract::of(&node).await;
    let document = contract.document().clone();
    let operations: Vec<(&String, &String, &Value)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, methods)| methods.as_object().expect("methods").iter().map(move |(method, operation)| (path, method, operation)))
        .filter(|(path, ..)| !ENDLESS.contains(&path.as_str()))
        .collect();
    let mut maker = Maker { rng: SmallRng::seed_from_u64(SEED), document: &document };
    let mut good = 0;
    for i in 0..REQUESTS {
        let (path, method, operation) = operations[i % operations.len()];
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
        let (path, body) = maker.request(path, operation);
        let status = contract.hold(&node, method.clone(), &path, body.clone()).await;
        // A query may be given too little time.
        assert!(status < 500 || status == 504, "{method} {path} {body:?} -> {status}, seed {SEED}, request {i}");
        good += usize::from(status < 300);
    }
    // Otherwise only the doors were looked at, not what is behind them.
    assert!(good * 3 > REQUESTS, "{good} of {REQUESTS} were answered");
}

struct Maker<'a> {
    rng: SmallRng,
    document: &'a Value,
}

impl Maker<'_> {
    /// Path with query string, and the body.
    fn request(&mut self, path: &str, operation: &Value) -> (String, Option<String>) {
        let mut url = Url::parse("http://node").expect("a URL");
        let mut path = path.to_owned();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            let needed = parameter["required"] == true || ["range", "name"].contains(&name);
            match parameter["in"].as_str() {
                Some("path") => path = path.replace(&format!("{{{name}}}"), &self.text(&parameter["schema"])),
                Some("query") if self.rng.random_bool(if needed { 0.9 } else { 0.15 }) => {
                    let value = self.value(&parameter["schema"], name);
                    match value {
                        Value::Array(items) if parameter["explode"] == false => {
                            let items: Vec<String> = items.iter().map(plain).collect();
                            url.query_pairs_mut().append_pair(name, &items.join(","));
                        }
                        Value::Array(items) => items.iter().for_each(|item| {
                            url.query_pairs_mut().append_pair(name, &plain(item));
                        }),
                        one => {
                            url.query_pairs_mut().append_pair(name, &plain(&one));
                        }
                    }
                }
                _ => {}
            }
        }
        let body = operation["requestBody"]["content"]["application/json"]["schema"].as_object().map(|schema| {
            let value = self.value(&Value::Object(schema.clone()), "");
            let mut text = value.to_string();
            if self.rng.random_bool(0.05) {
                let cut = text.char_indices().map(|(at, _)| at).nth(self.rng.random_range(0..20));
                text.truncate(cut.unwrap_or(0));
            }
            text
        });
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        (format!("{path}{query}"), body)
    }

    fn text(&mut self, schema: &Value) -> String {
        plain(&self.value(schema, ""))
    }

    /// Mostly as the schema wants it.
    fn value(&mut self, schema: &Value, name: &str) -> Value {
        if self.rng.random_bool(0.03) {
            return self.anything();
        }
        if let Some(target) = schema["$ref"].as_str() {
            let found = self.document.pointer(target.trim_start_matches('#')).expect("in the document");
            return self.value(&found.clone(), name);
        }
        if let Some(one) = schema["oneOf"].as_array().and_then(|all| all.choose(&mut self.rng)).cloned() {
            return self.value(&one, name);
        }
        if let Some(one) = schema["enum"].as_array().and_then(|all| all.choose(&mut self.rng)) {
            return one.clone();
        }
        let known = match name {
            "metric" | "name" => &["page_view", "page_view", "*", "page_views"][..],
            "query" => &["page_view", "sum by (source) (rate(page_view[5m]))", "topk(2, increase({__name__=\"*\"}[1h])) > 1", "1 / 0"],
            "match[]" => &["page_view", "{__name__=~\"p.*\",source=\"web\"}"],
            "time" => &["1767268800", "2026-11-28T12:00:00Z"],
            "step" => &["60", "5m", "1h"],
            "timeout" => &["10s"],
            "event" => &["page_view", "signup_started", "error_occurred"],
            "range" => &["1h", "24h", "7d", "90s"],
            "from" | "start" => &["2026-01-01", "2025-06-01T00:00:00Z", "1767268800000"],
            "to" | "end" => &["2026-12-31", "2027-01-01T00:00:00+05:45"],
            "tz" => &["UTC", "Europe/Berlin", "Asia/Kathmandu"],
            "group_by" => &["source", "event", "country_code"],
            "agg" => &["count", "users", "p95", "avg", "sum"],
            "filter" => &["source:web", "!source:a|b", "country_code:"],
            "timestamp" => &["2026-01-01T12:00:00Z", "2026-06-01T00:00:00.5+01:00"],
            _ => &[],
        };
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.choose(&mut self.rng).cloned().unwrap_or_default(),
            kind => kind.clone(),
        };
        match kind.as_str() {
            Some("string") => known.choose(&mut self.rng).map_or_else(|| json!(self.word()), |word| json!(word)),
            Some("integer") => json!(self.rng.random_range(1..=schema["maximum"].as_u64().unwrap_or(1_000).min(10_000))),
            Some("number") => json!(self.rng.random_range(-1e6..1e13)),
            Some("boolean") => json!(self.rng.random_bool(0.5)),
            Some("array") => {
                let most = schema["maxItems"].as_u64().unwrap_or(5).min(3);
                let count = self.rng.random_range(0..=most);
                Value::Array((0..count).map(|_| self.value(&schema["items"], name)).collect())
            }
            Some("object") => self.object(schema),
            _ => Value::Null,
        }
    }

    fn object(&mut self, schema: &Value) -> Value {
        let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut out = Map::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let needed = required.contains(&name.as_str()) || ["event", "range"].contains(&name.as_str());
            if self.rng.random_bool(if needed { 0.95 } else { 0.15 }) {
                out.insert(name.clone(), self.value(field, name));
            }
        }
        if self.rng.random_bool(0.05) {
            let (name, value) = (self.word(), self.anything());
            out.insert(name, value);
        }
        Value::Object(out)
    }

    fn word(&mut self) -> String {
        let words = [
            "a",
            "web",
            "x,y",
            "a|b",
            "é\u{0}\u{1f600}",
            "-1",
            "0",
            "99999999999999999999",
            "null",
            "%",
            "\\",
            "{}",
            "' OR 1=1",
            "..",
            "\u{202e}",
        ];
        words.choose(&mut self.rng).map(|word| (*word).to_owned()).unwrap_or_default()
    }

    fn anything(&mut self) -> Value {
        let all = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
            json!(""),
            json!([]),
            json!([[[]]]),
            json!({"a": {"b": []}}),
        ];
        let word = json!(self.word());
        if self.rng.random_bool(0.3) { word } else { all.choose(&mut self.rng).cloned().unwrap_or_default() }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
