//! What lanes still have to pass on.

use rialto_protocol::ids::Position;

use super::{
    Harness,
    fixture::{Batch, Owner, START_MS, at_every_stage, conversation, user},
};
use crate::{Store, journal::OutboxItem};

/// A claim brings every notice that no outbox-done covers, in order, however often it is asked.
///
/// # Panics
/// When it is not so.
pub fn what_was_not_passed_on_is_found_again(harness: &impl Harness) {
    let (whose, other) = (conversation(1), another_lane(harness));
    at_every_stage(
        harness,
        |owner, half| {
            let notices = |first: u8| {
                Batch::default()
                    .outbox(user(first), &[first; 3])
                    .outbox(user(first + 1), &[first + 1; 5])
            };
            if half == 0 {
                owner.append(whose, START_MS, notices(1));
                owner.append(whose, START_MS + 1, Batch::default());
                owner.append(whose, START_MS + 2, notices(3));
                owner.append(other, START_MS, notices(21));
            } else {
                // Done through the entry between: the second one's notices are still to go.
                owner.append(
                    whose,
                    START_MS + 3,
                    Batch::default().outbox_done(Position(2)),
                );
                owner.append(whose, START_MS + 4, notices(5));
                owner.append(
                    other,
                    START_MS + 5,
                    Batch::default().outbox_done(Position(1)),
                );
            }
        },
        |store, stage| {
            for _ in 0..2 {
                let owner = Owner::of(store);
                let found = &owner.claim(owner.lane_of(whose)).outbox;
                let expected = [(3, 0, 2, 3), (3, 1, 2, 4), (5, 0, 4, 5), (5, 1, 4, 6)].map(item);
                assert_eq!(found[..], expected, "{stage}");
                assert_eq!(
                    owner.claim(owner.lane_of(other)).outbox,
                    [],
                    "{stage}: all of it was passed on"
                );
            }
        },
    );
}

/// A conversation of another lane than the first's.
fn another_lane(harness: &impl Harness) -> rialto_protocol::ids::ConversationId {
    fn find(store: &impl Store) -> rialto_protocol::ids::ConversationId {
        let owner = Owner::of(store);
        let first = owner.lane_of(conversation(1));
        (2..)
            .map(conversation)
            .find(|other| owner.lane_of(*other) != first)
            .expect("there are several lanes")
    }
    find(&harness.open())
}

fn item((position, index, time, notice): (u64, u16, u64, u8)) -> OutboxItem {
    let bytes = if index == 0 { 3 } else { 5 };
    OutboxItem {
        position: Position(position),
        index,
        time_ms: START_MS + time,
        user: user(notice),
        notice: vec![notice; bytes].into(),
    }
}
