//! What every implementation must do, as tests that anybody can run against his own.
//!
//! Each behaviour is a function that panics where it is not kept; [`run_all`] runs them all. Most write in two halves and
//! ask the same questions at every stage that data goes through: in the journal alone, half of it in the views, all of
//! it there, after a clean end, and after a crash.

mod events;
mod fixture;
mod journal;
mod outbox;
mod rows;
mod sent;

pub use self::{
    events::{
        events_come_back_in_order_and_cut_where_asked, heads_are_of_the_last_event,
        long_events_are_whole,
    },
    journal::{
        a_call_with_one_bad_entry_keeps_nothing, a_claim_finds_the_tail_and_raises_the_epoch,
        a_former_owner_is_fenced, an_entry_that_is_too_large_is_refused,
        an_unanswered_entry_is_kept_whole_or_not_at_all, calls_take_effect_in_their_order,
        lanes_work_side_by_side, positions_and_epochs_are_enforced, time_never_goes_back,
        users_are_seen_last_when_they_were,
    },
    outbox::what_was_not_passed_on_is_found_again,
    rows::{rows_are_the_newest, scans_are_in_order_and_within_bounds},
    sent::{
        a_client_id_is_one_devices_alone, ids_that_are_alike_are_told_apart,
        of_many_devices_the_newest_are_named, sent_ids_are_found_again,
    },
};
use crate::{Store, journal::ENTRY_BYTES_MAX};

/// How a store ends before it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order.
    Clean,
    /// As when the process is killed: what was acknowledged is durable, nothing else is promised.
    Crash,
}

/// Makes the stores that are tested.
pub trait Harness {
    /// What is tested.
    type Store: Store;

    /// A store with nothing in it, with 8 lanes at least.
    fn open(&self) -> Self::Store;

    /// Longest entry that a store takes in, when its configuration allows less than the traits do.
    fn entry_bytes_max(&self) -> usize {
        ENTRY_BYTES_MAX
    }

    /// Ends the store and opens the same data again.
    fn reopen(&self, store: Self::Store, ending: Ending) -> Self::Store;
}

/// Runs every behaviour.
///
/// # Panics
/// When one is not kept.
pub fn run_all(harness: &impl Harness) {
    a_claim_finds_the_tail_and_raises_the_epoch(harness);
    positions_and_epochs_are_enforced(harness);
    a_former_owner_is_fenced(harness);
    time_never_goes_back(harness);
    an_entry_that_is_too_large_is_refused(harness);
    a_call_with_one_bad_entry_keeps_nothing(harness);
    calls_take_effect_in_their_order(harness);
    an_unanswered_entry_is_kept_whole_or_not_at_all(harness);
    lanes_work_side_by_side(harness);
    users_are_seen_last_when_they_were(harness);
    heads_are_of_the_last_event(harness);
    events_come_back_in_order_and_cut_where_asked(harness);
    long_events_are_whole(harness);
    rows_are_the_newest(harness);
    scans_are_in_order_and_within_bounds(harness);
    sent_ids_are_found_again(harness);
    a_client_id_is_one_devices_alone(harness);
    ids_that_are_alike_are_told_apart(harness);
    of_many_devices_the_newest_are_named(harness);
    what_was_not_passed_on_is_found_again(harness);
}
