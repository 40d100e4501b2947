//! The binary `rialto`: configuration, wiring of broker and storage, operator commands. A library as well, so that the
//! repository's tests can hold the documentation against its tables.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`cli`], [`command`] | the command line, and what it has done |
//! | [`config`] | keys, layers, checks |
//! | [`serve`] | starts, runs and stops a broker |
//! | [`keys`], [`identity`] | signing key and certificate, made when they are needed |
//! | [`addresses`] | the file that says where a broker listens |
//! | [`token`], [`status`] | operator commands |
//! | `scheduling` | which thread has a processor first |
//! | [`banner`], [`logging`], [`terminal`], [`signals`], [`limits`] | what surrounds a running broker |

pub mod addresses;
pub mod banner;
pub mod cli;
pub mod command;
pub mod config;
mod files;
pub mod identity;
pub mod keys;
pub mod limits;
pub mod logging;
mod scheduling;
pub mod serve;
pub mod signals;
pub mod status;
pub mod terminal;
pub mod token;
