//! Attacks by what a little request causes: conversations of hundreds, mentions of many, and changes that hundreds watch.

use std::rc::Rc;
use std::time::Duration;

use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_protocol::limits;
use rialto_protocol::v1;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::line::{self, Caller, Hearing, Line};
use super::site::Site;
use crate::random::Dice;

/// Messages to each new conversation.
const MESSAGES: usize = 4;
/// Changes between two lists of whom one watches, and the time for them: more than the rate of requests allows.
const FLIPS: u32 = 120;
const FLIPS_EVERY_MS: u64 = 1_000;
const FLIPS_EVERY: Duration = Duration::from_millis(FLIPS_EVERY_MS);
/// Users of a list that has room in a crowd.
const WATCHED: usize = 20;

/// Opens conversations with as many members as can be, and mentions as many as can be in each; in half of the cases for a service.
pub(super) async fn creates(site: &Rc<Site>) {
    site.each(|site, number| async move {
        let mut dice = Dice::new(number as u64);
        loop {
            let line = Line::enter(&site, number, Caller::of(number), Hearing::Usual).await;
            line.pour(&site.tally, |id| crowd(&mut dice, id)).await;
            line::turned_away(&site).await;
        }
    })
    .await;
}

/// A conversation of users who have never been seen, and what is said there.
fn crowd(dice: &mut Dice, id: &mut u32) -> Vec<u8> {
    let mut entropy = [0; 10];
    dice.fill(&mut entropy);
    let conversation = ConversationId::v7(line::now_ms(), entropy);
    let members: Vec<_> = (0..limits::MEMBERS_PER_CREATE_MAX)
        .map(|_| {
            let mut member = [0; 16];
            dice.fill(&mut member);
            UserId::from_bytes(member).to_proto()
        })
        .collect();
    let message = v1::Message {
        body: "all of you".into(),
        mentions: members[..limits::MENTIONS_MAX].to_vec(),
        ..v1::Message::default()
    };
    let create = v1::Create {
        conversation: conversation.to_proto(),
        kind: v1::ConversationKind::Group as i32,
        client_id: line::client_id(*id).to_proto(),
        members,
        ..v1::Create::default()
    };
    let mut all = line::request(FrameKind::Create, *id, &create);
    *id += 1;
    for _ in 0..MESSAGES {
        all.extend(line::say(conversation, *id, message.clone()));
        *id += 1;
    }
    all
}

/// Everybody watches others, now these and now those, and is away and back faster than he may; half of them never read. When in
/// each second somebody's turn is follows from the seed and not from when he was let in: else by chance many would have it at once.
pub(super) async fn presence(site: &Rc<Site>) {
    let begun = Instant::now();
    site.each(|site, number| async move {
        let first = begun + phase(&site.dice, number);
        loop {
            let hearing = match number % 2 {
                0 => Hearing::Deaf,
                _ => Hearing::Usual,
            };
            let line = Line::enter(&site, number, Caller::User, hearing).await;
            let (mut read, mut write) = line.stream.into_split();
            let speak = async {
                let mut id = 2;
                let mut turns = interval_at(next_turn(first, Instant::now()), FLIPS_EVERY);
                turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
                loop {
                    turns.tick().await;
                    let flips = flips(number, site.connections, &mut id);
                    if write.write_all(&flips).await.is_err() {
                        return;
                    }
                }
            };
            let hear = async {
                match hearing {
                    Hearing::Usual => Line::drain(&mut read, &site.tally).await,
                    Hearing::Deaf => std::future::pending().await,
                }
            };
            tokio::select! {
                () = speak => {}
                () = hear => {}
            }
            line::turned_away(&site).await;
        }
    })
    .await;
}

/// How far into each second this one's turn is.
fn phase(dice: &Dice, number: usize) -> Duration {
    dice.of(number as u64).millis(0, FLIPS_EVERY_MS - 1)
}

/// The first turn that has not passed, of those from `first` on.
fn next_turn(first: Instant, now: Instant) -> Instant {
    let passed = now.saturating_duration_since(first);
    let turns = passed.as_nanos().div_ceil(FLIPS_EVERY.as_nanos());
    first + FLIPS_EVERY * u32::try_from(turns).unwrap_or(u32::MAX)
}

/// A list of whom to watch, which begins elsewhere in the crowd each time, and changes of one's own. Every other list is as long as
/// it may be, which is more than there is room for in a crowd.
fn flips(number: usize, crowd: usize, id: &mut u32) -> Vec<u8> {
    let from = number + usize::try_from(*id).unwrap_or(0);
    let count = if id.is_multiple_of(2) {
        WATCHED
    } else {
        limits::WATCHED_USERS_MAX
    };
    let users = (0..count.min(crowd)).map(|place| Line::user((from + place) % crowd).to_proto());
    let watch = v1::Watch {
        users: users.collect(),
    };
    let mut all = line::request(FrameKind::Watch, *id, &watch);
    for flip in 1..=FLIPS {
        let state = match (*id + flip) % 2 {
            0 => v1::PresenceState::Online,
            _ => v1::PresenceState::Away,
        };
        let presence = v1::SetPresence {
            state: state as i32,
        };
        all.extend(line::request(FrameKind::SetPresence, *id + flip, &presence));
    }
    *id += FLIPS + 1;
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_where_the_seed_says_whenever_somebody_is_let_in() {
        let phases = |seed| {
            let dice = Dice::new(seed);
            (0..100).map(|number| phase(&dice, number)).collect()
        };
        let seventh: Vec<Duration> = phases(7);
        assert_eq!(phases(7), seventh);
        assert_ne!(phases(8), seventh);
        for quarter in 0..4 {
            let mut found = seventh.iter().map(|phase| phase.as_millis() * 4 / 1_000);
            assert!(found.any(|found| found == quarter));
        }
        let (begun, ms) = (Instant::now(), Duration::from_millis);
        for (let_in, turn) in [
            (0, 300),
            (300, 300),
            (301, 1_300),
            (1_299, 1_300),
            (5_000, 5_300),
        ] {
            let next = next_turn(begun + ms(300), begun + ms(let_in));
            assert_eq!(next, begun + ms(turn), "{let_in}");
        }
    }
}
