//! What an earlier replay of the same run left in a conversation: it is adopted, and the replay goes on behind it.

use ahash::{AHashMap, AHashSet};
use rialto_protocol::ids::{ConversationId, Seq, UserId};
use rialto_protocol::v1;
use rialto_protocol::v1::event::Content;

use super::player::Play;
use crate::checker::{Fingerprint, Observed, Said, Script, Sent};
use crate::corpus::Log;
use crate::latency::Latencies;

/// The conversation holds something else than the beginning of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} of this run holds another message than the file at seq {seq}: give --run another name, or the same file"
)]
pub struct OtherLog {
    name: String,
    seq: Seq,
}

/// A play that has not begun. `user` tells who stands behind a nick.
pub(super) fn new_play(
    index: usize,
    log: &Log,
    conversation: ConversationId,
    user: impl Fn(usize) -> UserId,
) -> Play {
    let sent = |message: &crate::corpus::Message| Sent {
        client_id: None,
        said: Said {
            sender: user(message.nick),
            body: Fingerprint::of(message.text.as_bytes()),
            reply_to: Box::default(),
        },
        receipt: None,
    };
    Play {
        log: index,
        conversation,
        script: Script {
            name: format!("{} on {}", log.channel, log.day),
            messages: log.messages.iter().map(sent).collect(),
        },
        sent_us: vec![0; log.messages.len()],
        resumed: 0,
        joined: AHashSet::new(),
        head: Seq(0),
        acks: Latencies::default(),
        problems: Vec::new(),
    }
}

/// Adopts what the conversation holds already, from its first event on.
///
/// # Errors
/// When that is not the beginning of the log.
pub(super) fn adopt(
    play: &mut Play,
    log: &Log,
    events: &[v1::Event],
    user: impl Fn(usize) -> UserId,
) -> Result<(), OtherLog> {
    let nicks: AHashMap<UserId, usize> = log
        .messages
        .iter()
        .map(|message| (user(message.nick), message.nick))
        .collect();
    for event in events {
        let observed = Observed::of(event);
        play.head = play.head.max(observed.seq);
        match (&event.content, observed.said) {
            (Some(Content::Membership(change)), _)
                if change.action() == v1::MembershipAction::Join =>
            {
                let member = UserId::from_slice(&event.sender)
                    .ok()
                    .and_then(|sender| nicks.get(&sender));
                play.joined.extend(member.copied());
            }
            (_, Some(said)) => {
                let at = play.resumed;
                let other = || OtherLog {
                    name: play.script.name.clone(),
                    seq: observed.seq,
                };
                let answered: Option<Box<[Seq]>> = log.messages.get(at).map(|message| {
                    message
                        .reply_to
                        .iter()
                        .filter_map(|&answered| play.script.messages[answered].receipt)
                        .map(|(_, seq)| seq)
                        .collect()
                });
                let expected = answered.map(|reply_to| Said {
                    reply_to,
                    ..play.script.messages[at].said.clone()
                });
                if expected.as_ref() != Some(&said) {
                    return Err(other());
                }
                let receipt = Some((observed.epoch, observed.seq));
                play.script.messages[at] = Sent {
                    client_id: Some(observed.client_id),
                    said,
                    receipt,
                };
                play.resumed += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rialto_protocol::ids::{ClientId, DeviceId};

    use super::*;
    use crate::corpus::Message;

    fn user(nick: usize) -> UserId {
        UserId::from_name(&format!("nick {nick}"))
    }

    fn log() -> Log {
        let message = |nick, text: &str, reply_to| Message {
            nick,
            at_s: 0,
            text: text.into(),
            reply_to,
        };
        let messages = vec![
            message(0, "one", vec![]),
            message(1, "two", vec![0]),
            message(0, "three", vec![0, 1]),
        ];
        Log {
            channel: "c".into(),
            day: "d".into(),
            messages,
        }
    }

    fn event(seq: u64, nick: usize, content: Content) -> v1::Event {
        v1::Event {
            seq,
            epoch: 1,
            time_ms: seq,
            sender: user(nick).to_proto(),
            device: DeviceId::v4([1; 16]).to_proto(),
            client_id: ClientId::v7(seq, [0; 10]).to_proto(),
            content: Some(content),
            ..v1::Event::default()
        }
    }

    fn message(text: &str, reply_to: &[u64]) -> Content {
        Content::Message(v1::Message {
            body: text.to_owned().into(),
            reply_to: reply_to.to_vec(),
            ..v1::Message::default()
        })
    }

    fn join() -> Content {
        Content::Membership(v1::Membership {
            action: v1::MembershipAction::Join.into(),
            ..v1::Membership::default()
        })
    }

    #[test]
    fn what_is_there_is_adopted_and_the_rest_is_left_to_play() {
        let log = log();
        let mut play = new_play(0, &log, ConversationId::from_bytes([1; 16]), user);
        let events = [
            event(1, 9, join()),
            event(2, 0, join()),
            event(3, 0, message("one", &[])),
            event(4, 1, join()),
            event(5, 1, message("two", &[3])),
        ];
        adopt(&mut play, &log, &events, user).unwrap();
        assert_eq!((play.resumed, play.head, play.joined.len()), (2, Seq(5), 2));
        assert_eq!(
            play.script.messages[1].client_id,
            Some(ClientId::v7(5, [0; 10]))
        );
        assert_eq!(play.script.messages[2].client_id, None);
    }

    #[test]
    fn another_text_answer_or_length_is_another_log() {
        let log = log();
        for events in [
            vec![event(1, 0, message("uno", &[]))],
            vec![event(1, 1, message("one", &[]))],
            vec![
                event(1, 0, message("one", &[])),
                event(2, 1, message("two", &[])),
            ],
            vec![
                event(1, 0, message("one", &[])),
                event(2, 1, message("two", &[1])),
                event(3, 0, message("three", &[1, 2])),
                event(4, 0, message("four", &[])),
            ],
        ] {
            let mut play = new_play(0, &log, ConversationId::from_bytes([1; 16]), user);
            let error = adopt(&mut play, &log, &events, user).unwrap_err();
            assert_eq!(error.seq, Seq(events.len() as u64));
        }
    }
}
