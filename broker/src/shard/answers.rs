//! Long answers of other shards. What storage has found is read there, in so much time of a round, and encoded and compressed for
//! its reader here: a page in some 1 ms, and a mailbox may hold many. They wait for the time that a round has for answers, with
//! those of this shard's own storage.
//!
//! What another shard has said behind such an answer may be passed on before it, as if storage had taken longer. That is all
//! the same to readers: requests are answered in any order, and a subscription that is behind takes in events from where it
//! stands, or none once it has ended.

use std::rc::Rc;

use bytes::Bytes;
use rialto_core::{
    io::Input,
    message::{Message, ToEdge},
};

use super::engine::Engine;

/// What is shorter is passed on at once, in some 20 µs at most.
const LONG_BYTES: usize = 4 << 10;

/// Whether it is an answer that takes long to be passed on.
pub(crate) fn is_long(message: &Message) -> bool {
    let Message::ToEdge(message) = message else {
        return false;
    };
    let bytes = match message {
        ToEdge::Answered { body, .. } => body.len(),
        ToEdge::CaughtUp {
            result: Ok(events), ..
        } => events.iter().map(Bytes::len).sum::<usize>(),
        _ => 0,
    };
    bytes >= LONG_BYTES
}

/// Passes it on when there is time. Until then it holds what its request does: credit, or room that is kept for it.
pub(crate) fn pass_on(engine: &Rc<Engine>, answer: Message) {
    let (engine, held) = (Rc::clone(engine), engine.turns().hold_answer());
    tokio::task::spawn_local(async move {
        engine.answer_turn().await;
        let _working = engine.turns().answers().working();
        let messages = vec![answer];
        engine.handle(Input::Messages { messages });
        drop(held);
    });
}

#[cfg(test)]
mod tests {
    use rialto_core::{
        io::{ConnId, Output, Transport},
        message::Origin,
        topology::ShardId,
    };
    use rialto_protocol::{
        frame::FrameKind,
        ids::{ConversationId, RequestId, Seq, UserId},
    };
    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::shard::{
        engine::tests::{admitted, engine},
        figures::Carrier,
        mailbox::Delivery,
        outgoing::Outgoing,
        pump::Pump,
    };

    fn answer(conn: ConnId, bytes: usize) -> Message {
        Message::ToEdge(ToEdge::Answered {
            origin: Origin {
                edge: ShardId(0),
                conn,
                request: RequestId(1),
                cost: 0,
            },
            kind: FrameKind::HistoryPage,
            body: Bytes::from(vec![0; bytes]),
        })
    }

    /// How long the frames are that the core has for connections since it was asked last.
    fn sent(engine: &Engine) -> Vec<usize> {
        let mut outputs = Vec::new();
        engine.with_core(|core, _| core.take_outputs(&mut outputs));
        let frames = outputs.iter().filter_map(|output| match output {
            Output::Send { frame, .. } => Some(frame.len()),
            _ => None,
        });
        frames.collect()
    }

    #[tokio::test]
    async fn long_answers_of_other_shards_wait_for_time_and_nothing_waits_for_them() {
        LocalSet::new()
            .run_until(async {
                let engine = engine();
                let can = Transport::default();
                let registration = engine.open(Carrier::Tcp, admitted(&engine), can, None);
                let conn = registration.link().id();
                let mut outgoing = Outgoing::new(usize::MAX);
                for bytes in [LONG_BYTES, LONG_BYTES - 1] {
                    assert_eq!(outgoing.push(answer(conn, bytes)), None);
                }
                let mailbox = &engine.node().mailboxes[0];
                assert_eq!(mailbox.offer(ShardId(1), &mut outgoing), Delivery::Taken);
                let mut pump = Pump::new(Rc::clone(&engine));
                engine.turns().answers().use_up();
                assert!(pump.take_messages());
                for _ in 0..3 {
                    yield_now().await;
                }
                let at_once = sent(&engine);
                assert_eq!(at_once.len(), 1, "one of them is long");
                assert!(!engine.is_idle());
                engine.turns().call();
                for _ in 0..3 {
                    yield_now().await;
                }
                assert_eq!(sent(&engine), [at_once[0] + 1]);
                assert!(engine.is_idle());
            })
            .await;
    }

    #[test]
    fn pages_of_a_log_are_long_and_what_is_told_to_all_readers_is_not() {
        let conversation = ConversationId::from_bytes([1; 16]);
        let conn = ConnId {
            index: 0,
            generation: 0,
        };
        let page = |events: usize| {
            let event = Bytes::from(vec![0; LONG_BYTES / 4]);
            Message::ToEdge(ToEdge::CaughtUp {
                conn,
                conversation,
                from: Seq(1),
                result: Ok(vec![event; events]),
            })
        };
        assert!(!is_long(&page(0)) && !is_long(&page(3)) && is_long(&page(4)));
        let news = Message::ToEdge(ToEdge::Signalled {
            conversation,
            user: UserId::SYSTEM,
            frame: Bytes::from(vec![0; LONG_BYTES]),
        });
        assert!(!is_long(&news));
    }
}
