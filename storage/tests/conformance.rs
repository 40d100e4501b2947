//! Every implementation does what the traits promise.

// A test may fail by unwrapping; the lint knows test functions only, not their helpers.
#![allow(clippy::unwrap_used)]

use std::{cell::RefCell, path::PathBuf};

use rialto_storage::{
    conformance::{Ending, Harness, run_all},
    embedded::{EmbeddedOptions, EmbeddedStore},
    memory::{Durability, MemoryStore},
};
use tempfile::TempDir;

struct Memory;

impl Harness for Memory {
    type Store = MemoryStore;

    fn open(&self) -> MemoryStore {
        MemoryStore::new(16)
    }

    fn reopen(&self, store: MemoryStore, ending: Ending) -> MemoryStore {
        store.set_durability(Durability::AtOnce);
        match ending {
            Ending::Clean => store,
            Ending::Crash => store.crash(0),
        }
    }
}

/// Directories of the stores that are open; a store is in the last one made or in the one it says.
struct Embedded {
    options: EmbeddedOptions,
    dirs: RefCell<Vec<(u128, PathBuf, TempDir)>>,
}

impl Embedded {
    fn new(options: EmbeddedOptions) -> Self {
        Self {
            options,
            dirs: RefCell::default(),
        }
    }
}

impl Harness for Embedded {
    type Store = EmbeddedStore;

    fn open(&self) -> EmbeddedStore {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let store = EmbeddedStore::open(&path, self.options.clone()).unwrap();
        self.dirs.borrow_mut().push((store.data_set(), path, dir));
        store
    }

    fn entry_bytes_max(&self) -> usize {
        // An entry and a seal have to fit into a segment behind its first page.
        let segment = usize::try_from(self.options.segment_bytes).unwrap();
        (segment - 4096 - 2 * 48).min(rialto_storage::journal::ENTRY_BYTES_MAX)
    }

    fn reopen(&self, store: EmbeddedStore, ending: Ending) -> EmbeddedStore {
        let data_set = store.data_set();
        match ending {
            Ending::Clean => store.close(),
            Ending::Crash => store.abandon(),
        }
        let dirs = self.dirs.borrow();
        let (_, path, _) = dirs.iter().find(|(id, ..)| *id == data_set).unwrap();
        EmbeddedStore::open(path, self.options.clone()).unwrap()
    }
}

#[test]
fn the_memory_store_conforms() {
    run_all(&Memory);
}

#[test]
fn the_embedded_store_conforms() {
    run_all(&Embedded::new(EmbeddedOptions {
        lanes: 16,
        segment_bytes: 4 << 20,
        ..EmbeddedOptions::default()
    }));
}

/// Small segments are sealed and viewed all the time, so that reads meet data on its way.
#[test]
fn the_embedded_store_conforms_with_small_segments_and_windows() {
    run_all(&Embedded::new(EmbeddedOptions {
        lanes: 8,
        segment_bytes: 96 << 10,
        events_window_ms: 36 * 3600 * 1000,
        views_duty_percent: 100,
        reader_threads: 1,
        ..EmbeddedOptions::default()
    }));
}
