//! What lasts: the journal (the truth), the views made from it, and the directory, each behind a trait.
//!
//! The broker sees three traits and never which implementation stands behind them. An implementation is one value that
//! has all three, because a read has to find what is durable wherever it is: in the views, or still in the journal alone.
//! `embedded` keeps everything below one directory of one machine; `memory` keeps it in memory for simulation, faithful
//! to the conditional insert; both pass the suite in `conformance`. Nothing here knows a rule of the domain: an entry of
//! the journal holds events and the rows that follow from them (`rialto_protocol::record`).

#![forbid(unsafe_code)]

pub mod conformance;
pub mod directory;
pub mod embedded;
pub mod journal;
pub mod memory;
mod page;
mod promise;
pub mod views;

use std::{future::Future, pin::Pin};

pub use promise::wait;

/// What the traits' methods return: object-safe, and free of any runtime.
pub type StoreFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'static>>;

/// All that a broker needs to keep.
pub trait Store: journal::Journal + views::Views + directory::Directory {}

impl<S: journal::Journal + views::Views + directory::Directory> Store for S {}
