//! The repository's own rules. What can be said about its files lives here; `tests/` says what has to hold.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`tree`] | the files of the repository |
//! | [`source`] | Rust files, seen without their comments and tests |
//! | [`imports`] | what a Rust file uses |
//! | [`manifest`] | what a crate depends on |
//! | [`markdown`] | tables and paths in the documentation |

#![forbid(unsafe_code)]

pub mod imports;
pub mod manifest;
pub mod markdown;
pub mod source;
pub mod tree;
