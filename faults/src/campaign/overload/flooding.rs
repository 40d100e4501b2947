//! Attacks by sheer number of bytes: whatever is asked, faster than anybody could answer, and nonsense.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use rialto_protocol::frame::{FrameKind, HEADER_BYTES};
use rialto_protocol::ids::ConversationId;
use rialto_protocol::v1;
use rialto_sdk::{Client, Content};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::line::{self, Caller, Hearing, Line};
use super::site::{Site, Tally};
use crate::random::Dice;

/// Requests that are written at once.
const PIPELINE: u32 = 2_000;
/// Longest segment of a tiny write.
const SEGMENT_BYTES_MAX: u64 = 3;
/// Bodies of a flood.
const FLOOD_BYTES: usize = 1_000;
/// Messages that a flood writes at once.
const FLOOD_MESSAGES: u32 = 64;
/// Events of the log that is read without listening, and their bytes.
const LOG_EVENTS: usize = 100;
const LOG_BYTES: usize = 8 << 10;

/// Each frame in segments of 1 to 3 bytes.
pub(super) async fn tiny_writes(site: &Rc<Site>) {
    site.each(|site, number| async move {
        let mut dice = Dice::new(number as u64);
        let frames = move |user, round| line::publish(ConversationId::of_self(user), round, 50);
        loop {
            let line = Line::enter(&site, number, Caller::User, Hearing::Usual).await;
            let user = line.user;
            let (mut read, mut write) = line.stream.into_split();
            let speak = async {
                for round in 2.. {
                    let mut frame = &frames(user, round)[..];
                    while !frame.is_empty() {
                        let bytes = usize::try_from(dice.between(1, SEGMENT_BYTES_MAX));
                        let (now, later) = frame.split_at(bytes.unwrap_or(1).min(frame.len()));
                        write.write_all(now).await?;
                        frame = later;
                    }
                    tokio::task::yield_now().await;
                }
                io::Result::Ok(())
            };
            tokio::select! {
                _ = speak => {}
                () = Line::drain(&mut read, &site.tally) => {}
            }
            line::turned_away(&site).await;
        }
    })
    .await;
}

/// As many requests of all kinds as the broker reads; answers are taken.
pub(super) async fn pipelines(site: &Rc<Site>) {
    site.each(|site, number| async move {
        loop {
            let line = Line::enter(&site, number, Caller::User, Hearing::Usual).await;
            let notes = ConversationId::of_self(line.user);
            let requests = mixed(notes);
            line.pour(&site.tally, |_| requests.clone()).await;
            line::turned_away(&site).await;
        }
    })
    .await;
}

fn mixed(notes: ConversationId) -> Vec<u8> {
    let history = history(notes);
    let describe = v1::Describe {
        conversation: notes.to_proto(),
    };
    let requests = (2..PIPELINE).map(|id| match id % 4 {
        0 => line::request(FrameKind::Describe, id, &describe),
        1 => line::request(FrameKind::History, id, &history),
        _ => line::request(FrameKind::Ping, id, &v1::Ping {}),
    });
    requests.flatten().collect()
}

fn history(conversation: ConversationId) -> v1::History {
    v1::History {
        conversation: conversation.to_proto(),
        from_seq: 1,
        direction: v1::Direction::Forward as i32,
        limit: 1_000,
    }
}

/// Publishes without end, in half of the cases for a service, and never reads an answer.
pub(super) async fn deaf_publishers(site: &Rc<Site>) {
    site.each(|site, number| async move {
        loop {
            let caller = Caller::of(number);
            let line = Line::enter(&site, number, caller, Hearing::Deaf).await;
            let notes = ConversationId::of_self(line.user);
            line.pour_deaf(|id| messages(notes, id, 20)).await;
            line::turned_away(&site).await;
        }
    })
    .await;
}

fn messages(conversation: ConversationId, id: &mut u32, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..FLOOD_MESSAGES {
        all.extend(line::publish(conversation, *id, bytes));
        *id += 1;
    }
    all
}

/// Asks for whole pages of a long log, again and again, and never reads one.
pub(super) async fn deaf_readers(site: &Rc<Site>) {
    let Some((_herald, square)) = long_log(site).await else {
        return;
    };
    site.each(|site, number| async move {
        loop {
            let line = Line::enter(&site, number, Caller::User, Hearing::Deaf).await;
            let ask = |id: &mut u32| {
                *id += 1;
                line::request(FrameKind::History, *id, &history(square))
            };
            line.pour_deaf(ask).await;
            line::turned_away(&site).await;
        }
    })
    .await;
}

