//! Events to one columnar [`ShardBatch`] per shard: routing, deduplication hashes and the rows of defined metrics, all decided once, at the door.

mod columns;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use columns::ShardColumns;
use rkyv::util::AlignedVec;
use xxhash_rust::xxh3::xxh3_128;

use crate::definition::{CompiledDefinition, DefinitionSet, FieldRef};
use crate::event::batch::{NO_IDENTITY, NO_VALUE};
use crate::event::parse::{PropertyReader, check_dimension, field_text};
use crate::event::{Event, RejectCode, Rejection};
use crate::hash::{DEFAULT_TENANT, ShardId, event_hash, identity_hash, key_hash, shard_of};
use crate::key::{MetricKind, encode_key};
use crate::limits::PART_BYTES_MAX;
use crate::time::{DAY_MS, rfc3339};

/// Which event times may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// The receiving node's clock, UTC milliseconds; also the time of events that have none.
    pub now_ms: i64,
    /// How far ahead of it an event may be.
    pub future_tolerance_ms: i64,
    /// How long day windows are kept; `None` is for ever.
    pub retention_day_ms: Option<i64>,
}

/// Where the ids of events without one come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GeneratedIds {
    /// From the request's idempotency key, so that a retry makes the same ones.
    Idempotency(String),
    /// From a number that no other request has.
    Random(u128),
}

impl GeneratedIds {
    /// 32 lower-case hexadecimal digits for the event at `index`.
    pub fn id(&self, index: u32) -> String {
        let mut bytes = Vec::with_capacity(24);
        match self {
            Self::Idempotency(key) => {
                bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
                bytes.extend_from_slice(key.as_bytes());
            }
            Self::Random(seed) => bytes.extend_from_slice(&seed.to_le_bytes()),
        }
        bytes.extend_from_slice(&index.to_le_bytes());
        format!("{:032x}", xxh3_128(&bytes))
    }
}

/// A request's events, ready for the shards' logs.
#[derive(Debug)]
pub struct Encoded {
    /// Encoded [`crate::event::batch::ShardBatch`]es by shard, none empty. A shard has more than one part only where one would be over [`PART_BYTES_MAX`].
    pub parts: Vec<(ShardId, AlignedVec<16>)>,
    pub events: u32,
    pub generated_ids: u32,
}

/// A row of a defined metric, before it is known that the event is taken.
struct DerivedRow {
    key_hash: u128,
    /// End of its key in the scratch buffer.
    key_end: usize,
    value: f64,
}

/// Encodes the events of one request.
pub struct BatchEncoder {
    definitions: Arc<DefinitionSet>,
    door: Door,
    ids: GeneratedIds,
    /// Columns of the shards that have events; a small request meets few of them.
    shards: Vec<Option<Box<ShardColumns>>>,
    full: Vec<(ShardId, AlignedVec<16>)>,
    full_bytes: usize,
    open_bytes: usize,
    events: u32,
    generated_ids: u32,
    properties: PropertyReader,
    home_key: Vec<u8>,
    derived: Vec<DerivedRow>,
    derived_keys: Vec<u8>,
}

impl BatchEncoder {
    pub fn new(shards: u16, definitions: Arc<DefinitionSet>, door: Door, ids: GeneratedIds) -> Self {
        Self {
            definitions,
            door,
            ids,
            shards: (0..shards.max(1)).map(|_| None).collect(),
            full: Vec::new(),
            full_bytes: 0,
            open_bytes: 0,
            events: 0,
            generated_ids: 0,
            properties: PropertyReader::default(),
            home_key: Vec::with_capacity(128),
            derived: Vec::new(),
            derived_keys: Vec::new(),
        }
    }

    /// Adds the event at `index` of the request, or nothing of it.
    ///
    /// # Errors
    /// `future`, `expired`, or `bad_value` for a property that is too long for the dimension that a definition makes of it.
    pub fn push(&mut self, index: u32, event: &Event<'_>) -> Result<(), Rejection> {
        let time_ms = self.door.admit(event.timestamp_ms)?;
        self.derive(event)?;

        self.home_key.clear();
        encode_key(&mut self.home_key, MetricKind::Default, DEFAULT_TENANT, &event.name, event.default_dimensions());
        let home = key_hash(&self.home_key);
        let id = match &event.event_id {
            Some(id) => event_hash(home, id.as_bytes()),
            None => {
                self.generated_ids += 1;
                event_hash(home, self.ids.id(index).as_bytes())
            }
        };
        let identity = |id: &Option<Cow<'_, str>>| id.as_ref().map_or(NO_IDENTITY, |id| identity_hash(id.as_bytes()));

        let shard = shard_of(home, self.shards.len() as u16);
        let columns = self.shards[usize::from(shard.0)].get_or_insert_with(ShardColumns::take);
        let before = columns.bytes();
        let batch = columns.event(home, &self.home_key);
        batch.times.push(time_ms);
        batch.ids.push(id);
        batch.users.push(identity(&event.user_id));
        batch.sessions.push(identity(&event.session_id));
        batch.values.push(column_value(event.value));
        let mut start = 0;
        for row in &self.derived {
            columns.derived(row.key_hash, &self.derived_keys[start..row.key_end], row.value);
            start = row.key_end;
        }
        self.events += 1;
        self.open_bytes += columns.bytes() - before;
        if columns.bytes() >= PART_BYTES_MAX {
            self.open_bytes -= columns.bytes();
            self.seal(shard);
        }
        Ok(())
    }

