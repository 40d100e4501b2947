//! Attacks by sheer number: of readers, of subscriptions, of connections.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rialto_loadgen::counters::Counters;
use rialto_loadgen::dial::Dialer;
use rialto_loadgen::tokens::Tokens;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::ConversationId;
use rialto_protocol::limits;
use rialto_protocol::v1;
use rialto_sdk::{Client, Content, Roots};
use tokio::time::{interval, sleep};

use super::line::{self, Caller, Hearing, Line};
use super::site::{Site, Tally};

/// What slow readers are told, and how often.
const BUSY_BYTES: usize = 16 << 10;
const BUSY_EVERY: Duration = Duration::from_millis(10);
/// What a crowd of readers is told, and how often.
const HOT_BYTES: usize = 100;
const HOT_EVERY: Duration = Duration::from_millis(500);
/// Conversations in one Subscribe: as many as it may name.
const SUBSCRIPTIONS: usize = limits::SUBSCRIPTIONS_PER_REQUEST_MAX;
/// How long a client of the storm stays.
const STAY: Duration = Duration::from_millis(1_500);
/// Of so many connections of the storm, one is over QUIC.
const QUIC_OF: usize = 8;

/// Readers of a busy conversation that never read.
pub(super) async fn slow_readers(site: &Rc<Site>) {
    let Some((herald, square)) = site.herald().await else {
        return;
    };
    let told = tell(&herald, square, BUSY_BYTES, BUSY_EVERY);
    let readers = site.each(|site, number| async move {
        let mut line = Line::enter(&site, number, Caller::User, Hearing::Deaf).await;
        if line.send(&subscribe(2, &[square])).await.is_ok() {
            std::future::pending::<()>().await;
        }
    });
    tokio::join!(told, readers);
}

/// As many readers of one conversation as there can be; all of them read.
pub(super) async fn hot_conversation(site: &Rc<Site>) {
    let Some((herald, square)) = site.herald().await else {
        return;
    };
    let told = tell(&herald, square, HOT_BYTES, HOT_EVERY);
    let readers = site.each(|site, number| async move {
        loop {
            let mut line = Line::enter(&site, number, Caller::User, Hearing::Usual).await;
            if line.send(&subscribe(2, &[square])).await.is_ok() {
                Line::drain(&mut line.stream, &site.tally).await;
            }
            line::turned_away(&site).await;
        }
    });
    tokio::join!(told, readers);
}

async fn tell(herald: &Client, square: ConversationId, bytes: usize, every: Duration) {
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let said = herald.publish(square, Content::text("x".repeat(bytes)));
        if let Ok(said) = said.await {
            let _ = said.await;
        }
    }
}

/// Subscribes to thousands of conversations and unsubscribes again, most of which do not exist.
pub(super) async fn subscribe_storm(site: &Rc<Site>) {
    let Some((_herald, square)) = site.herald().await else {
        return;
    };
    site.each(|site, number| async move {
        let mut wanted: Vec<ConversationId> = (0..SUBSCRIPTIONS - 1)
            .map(|other| ConversationId::of_self(Line::user(number * SUBSCRIPTIONS + other)))
            .collect();
        wanted.push(square);
        let few = subscribe(2, &wanted[SUBSCRIPTIONS - 100..]);
        let many = subscribe(3, &wanted);
        let none = v1::Unsubscribe {
            conversations: wanted.iter().map(ConversationId::to_proto).collect(),
        };
        let none = line::request(FrameKind::Unsubscribe, 4, &none);
        loop {
            let line = Line::enter(&site, number, Caller::User, Hearing::Usual).await;
            let (mut read, mut write) = line.stream.into_split();
            let speak = async {
                use tokio::io::AsyncWriteExt as _;
                loop {
                    for request in [&few, &many, &none] {
                        if write.write_all(request).await.is_err() {
                            return;
                        }
                    }
                }
            };
            tokio::select! {
                () = speak => {}
                () = Line::drain(&mut read, &site.tally) => {}
            }
            line::turned_away(&site).await;
        }
    })
    .await;
}

fn subscribe(id: u32, conversations: &[ConversationId]) -> Vec<u8> {
    let subscribe = v1::Subscribe {
        subscriptions: conversations
            .iter()
            .map(|conversation| v1::Subscription {
                conversation: conversation.to_proto(),
                cursor: None,
            })
            .collect(),
    };
    line::request(FrameKind::Subscribe, id, &subscribe)
}

/// Everybody comes, stays a moment, leaves without a word and comes again. One in eight over QUIC, whose connections share sockets.
pub(super) async fn reconnect_storm(site: &Rc<Site>) {
    let Ok(target) = format!("quic://127.0.0.1:{}", site.ports.quic).parse() else {
        return;
    };
    let dialer = Rc::new(Dialer::new(
        target,
        Tokens::Development,
        Roots::InsecureLoopbackOnly,
        Duration::ZERO,
        Arc::new(Counters::default()),
    ));
    site.each(|site, number| {
        let dialer = dialer.clone();
        async move {
            loop {
                if number.is_multiple_of(QUIC_OF) {
                    let connected = {
                        let _turn = site.opening.acquire().await;
                        dialer.connect_at_once(Line::user(number)).await
                    };
                    match connected {
                        Ok(held) => {
                            Tally::add(&site.tally.opened);
                            Tally::add(&site.tally.in_over_quic);
                            sleep(STAY).await;
                            drop(held);
                        }
                        Err(_) => line::turned_away(&site).await,
                    }
                } else {
                    let line = Line::enter(&site, number, Caller::User, Hearing::Usual).await;
                    Tally::add(&site.tally.in_over_tcp);
                    sleep(STAY).await;
                    drop(line);
                }
            }
        }
    })
    .await;
}