/// A long log, and who has written it.
async fn long_log(site: &Site) -> Option<(Client, ConversationId)> {
    let (herald, square) = site.herald().await?;
    let mut dice = Dice::new(0);
    for _ in 0..LOG_EVENTS {
        let said = herald.publish(square, Content::text(letters(&mut dice)));
        if let Ok(said) = said.await {
            let _ = said.await;
        }
    }
    Some((herald, square))
}

/// A text with which compression has work. One letter again and again would cost nothing, and be sent as it is: the protocol allows
/// no page to become so small.
fn letters(dice: &mut Dice) -> String {
    let mut bytes = [0; LOG_BYTES];
    dice.fill(&mut bytes);
    let letter = |byte: &u8| char::from(b'a' + byte % 16);
    bytes.iter().map(letter).collect()
}

/// Follows a long log from its beginning, again and again, and has every page of it compressed.
pub(super) async fn compressed_pages(site: &Rc<Site>) {
    let Some((_herald, square)) = long_log(site).await else {
        return;
    };
    site.each(|site, number| async move {
        loop {
            let caller = Caller::Compressing;
            let line = Line::enter(&site, number, caller, Hearing::Usual).await;
            let ask = |id: &mut u32| {
                *id += 1;
                let subscription = v1::Subscription {
                    conversation: square.to_proto(),
                    cursor: Some(v1::Cursor::default()),
                };
                let subscriptions = vec![subscription];
                line::request(FrameKind::Subscribe, *id, &v1::Subscribe { subscriptions })
            };
            line.pour(&site.tally, ask).await;
            line::turned_away(&site).await;
        }
    })
    .await;
}

/// Messages beyond what a shard and its disk take, in half of the cases from services; answers are taken.
pub(super) async fn flood(site: &Rc<Site>) {
    site.each(|site, number| async move {
        loop {
            let line = Line::enter(&site, number, Caller::of(number), Hearing::Usual).await;
            let notes = ConversationId::of_self(line.user);
            line.pour(&site.tally, |id| messages(notes, id, FLOOD_BYTES))
                .await;
            line::turned_away(&site).await;
        }
    })
    .await;
}

/// What is no frame, no body, or not its turn; before and after Hello.
pub(super) async fn garbage(site: &Rc<Site>) {
    site.each(|site, number| async move {
        let mut dice = Dice::new(number as u64);
        loop {
            let nonsense = nonsense(&mut dice);
            if dice.chance(500) {
                let opened = {
                    let _turn = site.opening.acquire().await;
                    line::open(&site, site.ports.tcp, number, Hearing::Usual).await
                };
                if let Ok(mut stream) = opened {
                    let _ = stream.write_all(&nonsense).await;
                    Line::drain(&mut stream, &site.tally).await;
                }
            } else {
                let mut line = Line::enter(&site, number, Caller::User, Hearing::Usual).await;
                let _ = line.send(&nonsense).await;
                Line::drain(&mut line.stream, &site.tally).await;
            }
            Tally::add(&site.tally.turned_away);
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn nonsense(dice: &mut Dice) -> Vec<u8> {
    let mut random = |bytes: usize| -> Vec<u8> {
        let byte = |_| u8::try_from(dice.roll(256)).unwrap_or(0);
        (0..bytes).map(byte).collect()
    };
    let of = random(1)[0] % 5;
    let body = random(100);
    let header = |length: u32, kind: u8| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend([kind, 0, 0, 0, 9, 0, 0, 0]);
        bytes
    };
    let whole = u32::try_from(HEADER_BYTES - 4 + body.len()).unwrap_or(0);
    match of {
        0 => header(3, 3),
        1 => header(u32::MAX, 4),
        2 => [header(whole, 60), body].concat(),
        3 => [
            header(whole, FrameKind::Subscribe.number()),
            vec![0xff; 100],
        ]
        .concat(),
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::frame;
    use rialto_protocol::ids::RequestId;

    use super::*;

    #[test]
    fn pages_of_the_long_log_are_sent_compressed() {
        let sent = |text: String| {
            let page = frame::wrap(FrameKind::Deliver, RequestId::PUSH, text.as_bytes());
            frame::compress(&page)
        };
        let mut dice = Dice::new(0);
        assert!(sent((0..30).map(|_| letters(&mut dice)).collect()).is_some());
        assert!(sent("x".repeat(30 * LOG_BYTES)).is_none());
    }
}
