//! The edge against a fake owner, in virtual time.

mod chaos;
mod contents;
mod creating;
mod credit;
mod crossing;
mod draining;
mod ending;
mod handshake;
mod leaving;
mod log;
mod presence;
mod publish;
mod reading;
mod requests;
mod rig;
mod subscribing;
mod telling;
mod tokens;
mod unread;
mod watching;
