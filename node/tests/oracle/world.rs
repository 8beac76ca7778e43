//! One node with its own definitions and history: batches, resends, time and restarts in any order, and questions in between.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tallymesh_node::boot::Machine;
use tallymesh_node::config::Config;
use tallymesh_node::config::units::{ByteSize, Keep, Period};
use tallymesh_storage::disk::RealDisk;

use super::ask::Ask;
use super::calendar::{DAY, HOUR, MINUTE, days};
use super::check::{Checker, csv_differs};
use super::clock::TestClock;
use super::events::{Maker, Sent};
use super::model::{Kept, Metric, Model, Outcome};
use super::random::Random;
use crate::http::harness::{Answer, TestNode, answer, in_time};

/// Batches that may be sent again.
const HISTORY: usize = 12;
/// Pages that one answer is read in, about.
const PAGES: usize = 4;
/// Times that an answer is read again in its other forms before a difference counts.
const FORMS_TRIED: usize = 4;
/// Longer answers are not asked for: more questions say more than longer ones.
const ROWS_MAX: usize = 2_000;

pub struct World {
    random: Random,
    clock: TestClock,
    node: TestNode,
    model: Model,
    maker: Maker,
    history: Vec<Vec<Sent>>,
    pub asked: usize,
    /// Whether a restart read a snapshot, and whether answers came from sealed windows.
    pub from_snapshot: bool,
    pub from_blocks: bool,
}

pub async fn turned_node(clock: &TestClock, change: impl FnOnce(&mut Config)) -> TestNode {
    let machine = Machine { disk: Arc::new(RealDisk), clock: Arc::new(clock.clone()) };
    TestNode::start_on(machine, |config| {
        // The clock stands between turns: whenever it was turned the shards are told.
        config.windows.tick = Period::ms(5);
        change(config);
    })
    .await
}