    /// What the parts will take, in bytes, give or take their padding.
    pub fn encoded_bytes_estimate(&self) -> usize {
        self.full_bytes + self.open_bytes
    }

    pub fn finish(mut self) -> Encoded {
        for shard in 0..self.shards.len() as u16 {
            self.seal(ShardId(shard));
        }
        Encoded { parts: self.full, events: self.events, generated_ids: self.generated_ids }
    }

    fn seal(&mut self, shard: ShardId) {
        let columns = self.shards[usize::from(shard.0)].take();
        if let Some(bytes) = columns.and_then(|columns| columns.encode(self.definitions.version())) {
            self.full_bytes += bytes.len();
            self.full.push((shard, bytes));
        }
    }

    /// Computes the rows of defined metrics into `derived`.
    fn derive(&mut self, event: &Event<'_>) -> Result<(), Rejection> {
        self.derived.clear();
        self.derived_keys.clear();
        if self.definitions.is_empty() {
            return Ok(());
        }
        let Some(plan) = self.definitions.plan_of(&event.name) else { return Ok(()) };
        let names = plan.properties();
        if !names.is_empty() {
            self.properties.read(names, event);
        }
        let fields = FieldReader { names, properties: &self.properties, event };
        for definition in self.definitions.of_plan(plan) {
            if !definition.filters.iter().all(|(field, filter)| filter.matches(fields.text(field).as_deref())) {
                continue;
            }
            let start = self.derived_keys.len();
            fields.encode_key(definition, &mut self.derived_keys)?;
            let key_hash = key_hash(&self.derived_keys[start..]);
            let value = column_value(fields.number(&definition.value));
            self.derived.push(DerivedRow { key_hash, key_end: self.derived_keys.len(), value });
        }
        Ok(())
    }
}

/// The fields of one event as definitions read them.
struct FieldReader<'r, 'e> {
    names: &'r [String],
    properties: &'r PropertyReader,
    event: &'r Event<'e>,
}

impl<'r> FieldReader<'r, '_> {
    fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }

    fn text(&self, field: &FieldRef) -> Option<Cow<'r, str>> {
        match field {
            FieldRef::Property(name) => self.properties.text(self.index(name)?, self.event),
            known => field_text(self.event, known),
        }
    }

    fn number(&self, field: &FieldRef) -> Option<f64> {
        match field {
            FieldRef::Value => self.event.value,
            FieldRef::Property(name) => self.properties.number(self.index(name)?, self.event),
            _ => None,
        }
    }

    fn encode_key(&self, definition: &CompiledDefinition, out: &mut Vec<u8>) -> Result<(), Rejection> {
        encode_key(out, MetricKind::Defined, DEFAULT_TENANT, &definition.definition.name, []);
        for field in &definition.dimensions {
            let text = check_dimension(field, self.text(field))?;
            crate::key::encode_dimension(out, text.as_deref());
        }
        Ok(())
    }
}

/// Equal numbers have equal bits in a column.
fn column_value(value: Option<f64>) -> f64 {
    match value {
        // Also for -0.0.
        Some(0.0) => 0.0,
        Some(value) => value,
        None => NO_VALUE,
    }
}

impl Door {
    /// The event's time, in UTC milliseconds.
    fn admit(&self, timestamp_ms: Option<i64>) -> Result<i64, Rejection> {
        let Some(time_ms) = timestamp_ms else { return Ok(self.now_ms) };
        if time_ms > self.now_ms.saturating_add(self.future_tolerance_ms) {
            return Err(self.future(time_ms));
        }
        match self.retention_day_ms {
            Some(kept_ms) if time_ms < self.now_ms.saturating_sub(kept_ms) => Err(self.expired(time_ms, kept_ms)),
            _ => Ok(time_ms),
        }
    }

    #[cold]
    fn future(&self, time_ms: i64) -> Rejection {
        let (time, now) = (rfc3339(time_ms), rfc3339(self.now_ms));
        let detail = format!("{time} is more than {} s ahead of this node's clock ({now})", self.future_tolerance_ms / 1_000);
        Rejection::new(RejectCode::Future, Some("timestamp"), detail)
    }

    #[cold]
    fn expired(&self, time_ms: i64, kept_ms: i64) -> Rejection {
        let days = kept_ms as f64 / DAY_MS as f64;
        let detail = format!("{} is older than the {days:.0} days that are kept: raise `retention.day` to count it", rfc3339(time_ms));
        Rejection::new(RejectCode::Expired, Some("timestamp"), detail)
    }
}
