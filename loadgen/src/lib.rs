//! Load and correctness of a broker, seen from its clients.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`corpus`] | real chat, read from a file |
//! | [`replay`] | plays it, and has it judged |
//! | [`checker`] | the judge of what readers got |
//! | [`run`] | made load, measured |
//! | [`scenario`], [`threshold`], [`units`] | what is asked for, as people write it |
//! | [`compare`], [`page`], [`watch`] | what is shown of a run: two side by side, as HTML, while it lasts |
//! | [`idle`] | what connections that do nothing cost |
//! | [`catch_up`] | a reader who was away |
//! | [`latency`], [`counters`], [`progress`] | figures while a run lasts and after it |
//! | [`wire`] | the wire as load is made: no queue, task or allocation for a message |
//! | [`dial`], [`target`], [`tokens`], [`open_files`] | connecting |
//! | [`broker_process`], [`standstill`] | what the broker uses meanwhile, and when the machine was not there |

pub mod broker_process;
pub mod catch_up;
pub mod checker;
pub mod compare;
pub mod corpus;
pub mod counters;
pub mod dial;
pub mod idle;
pub mod latency;
pub mod open_files;
pub mod page;
pub mod progress;
pub mod replay;
pub mod run;
pub mod scenario;
pub mod standstill;
pub mod target;
pub mod threshold;
pub mod tokens;
pub mod units;
pub mod watch;
pub mod wire;
