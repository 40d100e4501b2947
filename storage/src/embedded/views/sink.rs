//! Bulk ingestion into one keyspace: rising keys in, visible and durable at once at the end.

use fjall::Keyspace;

use super::{
    Doing, Fault, SEPARATED_BYTES,
    trickle::{Trickle, tables_of, values_of},
};

enum Item<'a> {
    Put(&'a [u8], &'a [u8]),
    Delete(&'a [u8]),
    Finish,
}

/// fjall does not export the type of its ingestion, so it is kept in a closure.
type Write<'k> = dyn FnMut(Item<'_>) -> Result<(), fjall::Error> + 'k;

/// An ingestion that begins with its first key.
pub(super) struct Sink<'k> {
    write: Box<Write<'k>>,
    tables: Trickle,
    /// Where long values have files of their own.
    values: Option<Trickle>,
}

impl<'k> Sink<'k> {
    /// What is written goes to the disk after so many bytes.
    pub(super) fn new(keyspace: &'k Keyspace, step_bytes: usize) -> Self {
        let mut begun = none_yet(|| keyspace.start_ingestion());
        let write = move |item: Item<'_>| {
            if let Item::Finish = item {
                return match begun.take() {
                    Some(ingestion) => ingestion.finish(),
                    None => Ok(()),
                };
            }
            let ingestion = match &mut begun {
                Some(ingestion) => ingestion,
                none => none.insert(keyspace.start_ingestion()?),
            };
            match item {
                Item::Put(key, value) => ingestion.write(key, value),
                Item::Delete(key) => ingestion.write_tombstone(key),
                Item::Finish => Ok(()),
            }
        };
        Self {
            write: Box::new(write),
            tables: Trickle::new(tables_of(keyspace), step_bytes),
            values: None,
        }
    }

    /// Into a keyspace whose long values have files of their own.
    pub(super) fn of_long_values(keyspace: &'k Keyspace, step_bytes: usize) -> Self {
        Self {
            values: Some(Trickle::new(values_of(keyspace), step_bytes)),
            ..Self::new(keyspace, step_bytes)
        }
    }

    /// Writes a pair; keys must rise.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        (self.write)(Item::Put(key, value)).doing("writing to the views")?;
        let written = match &mut self.values {
            Some(values) if value.len() >= SEPARATED_BYTES as usize => values.wrote(value.len()),
            _ => self.tables.wrote(key.len() + value.len()),
        };
        written
            .map_err(fjall::Error::from)
            .doing("syncing what is written to the views")
    }

    /// Deletes a key; keys must rise.
    pub(super) fn delete(&mut self, key: &[u8]) -> Result<(), Fault> {
        (self.write)(Item::Delete(key)).doing("writing to the views")
    }

    /// Makes all of it durable, then visible.
    pub(super) fn finish(mut self) -> Result<(), Fault> {
        if let Some(values) = &self.values {
            // fjall syncs these files and not their folder, and then names them where a start looks for them: without one of them
            // the keyspace would not open.
            let synced = values.sync_names().map_err(fjall::Error::from);
            synced.doing("syncing the names of values")?;
        }
        (self.write)(Item::Finish).doing("ending an ingestion into the views")
    }
}

/// Nothing, of the type that the function would make.
fn none_yet<T>(_: impl FnOnce() -> Result<T, fjall::Error>) -> Option<T> {
    None
}
