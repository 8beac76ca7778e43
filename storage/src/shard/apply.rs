//! One log entry after the other.

use rkyv::util::AlignedVec;
use tallymesh_protocol::event::batch::{self, ArchivedShardBatch, BATCH_ALIGN, BatchError};
use tallymesh_protocol::event::command::{CommandBody, CommandError, CommandView, PartView, ShardSettings};
use tallymesh_protocol::time::{DAY_MS, Grain};

use super::answers::{Answered, Asked};
use super::keys::{Admitted, KeyId};
use super::late::LateRows;
use super::{ShardState, window_settings};
use crate::StorageError;
use crate::dedup::{INSERT_CHUNK, SeenCold};
use crate::planted::{self, Bug};
use crate::windows::Row;

/// Event times lie within this distance of 1970, so that arithmetic on them cannot overflow; the door is far stricter.
const EVENT_TIME_MS_MAX: i64 = 4_000_000 * DAY_MS;

/// What one entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each part of a `Batches` command, in order.
    pub parts: Vec<PartApplied>,
}

/// What one request's batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartApplied {
    pub counted: u32,
    pub duplicates: u32,
    /// Set when the part was refused whole: nothing of it was counted, its events must not be acked.
    pub error: Option<PartError>,
}

/// Why a part was refused; every replica refuses it alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    #[error(transparent)]
    Malformed(#[from] BatchError),
    #[error("event {event} has a time that no event can have")]
    Time { event: u32 },
    #[error("made with definitions {batch}, the shard has {shard}: make it again")]
    StaleDefinitions { batch: u64, shard: u64 },
    #[error("the shard has no numbers left for new keys")]
    TooManyKeys,
}

/// Why an entry was not applied at all; the state is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("entry {index} comes after entry {applied} was applied")]
    OutOfOrder { index: u64, applied: u64 },
    #[error("entry {index}: {source}")]
    Command { index: u64, source: CommandError },
    #[error("entry {index}: looking for old event ids: {detail}")]
    Disk { index: u64, detail: String },
}

/// One part of a command, and which of its events are known to be duplicates.
struct LookedUp<'a> {
    request: u64,
    checked: Result<&'a ArchivedShardBatch, PartError>,
    seen_cold: SeenCold,
}

/// The keys of a part's dictionary as numbers.
struct PartKeys {
    ids: Vec<KeyId>,
    /// Entries beyond the budget: index, and the other key that they are counted under.
    others: Vec<(u32, KeyId)>,
}

impl ShardState {
    /// Applies the command of log entry `index`. A malformed part is refused by itself and poisons nothing.
    ///
    /// # Errors
    /// See [`ApplyError`]: a replica that meets one cannot go on.
    pub fn apply(&mut self, index: u64, command: &[u8]) -> Result<Applied, ApplyError> {
        self.check_order(index)?;
        // Alignment is an accident of where the bytes lie; what they do must not depend on it.
        let mut copy = AlignedVec::<BATCH_ALIGN>::new();
        let command = if (command.as_ptr() as usize).is_multiple_of(BATCH_ALIGN) {
            command
        } else {
            copy.extend_from_slice(command);
            &copy
        };
        let view = CommandView::parse(command).map_err(|source| ApplyError::Command { index, source })?;
        self.stamp_ms = self.stamp_ms.max(view.stamp_ms);
        self.dedup.advance(self.stamp_ms, self.settings.dedup_horizon_ms);
        self.answers.advance(self.stamp_ms);
        let mut applied = Applied::default();
        match view.body {
            CommandBody::Batches(parts) => {
                let looked_up = parts.iter().map(|part| self.look_up(*part)).collect::<Result<Vec<_>, _>>();
                let parts = looked_up.map_err(|e| ApplyError::Disk { index, detail: e.to_string() })?;
                applied.parts = parts.into_iter().map(|part| self.apply_part(part)).collect();
            }
            CommandBody::Tick => {}
            CommandBody::Configure(settings) => self.configure(settings),
        }
        self.windows.tick(self.stamp_ms);
        self.applied_index = index;
        Ok(applied)
    }

    /// Notes an entry that carries no command (a leader's blank entry, a membership).
    ///
    /// # Errors
    /// [`ApplyError::OutOfOrder`].
    pub fn skip(&mut self, index: u64) -> Result<(), ApplyError> {
        self.check_order(index)?;
        self.applied_index = index;
        Ok(())
    }

    fn check_order(&self, index: u64) -> Result<(), ApplyError> {
        let applied = self.applied_index;
        // A log may begin with index 0.
        if index > applied || (index == 0 && applied == 0) { Ok(()) } else { Err(ApplyError::OutOfOrder { index, applied }) }
    }

    fn configure(&mut self, settings: ShardSettings) {
        self.windows.set_settings(window_settings(&settings));
        self.settings = settings;
    }

