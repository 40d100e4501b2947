//! Old events are dropped while their conversation is in memory.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    frame::FrameKind,
    ids::{ConversationId, LaneId, Seq},
    record::{self, Table},
    v1,
};
use rialto_storage::{
    embedded::{EmbeddedOptions, EmbeddedStore},
    journal::{Entry, Journal},
    memory::MemoryStore,
    views::{Order, Range, Scan, Views},
};

use crate::support::{Node, text_of, within};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
const LANES: u16 = 16;

/// Everything of the conversation, as if it had happened at another time.
async fn copy(from: &MemoryStore, to: &EmbeddedStore, conversation: ConversationId, time_ms: u64) {
    let mut records = BytesMut::new();
    let all = Range {
        conversation,
        from: Seq(1),
        to: Seq(u64::MAX),
        bytes_max: usize::MAX,
        order: Order::Forward,
    };
    for event in from.read_now(&all).unwrap() {
        record::put_event(&mut records, &conversation, |buf| {
            buf.extend_from_slice(&event);
        });
    }
    for table in [Table::Profile, Table::Member] {
        let scan = Scan {
            conversation,
            table,
            after: Bytes::new(),
            through: Bytes::new(),
            limit: usize::MAX,
        };
        for (key, value) in from.scan_now(&scan).unwrap() {
            record::put_row(&mut records, &conversation, table, &key, &value);
        }
    }
    let lane = LaneId::of(&conversation, LANES);
    let claim = to.claim(vec![lane]).await.unwrap().remove(0);
    let entry = Entry {
        lane,
        epoch: claim.epoch,
        position: claim.tail.next(),
        time_ms,
        records: records.freeze(),
    };
    to.append(vec![entry]).await.unwrap();
}

#[tokio::test]
async fn a_reader_from_the_first_event_on_learns_that_it_was_dropped_and_follows_what_is_left() {
    let node = Node::start();
    let mut ann = node.join("ann").await;
    let group = ann.create_group(1, &["bob"]).await;
    for number in 2..=9 {
        ann.publish(group, &format!("{number}")).await;
    }
    let written = node.store.clone();
    drop(ann);
    node.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        lanes: LANES,
        events_window_ms: DAY_MS,
        retention_ms: Some(10 * DAY_MS),
        views_duty_percent: 100,
        ..EmbeddedOptions::default()
    };
    let store = EmbeddedStore::open(&dir.path().join("data"), options).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let long_ago_ms = u64::try_from(now.as_millis()).unwrap() - 30 * DAY_MS;
    copy(&written, &store, group, long_ago_ms).await;
    store.settle().await.unwrap();

    assert_eq!(store.sent_as_of_ms(), long_ago_ms);

    let node = Node::start_over(written, Arc::new(store.clone()), |_| ());
    let mut ann = node.join("ann").await;
    ann.follow_all(group).await;
    assert_eq!(ann.messages(8).await.len(), 8);
    assert_eq!(ann.publish(group, "new").await.seq, 10);
    // With that in the views the days before are dropped.
    store.settle().await.unwrap();
    assert!(store.sent_as_of_ms() > long_ago_ms);

    let mut bob = node.join("bob").await;
    let truncated = within("the drop to be noticed", async {
        loop {
            let result = bob.follow(group, v1::Cursor::default()).await;
            if result.status() == v1::SubscriptionStatus::Truncated {
                return result;
            }
        }
    })
    .await;
    assert_eq!(truncated.oldest_seq, 10);
    let left: v1::Deliver = bob.expect(FrameKind::Deliver).await;
    let left = left.events;
    assert_eq!((left[0].seq, text_of(&left[0])), (10, "new".to_owned()));
    let history = v1::History {
        conversation: group.to_proto(),
        from_seq: 1,
        direction: v1::Direction::Forward as i32,
        limit: 5,
    };
    let request = bob.send(FrameKind::History, &history).await;
    let page: v1::HistoryPage = bob.answer(request, FrameKind::HistoryPage).await;
    assert_eq!(
        (page.events.len(), page.oldest_seq, page.end),
        (1, 10, true)
    );
    drop((ann, bob));
    node.stop().await;
    store.close();
}