/// Turns the clock a little at a time until every shard has sealed and folded what it can.
pub async fn settle(node: &TestNode, clock: &TestClock, horizon: i64) {
    clock.advance(horizon);
    in_time("sealing", async {
        loop {
            clock.advance(6);
            tokio::time::sleep(std::time::Duration::from_millis(6)).await;
            let open: u64 = node.node().app().mesh.status().iter().map(|shard| shard.open_rows).sum();
            if open == 0 {
                return;
            }
        }
    })
    .await;
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Around changes of clocks, ends of months and years.
        let (year, month, day) = *random.pick(&[
            (2026, 3, 29),
            (2026, 3, 30),
            (2026, 10, 25),
            (2026, 10, 27),
            (2025, 3, 9),
            (2025, 11, 3),
            (2026, 4, 5),
            (2025, 10, 5),
            (2026, 9, 6),
            (2024, 2, 29),
            (2025, 1, 1),
        ]);
        let now = days(year, month, day) * DAY + random.between(0, 2 * DAY);
        let clock = TestClock::at(now);
        let kept = match random.below(4) {
            0 => Kept { minute: Some(2 * DAY), hour: Some(10 * DAY), day: Some(60 * DAY) },
            1 => Kept { minute: Some(6 * HOUR), hour: Some(40 * DAY), day: None },
            _ => Kept::default(),
        };
        let horizon = *random.pick(&[24 * HOUR, HOUR]);
        let metrics: Vec<Metric> = (0..random.below(9)).map(|i| Metric::random(&mut random, i)).collect();
        let keep = |ms: Option<i64>| ms.map_or(Keep::Forever, |ms| Keep::For(Period::ms(ms as u64)));
        let (small_log, shards) = (random.one_in(2), *random.pick(&[1, 3, 4]));
        let node = turned_node(&clock, |config| {
            config.cluster.shards = shards;
            config.retention.minute = keep(kept.minute);
            config.retention.hour = keep(kept.hour);
            config.retention.day = keep(kept.day);
            config.dedup.horizon = Period::ms(horizon as u64);
            config.metrics = metrics.iter().map(|m| m.definition.clone()).collect();
            if small_log {
                // Snapshots after every few batches. It has to hold some of the largest: the file that is written to cannot go.
                config.log.segment = ByteSize::kib(16);
                config.log.max = ByteSize::kib(256);
            }
        })
        .await;
        let maker =
            Maker::new(random.one_in(3), *random.pick(&[3, 40, 3_000]), [kept.minute, kept.hour, kept.day].into_iter().flatten().collect());
        Self {
            random,
            clock,
            node,
            model: Model::new(kept, horizon, metrics),
            maker,
            history: Vec::new(),
            asked: 0,
            from_snapshot: false,
            from_blocks: false,
        }
    }

    /// # Errors
    /// The first difference between the node and the count.
    pub async fn live(&mut self, turns: usize) -> Result<(), String> {
        for _ in 0..turns {
            match self.random.below(10) {
                0..=4 => self.send().await?,
                5 => self.resend().await?,
                6 | 7 => {
                    let ms = *self.random.pick(&[1_000, 3 * MINUTE, HOUR, 7 * HOUR, DAY, 3 * DAY]);
                    let ms = ms + self.random.between(0, 5_000);
                    if self.random.one_in(2) { settle(&self.node, &self.clock, ms.max(3 * HOUR)).await } else { self.clock.advance(ms) }
                }
                8 => {
                    self.from_snapshot |= self.node.node().app().mesh.status().iter().any(|shard| shard.snapshot_index > 0);
                    self.node.restart_with(|_| {}).await;
                }
                _ => {}
            }
            self.from_blocks |= self.node.node().app().mesh.status().iter().any(|shard| shard.blocks > 0);
            for _ in 0..1 + self.random.below(4) {
                self.ask().await?;
            }
        }
        self.node.stop().await;
        Ok(())
    }

    async fn send(&mut self) -> Result<(), String> {
        let count = *self.random.pick(&[1, 5, 30, 60, 60, 300]);
        let now = self.clock.now();
        let mut batch: Vec<Sent> = (0..count).map(|_| self.maker.event(&mut self.random, now)).collect();
        // Some twice in one batch.
        for _ in 0..count / 20 {
            let again = self.random.pick(&batch).clone();
            batch.push(again);
        }
        self.history.push(batch.clone());
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
        self.deliver(batch).await
    }

    async fn resend(&mut self) -> Result<(), String> {
        if self.history.is_empty() {
            return Ok(());
        }
        let mut batch = self.random.pick(&self.history).clone();
        for sent in &mut batch {
            // The same id from another device is another event; with another time or value it is the same.
            match self.random.below(8) {
                0 => sent.json = sent.json.replacen('{', "{\"ignored\": 1, ", 1),
                _ => continue,
            }
        }
        self.random.shuffle(&mut batch);
        self.deliver(batch).await
    }

    async fn deliver(&mut self, mut batch: Vec<Sent>) -> Result<(), String> {
        let now = self.clock.now();
        batch.retain(|sent| !self.model.is_undecided(sent, now));
        if batch.is_empty() {
            return Ok(());
        }
        let texts: Vec<&str> = batch.iter().map(|sent| sent.json.as_str()).collect();
        let (kind, body) = match self.random.below(3) {
            _ if batch.len() == 1 => ("application/json", texts[0].to_owned()),
            0 => ("application/x-ndjson", texts.join("\n")),
            _ => ("application/json", format!("[{}]", texts.join(", "))),
        };
        // A log that waits for snapshots takes nothing of a batch.
        let got = in_time("room in the log", async {
            loop {
                let request = self.node.request(Method::POST, "/v1/events").header(CONTENT_TYPE, kind).body(body.clone());
                let got = answer(request).await;
                if got.status != 429 {
                    return got;
                }
            }
        })
        .await;
        let outcomes: Vec<Outcome> = batch.iter().map(|sent| self.model.offer(sent, now)).collect();
        let many = |wanted: &Outcome| outcomes.iter().filter(|o| *o == wanted).count();
        let refused: Vec<(usize, &str)> = outcomes
            .iter()
            .enumerate()
            .filter_map(|(i, o)| match o {
                Outcome::Refused(code) => Some((i, *code)),
                _ => None,
            })
            .collect();
        let generated = outcomes.iter().zip(&batch).filter(|(o, sent)| !matches!(o, Outcome::Refused(_)) && sent.fact.id.is_none()).count();
        let told: Vec<(usize, String)> = got.body["rejected"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|r| (r["index"].as_u64().unwrap_or(u64::MAX) as usize, r["code"].as_str().unwrap_or_default().to_owned()))
            .collect();
        let counts = ["count", "duplicates", "generated_ids"].map(|name| got.body[name].as_u64().map(|n| n as usize));
        let right = [many(&Outcome::Counted), many(&Outcome::Duplicate), generated].map(Some);
        let status = if refused.len() == batch.len() { 422 } else { 200 };
        let same = told.iter().map(|(i, code)| (*i, code.as_str())).eq(refused.iter().copied());
        if got.status == status && counts == right && same {
            return Ok(());
        }
        let odd = refused.iter().map(|r| r.0).chain(told.iter().map(|t| t.0)).find(|i| {
            let right = refused.iter().find(|r| r.0 == *i).map(|r| r.1);
            right != told.iter().find(|t| t.0 == *i).map(|t| t.1.as_str())
        });
        Err(format!(
            "an ack of {} events: {} with (count, duplicates, generated) {counts:?}, should be {status} with {right:?}; refused {told:?}, should be {refused:?}\n{}",
            batch.len(),
            got.status,
            odd.map(|i| batch[i].json.clone()).unwrap_or_default()
        ))
    }

    async fn fetch(&self, ask: &Ask, more: &[(&str, String)], by_post: bool) -> Answer {
        if by_post { self.node.post_json("/v1/query", &ask.body(more)).await } else { self.node.get(&ask.url(more)).await }
    }

    async fn ask(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        let ask = Ask::random(&mut self.random, &self.model, now);
        self.asked += 1;
        let fail = |what: String| Err(format!("GET {}\n  now {now}: {what}", ask.url(&[])));
        let expected = match ask.expect(&self.model, now) {
            Ok(expected) => expected,
            Err(code) => {
                let got = self.fetch(&ask, &[], ask.by_post).await;
                let right = got.body["code"] == code && got.status == if code == "unknown_metric" { 404 } else { 422 };
                return if right { Ok(()) } else { fail(format!("should be refused: {code}; is {} {}", got.status, got.body)) };
            }
        };
        let rows = expected.current.cells.len() + expected.groups().len() * expected.current.starts.len() * usize::from(ask.fill != "none");
        if rows > ROWS_MAX {
            self.asked -= 1;
            return Ok(());
        }
        let limit = 1 + self.random.below(rows.max(1)) + rows / PAGES;
        let mut page = vec![("limit", limit.to_string())];
        let also_otherwise = self.random.one_in(3);
        let (mut data, mut receipt) = (Vec::new(), Value::Null);
        loop {
            let got = self.fetch(&ask, &page, ask.by_post).await;
            if !got.is_ok() {
                return fail(format!("{} {}", got.status, got.body));
            }
            let rows = got.body["data"].as_array().cloned().unwrap_or_default();
            if receipt.is_null() {
                receipt = got.body["receipt"].clone();
                if also_otherwise && let Some(wrong) = self.in_other_forms(&ask, &page, &got.body).await {
                    return fail(wrong);
                }
            }
            let cursor = got.body["cursor"].as_str().map(str::to_owned);
            if cursor.is_some() && rows.len() != limit || rows.len() > limit || data.len() > 4 * ROWS_MAX {
                return fail(format!("a page of {} rows, limit {limit}, cursor {cursor:?}", rows.len()));
            }
            data.extend(rows);
            match cursor {
                Some(cursor) => {
                    page.truncate(1);
                    page.push(("cursor", cursor));
                }
                None => break,
            }
        }
        let wrong = Checker::new(&ask, &expected, now).check(&data, &receipt);
        if wrong.is_empty() {
            Ok(())
        } else {
            fail(format!("{} of {} rows, first differences:\n    {}", data.len(), rows, wrong.join("\n    ")))
        }
    }

    /// The same page again as CSV, and as one of several queries. Where windows are sealed meanwhile the last digit of a sum may change: a
    /// difference has to stay.
    async fn in_other_forms(&self, ask: &Ask, page: &[(&str, String)], json: &Value) -> Option<String> {
        let mut json = json.clone();
        let mut wrong = None;
        for _ in 0..FORMS_TRIED {
            wrong = self.differs(ask, page, &json).await;
            if wrong.is_none() {
                break;
            }
            json = self.fetch(ask, page, false).await.body;
        }
        wrong
    }

    async fn differs(&self, ask: &Ask, page: &[(&str, String)], json: &Value) -> Option<String> {
        let mut more = page.to_vec();
        more.push(("format", "csv".to_owned()));
        let csv = self.node.text(&ask.url(&more)).await;
        let rows = json["data"].as_array().expect("rows");
        let has_steps = ask.step != super::ask::Step::None;
        if let Some(wrong) = csv_differs(ask, has_steps, &csv, rows) {
            return Some(wrong);
        }
        let several = self.node.post_json("/v1/query", &json!({"queries": [ask.body(page), {"metric": "*"}]})).await;
        let (first, second) = (&several.body["results"][0], &several.body["results"][1]);
        let same = first["data"] == json["data"] && first["cursor"] == json["cursor"] && second["code"] == "bad_range";
        (!same).then(|| format!("alone {}, as one of several {}", json["data"], several.body))
    }
}
