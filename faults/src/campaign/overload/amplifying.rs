//! Attacks by what a little request causes: conversations of hundreds, mentions of many, and changes that hundreds watch.

use std::rc::Rc;
use std::time::Duration;

use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_protocol::limits;
use rialto_protocol::v1;
use tokio::io::AsyncWriteExt as _;
use tokio::time::interval;

use super::line::{self, Caller, Hearing, Line};
use super::site::Site;
use crate::random::Dice;

/// Messages to each new conversation.
const MESSAGES: usize = 4;
/// Changes between two lists of whom one watches, and the time for them: more than the rate of requests allows.
const FLIPS: u32 = 120;
const FLIPS_EVERY: Duration = Duration::from_secs(1);
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

/// Everybody watches others, now these and now those, and is away and back faster than he may; half of them never read.
pub(super) async fn presence(site: &Rc<Site>) {
    site.each(|site, number| async move {
        loop {
            let hearing = match number % 2 {
                0 => Hearing::Deaf,
                _ => Hearing::Usual,
            };
            let line = Line::enter(&site, number, Caller::User, hearing).await;
            let (mut read, mut write) = line.stream.into_split();
            let speak = async {
                let (mut id, mut turns) = (2, interval(FLIPS_EVERY));
                while write
                    .write_all(&flips(number, site.connections, &mut id))
                    .await
                    .is_ok()
                {
                    turns.tick().await;
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
