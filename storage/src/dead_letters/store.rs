//! The tables: letters by id, and totals that change in the same transaction.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::record::{DeadLetter, NewLetter};
use super::{DeadLetterLimits, Request};
use crate::StorageError;

const LETTERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("letters_v1");
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("totals_v1");
/// Pages that the database may cache, in bytes; letters are read rarely.
const CACHE_BYTES: usize = 4 << 20;

pub(super) struct Store {
    path: PathBuf,
    database: Database,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub count: u64,
    pub bytes: u64,
    pub dropped: u64,
    next_id: u64,
}

pub(super) struct Written {
    pub totals: Totals,
    /// For each request, how many letters it removed.
    pub removed: Vec<u64>,
}

impl Store {
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let fail = |e: redb::Error| failed(path, e);
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|e| fail(e.into()))?;
        let transaction = database.begin_write().map_err(|e| fail(e.into()))?;
        transaction.open_table(LETTERS).map_err(|e| fail(e.into()))?;
        let totals = transaction.open_table(TOTALS).map_err(|e| fail(e.into())).and_then(|t| Totals::read(&t).map_err(fail))?;
        transaction.commit().map_err(|e| fail(e.into()))?;
        Ok(Self { path: path.to_owned(), database, totals })
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub fn write(&self, group: &[Request], limits: DeadLetterLimits) -> Result<Written, StorageError> {
        self.try_write(group, limits).map_err(|e| failed(&self.path, e))
    }

    fn try_write(&self, group: &[Request], limits: DeadLetterLimits) -> Result<Written, redb::Error> {
        let transaction = self.database.begin_write()?;
        let mut removed = Vec::with_capacity(group.len());
        let totals = {
            let mut letters = transaction.open_table(LETTERS)?;
            let mut table = transaction.open_table(TOTALS)?;
            let mut totals = Totals::read(&table)?;
            for request in group {
                let before = totals.count;
                match request {
                    Request::Add(new, _) => {
                        for letter in new {
                            totals.add(&mut letters, letter)?;
                        }
                        removed.push(0);
                    }
                    Request::Remove(ids, _) => {
                        for id in ids {
                            totals.remove(&mut letters, *id)?;
                        }
                        removed.push(before - totals.count);
                    }
                }
            }
            while totals.count > limits.count_max || totals.bytes > limits.bytes_max {
                let Some((_, oldest)) = letters.pop_first()? else { break };
                totals.count -= 1;
                totals.bytes -= oldest.value().len() as u64;
                totals.dropped += 1;
            }
            totals.save(&mut table)?;
            totals
        };
        transaction.commit()?;
        Ok(Written { totals, removed })
    }

    pub fn list(&self, before: Option<u64>, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        let read = || -> Result<Vec<DeadLetter>, redb::Error> {
            let letters = self.database.begin_read()?.open_table(LETTERS)?;
            let mut out = Vec::new();
            for entry in letters.range(..before.unwrap_or(u64::MAX))?.rev().take(limit) {
                let (id, value) = entry?;
                out.extend(NewLetter::decode(value.value()).map(|letter| DeadLetter { id: id.value(), letter }));
            }
            Ok(out)
        };
        read().map_err(|e| failed(&self.path, e))
    }

    pub fn get(&self, ids: &[u64]) -> Result<Vec<DeadLetter>, StorageError> {
        let read = || -> Result<Vec<DeadLetter>, redb::Error> {
            let letters = self.database.begin_read()?.open_table(LETTERS)?;
            let mut out = Vec::new();
            for &id in ids {
                let letter = letters.get(id)?.and_then(|value| NewLetter::decode(value.value()));
                out.extend(letter.map(|letter| DeadLetter { id, letter }));
            }
            Ok(out)
        };
        read().map_err(|e| failed(&self.path, e))
    }
}

impl Totals {
    fn read(table: &impl ReadableTable<&'static str, u64>) -> Result<Self, redb::Error> {
        let get = |name: &'static str| -> Result<u64, redb::Error> { Ok(table.get(name)?.map_or(0, |v| v.value())) };
        Ok(Self { count: get("count")?, bytes: get("bytes")?, dropped: get("dropped")?, next_id: get("next_id")? })
    }

    fn save(&self, table: &mut Table<'_, &'static str, u64>) -> Result<(), redb::Error> {
        for (name, value) in [("count", self.count), ("bytes", self.bytes), ("dropped", self.dropped), ("next_id", self.next_id)] {
            table.insert(name, value)?;
        }
        Ok(())
    }

    fn add(&mut self, letters: &mut Table<'_, u64, &'static [u8]>, letter: &NewLetter) -> Result<(), redb::Error> {
        let bytes = letter.encode();
        letters.insert(self.next_id, bytes.as_slice())?;
        self.next_id += 1;
        self.count += 1;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn remove(&mut self, letters: &mut Table<'_, u64, &'static [u8]>, id: u64) -> Result<(), redb::Error> {
        if let Some(old) = letters.remove(id)? {
            self.count -= 1;
            self.bytes -= old.value().len() as u64;
        }
        Ok(())
    }
}

fn failed(path: &Path, error: redb::Error) -> StorageError {
    let error = match error {
        redb::Error::Io(e) => e,
        other => std::io::Error::other(other),
    };
    StorageError::io("using the dead-letter store", path, error)
}