    /// All that needs the disk, before anything of the entry is counted.
    fn look_up<'a>(&self, part: PartView<'a>) -> Result<LookedUp<'a>, StorageError> {
        let checked = batch::check_but_keys(part.batch).map_err(PartError::from);
        let seen_cold = match &checked {
            Ok(batch) => self.dedup.look_up_cold(batch.ids.iter().map(|id| id.to_native()))?,
            Err(_) => SeenCold::default(),
        };
        Ok(LookedUp { request: part.request, checked, seen_cold })
    }

    fn apply_part(&mut self, part: LookedUp<'_>) -> PartApplied {
        let LookedUp { request, checked, seen_cold } = part;
        let asked = checked.as_ref().ok().and_then(|batch| Asked::new(request, batch));
        if let Some(Answered { counted, duplicates }) = asked.and_then(|asked| self.answers.find(asked)) {
            return PartApplied { counted, duplicates, error: None };
        }
        match checked.and_then(|batch| Ok((batch, self.intern(batch)?))) {
            Ok((batch, keys)) => {
                let applied = self.count(batch, &keys, &seen_cold);
                if let Some(asked) = asked {
                    let answered = Answered { counted: applied.counted, duplicates: applied.duplicates };
                    self.answers.remember(self.stamp_ms, asked, answered);
                }
                applied
            }
            Err(error) => {
                self.counters.refused_parts += 1;
                PartApplied { error: Some(error), ..PartApplied::default() }
            }
        }
    }

    /// Interns the dictionary of a part: once for all its events.
    fn intern(&mut self, batch: &ArchivedShardBatch) -> Result<PartKeys, PartError> {
        let made_with = batch.definitions_version.to_native();
        if made_with < self.settings.definitions_version {
            return Err(PartError::StaleDefinitions { batch: made_with, shard: self.settings.definitions_version });
        }
        let is_sane = |t: i64| (-EVENT_TIME_MS_MAX..=EVENT_TIME_MS_MAX).contains(&t);
        if let Some(event) = batch.times.iter().position(|t| !is_sane(t.to_native())) {
            return Err(PartError::Time { event: event as u32 });
        }
        if planted::has(Bug::HashMapOrder) {
            let order: std::collections::HashMap<u128, usize> =
                batch.key_hashes.iter().enumerate().map(|(i, h)| (h.to_native(), i)).collect();
            for (hash, i) in order {
                self.keys.admit(hash, batch.key(i), self.settings.cardinality.as_ref());
            }
        }
        let mut keys = PartKeys { ids: Vec::with_capacity(batch.key_hashes.len()), others: Vec::new() };
        // A key that is known byte for byte was checked when it was new. None is added before all have been looked at.
        let mut unknown = Vec::new();
        for (i, hash) in batch.key_hashes.iter().enumerate() {
            keys.ids.push(match self.keys.find(hash.to_native(), batch.key(i)) {
                Some(id) => id,
                None => {
                    batch.check_key(i)?;
                    unknown.push(i);
                    KeyId::MAX
                }
            });
        }
        for i in unknown {
            let admitted = self.keys.admit(batch.key_hashes[i].to_native(), batch.key(i), self.settings.cardinality.as_ref());
            let admitted = admitted.ok_or(PartError::TooManyKeys)?;
            if let Admitted::Other(id) = admitted {
                keys.others.push((i as u32, id));
            }
            keys.ids[i] = admitted.id();
        }
        Ok(keys)
    }

    fn count(&mut self, batch: &ArchivedShardBatch, part_keys: &PartKeys, seen_cold: &SeenCold) -> PartApplied {
        let keys = part_keys.ids.as_slice();
        // Rows by dictionary entry, where some entry is beyond the budget; else none are counted.
        let mut rows = vec![0u64; if part_keys.others.is_empty() { 0 } else { keys.len() }];
        let mut outcome = PartApplied::default();
        let mut derived = 0;
        let horizon_ms = i64::try_from(self.settings.dedup_horizon_ms).unwrap_or(i64::MAX);
        let oldest_ms = self.stamp_ms.saturating_sub(horizon_ms);
        let lateness_ms = i64::try_from(self.settings.lateness_ms).unwrap_or(i64::MAX);
        let mut late = LateRows::new(&self.late, Grain::Minute.floor(self.stamp_ms.saturating_sub(lateness_ms).max(-EVENT_TIME_MS_MAX)));
        let mut hashes = [0u128; INSERT_CHUNK];
        for (chunk, ids) in batch.ids.chunks(INSERT_CHUNK).enumerate() {
            for (hash, id) in hashes.iter_mut().zip(ids) {
                *hash = id.to_native();
            }
            let new = self.dedup.insert(&hashes[..ids.len()], seen_cold.chunk(chunk));
            outcome.duplicates += ids.len() as u32 - new.count_ones();
            for (i, &hash) in hashes[..ids.len()].iter().enumerate() {
                if new & (1 << i) == 0 {
                    continue;
                }
                let event = chunk * INSERT_CHUNK + i;
                let entry = batch.keys[event].to_native() as usize;
                if let Some(rows) = rows.get_mut(entry) {
                    *rows += 1;
                }
                let row = Row {
                    key: keys[entry],
                    time_ms: batch.times[event].to_native(),
                    id: hash as u64,
                    user: batch.users[event].to_native(),
                    session: batch.sessions[event].to_native(),
                    value: batch.values[event].to_native(),
                };
                self.windows.append(self.stamp_ms, row);
                late.note(row.time_ms);
                outcome.counted += 1;
                self.counters.id_sum = self.counters.id_sum.wrapping_add(hash as u64);
                self.counters.older_than_horizon += u64::from(row.time_ms < oldest_ms);
                while derived < batch.derived_events.len() && (batch.derived_events[derived].to_native() as usize) < event {
                    derived += 1;
                }
                while derived < batch.derived_events.len() && batch.derived_events[derived].to_native() as usize == event {
                    let entry = batch.derived_keys[derived].to_native() as usize;
                    if let Some(rows) = rows.get_mut(entry) {
                        *rows += 1;
                    }
                    let key = keys[entry];
                    self.windows.append(self.stamp_ms, Row { key, value: batch.derived_values[derived].to_native(), ..row });
                    self.counters.derived_rows += 1;
                    derived += 1;
                }
            }
        }
        for &(entry, id) in &part_keys.others {
            *self.other_rows.entry(id).or_default() += rows[entry as usize];
        }
        self.counters.events += u64::from(outcome.counted);
        self.counters.duplicates += u64::from(outcome.duplicates);
        outcome
    }
}
