//! What is known of one query's answer: its rows as JSON, and for each row the version in which it last changed. A pure state; versions only rise.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::error::Error;
use tallymesh_protocol::question::answer::{Answer, Receipt, Row};

use crate::limits::{LIVE_DELTAS_SHARED_MAX, LIVE_REMOVED_MAX};

/// What names a row, and all that a client is told of one that is gone.
#[derive(Serialize)]
struct RowName<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: &'a Option<std::collections::BTreeMap<String, Option<String>>>,
}

struct KnownRow {
    name: Bytes,
    json: Bytes,
    changed_in: u64,
}

/// Bodies are the members of a JSON object without its opening brace, so that each stream can put its own members first.
pub struct Known {
    version: u64,
    /// The version before this one, or this one if it is the first: who has an older one has missed something.
    before: u64,
    /// In the order of the answer.
    rows: Vec<KnownRow>,
    /// Rows that went, oldest first, with the version in which they did.
    removed: VecDeque<(u64, Bytes)>,
    /// What changed since any version from here on is known.
    floor: u64,
    cursor: Option<String>,
    receipt: Receipt,
    bytes: usize,
    snapshot: Option<Bytes>,
    /// By the version that they lead on from.
    deltas: Vec<(u64, Bytes)>,
}

impl Known {
    /// # Errors
    /// The answer is no JSON, which would be a bug.
    pub fn new(answer: Answer, version: u64) -> Result<Self, Error> {
        let rows = answer.data.iter().map(|row| known_row(row, version)).collect::<Result<Vec<_>, _>>()?;
        let mut known = Self {
            version,
            before: version,
            rows,
            removed: VecDeque::new(),
            floor: version,
            cursor: answer.cursor,
            receipt: answer.receipt,
            bytes: 0,
            snapshot: None,
            deltas: Vec::new(),
        };
        known.weigh();
        Ok(known)
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether who has that version has missed one in between.
    pub fn was_missed(&self, version: u64) -> bool {
        version < self.before
    }

    /// What it holds, in bytes; what is encoded for watchers may come to twice as much.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a newer answer; whether it says anything else than the last one. The receipt alone is no news as long as it promises the same.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing has changed then.
    pub fn take(&mut self, answer: Answer, version: u64) -> Result<bool, Error> {
        let rows = answer.data.iter().map(|row| known_row(row, version)).collect::<Result<Vec<_>, _>>()?;
        let changed = self.merge(rows, version);
        let news = changed || !promises_the_same(&self.receipt, &answer.receipt);
        self.receipt = answer.receipt;
        self.cursor = answer.cursor;
        self.snapshot = None;
        self.deltas.clear();
        if news {
            self.before = self.version;
            self.version = version;
        }
        self.weigh();
        Ok(news)
    }

    fn merge(&mut self, mut rows: Vec<KnownRow>, version: u64) -> bool {
        let old = std::mem::take(&mut self.rows);
        let mut by_name: HashMap<&[u8], &KnownRow> = old.iter().map(|row| (&*row.name, row)).collect();
        let mut changed = false;
        for row in &mut rows {
            match by_name.remove(&*row.name) {
                Some(same) if same.json == row.json => row.changed_in = same.changed_in,
                _ => changed = true,
            }
        }
        let gone: HashSet<&[u8]> = by_name.into_keys().collect();
        changed |= !gone.is_empty();
        self.removed.extend(old.iter().filter(|row| gone.contains(&*row.name)).map(|row| (version, row.name.clone())));
        self.rows = rows;
        while self.removed.len() > LIVE_REMOVED_MAX {
            // Who has an older version cannot be told of this one any more.
            self.floor = self.removed.pop_front().map_or(version, |(went_in, _)| went_in);
        }
        changed
    }

    fn weigh(&mut self) {
        let rows = self.rows.iter().map(|row| row.name.len() + row.json.len() + size_of::<KnownRow>());
        let removed = self.removed.iter().map(|(_, name)| name.len() + size_of::<(u64, Bytes)>());
        self.bytes = rows.chain(removed).sum();
    }

    /// `"answer":{...}}`
    pub fn snapshot(&mut self) -> Bytes {
        if let Some(made) = &self.snapshot {
            return made.clone();
        }
        let mut out = BytesMut::with_capacity(self.bytes + 1_024);
        out.put_slice(b"\"answer\":{\"data\":[");
        put_list(&mut out, self.rows.iter().map(|row| &row.json));
        out.put_slice(b"],");
        self.put_tail(&mut out);
        out.put_slice(b"}}");
        let made = out.freeze();
        self.snapshot = Some(made.clone());
        made
    }

    /// `"changed":[...],"removed":[...],"cursor":...,"receipt":{...}}`: what makes the present answer out of that of `version`. `None` when that is not
    /// known any more, or never was.
    pub fn since(&mut self, version: u64) -> Option<Bytes> {
        if version < self.floor || version > self.version {
            return None;
        }
        if let Some((_, made)) = self.deltas.iter().find(|(from, _)| *from == version) {
            return Some(made.clone());
        }
        let mut out = BytesMut::with_capacity(1_024);
        out.put_slice(b"\"changed\":[");
        put_list(&mut out, self.rows.iter().filter(|row| row.changed_in > version).map(|row| &row.json));
        out.put_slice(b"],\"removed\":[");
        // One that went and came again is there, one that went twice is named once.
        let went = self.removed.iter().rev().take_while(|(went_in, _)| *went_in > version).map(|(_, name)| name);
        let mut named: HashSet<&Bytes> = HashSet::new();
        let went: Vec<&Bytes> = went.filter(|name| named.insert(*name)).collect();
        if went.is_empty() {
            put_list(&mut out, std::iter::empty());
        } else {
            let present: HashSet<&Bytes> = self.rows.iter().map(|row| &row.name).collect();
            put_list(&mut out, went.into_iter().filter(|name| !present.contains(name)));
        }
        out.put_slice(b"],");
        self.put_tail(&mut out);
        out.put_slice(b"}");
        let made = out.freeze();
        if self.deltas.len() < LIVE_DELTAS_SHARED_MAX {
            self.deltas.push((version, made.clone()));
        }
        Some(made)
    }

    fn put_tail(&self, out: &mut BytesMut) {
        #[derive(Serialize)]
        struct Tail<'a> {
            cursor: &'a Option<String>,
            receipt: &'a Receipt,
        }
        // Strings and numbers always encode.
        let tail = serde_json::to_vec(&Tail { cursor: &self.cursor, receipt: &self.receipt }).unwrap_or_default();
        out.put_slice(tail.get(1..tail.len().saturating_sub(1)).unwrap_or_default());
    }
}

fn known_row(row: &Row, changed_in: u64) -> Result<KnownRow, Error> {
    let name = serde_json::to_vec(&RowName { time: &row.time, group: &row.group })?;
    Ok(KnownRow { name: name.into(), json: serde_json::to_vec(row)?.into(), changed_in })
}

fn put_list<'a>(out: &mut BytesMut, items: impl Iterator<Item = &'a Bytes>) {
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item);
    }
}

/// Whether all but the moments are equal: those move with every evaluation.
fn promises_the_same(one: &Receipt, other: &Receipt) -> bool {
    one.complete == other.complete
        && one.shards == other.shards
        && one.error == other.error
        && one.sampled == other.sampled
        && one.other_share == other.other_share
        && one.sources == other.sources
        && one.grain == other.grain
}

#[cfg(test)]
mod tests;
