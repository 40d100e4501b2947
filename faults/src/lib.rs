//! Breaks the real broker on purpose, under load from the real SDK, and has what came of it judged.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`campaign`] | what is broken, how often, and the report |
//! | [`load`] | devices that talk and readers that follow, over whatever happens, and their judgement |
//! | [`broker`] | the broker's process |
//! | [`lives`] | how its lives ended, and whether that was in order |
//! | [`findings`] | violations and figures |
//! | [`random`] | numbers from a seed |

pub mod broker;
pub mod campaign;
pub mod findings;
pub mod lives;
pub mod load;
mod mount;
mod patience;
mod progress;
pub mod random;
mod relay;
mod shim;
