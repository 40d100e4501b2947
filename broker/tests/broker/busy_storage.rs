//! Storage that has too many reads waiting is asked again, and nobody hears of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use rialto_protocol::{
    frame::FrameKind,
    ids::{ClientId, ConversationId, DeviceId, LaneId, UserId},
    record::Table,
    v1,
};
use rialto_storage::{
    StoreFuture,
    directory::{Directory, DirectoryError, Seen},
    journal::{AppendError, Claim, Entry, Journal, JournalError, JournalStatus},
    memory::MemoryStore,
    views::{Head, Range, Scan, SentDevices, SentEvent, Views, ViewsError},
};

use crate::support::{Node, within};

/// A store that takes no reads while it is told not to.
#[derive(Clone)]
struct BusyStore {
    store: MemoryStore,
    busy: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl BusyStore {
    fn over(store: &MemoryStore) -> Self {
        Self {
            store: store.clone(),
            busy: Arc::default(),
            refused: Arc::default(),
        }
    }

    fn is_busy(&self) -> bool {
        let busy = self.busy.load(Ordering::SeqCst);
        if busy {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        busy
    }

    fn unless_busy<T: Send + 'static>(
        &self,
        read: impl FnOnce(&MemoryStore) -> StoreFuture<T, ViewsError>,
    ) -> StoreFuture<T, ViewsError> {
        if self.is_busy() {
            return Box::pin(async { Err(ViewsError::Busy) });
        }
        read(&self.store)
    }

    async fn has_refused(&self, reads: u64) {
        within("trying again", async {
            while self.refused.load(Ordering::SeqCst) < reads {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

impl Journal for BusyStore {
    fn lanes(&self) -> u16 {
        self.store.lanes()
    }

    fn claim(&self, lanes: Vec<LaneId>) -> StoreFuture<Vec<Claim>, JournalError> {
        self.store.claim(lanes)
    }

    fn append(&self, entries: Vec<Entry>) -> StoreFuture<(), AppendError> {
        self.store.append(entries)
    }

    fn settle(&self) -> StoreFuture<(), JournalError> {
        self.store.settle()
    }

    fn status(&self) -> JournalStatus {
        self.store.status()
    }
}

impl Views for BusyStore {
    fn head(&self, conversation: ConversationId) -> StoreFuture<Option<Head>, ViewsError> {
        self.unless_busy(|store| store.head(conversation))
    }

    fn events(&self, range: Range) -> StoreFuture<Vec<Bytes>, ViewsError> {
        self.unless_busy(|store| store.events(range))
    }

    fn drops(&self) -> u64 {
        self.store.drops()
    }

    fn rows(
        &self,
        conversation: ConversationId,
        table: Table,
        keys: Vec<Bytes>,
    ) -> StoreFuture<Vec<Option<Bytes>>, ViewsError> {
        self.unless_busy(|store| store.rows(conversation, table, keys))
    }

    fn scan(&self, scan: Scan) -> StoreFuture<Vec<(Bytes, Bytes)>, ViewsError> {
        self.unless_busy(|store| store.scan(scan))
    }

    fn sent(
        &self,
        conversation: ConversationId,
        user: UserId,
    ) -> StoreFuture<SentDevices, ViewsError> {
        self.unless_busy(|store| store.sent(conversation, user))
    }

    fn find_sent(
        &self,
        conversation: ConversationId,
        user: UserId,
        device: DeviceId,
        client_id: ClientId,
    ) -> StoreFuture<Option<SentEvent>, ViewsError> {
        self.unless_busy(|store| store.find_sent(conversation, user, device, client_id))
    }

    fn sent_as_of_ms(&self) -> u64 {
        self.store.sent_as_of_ms()
    }
}

impl Directory for BusyStore {
    fn record_seen(&self, seen: Vec<Seen>) -> StoreFuture<(), DirectoryError> {
        self.store.record_seen(seen)
    }

    fn last_seen(&self, users: Vec<UserId>) -> StoreFuture<Vec<Option<u64>>, DirectoryError> {
        if self.is_busy() {
            return Box::pin(async { Err(DirectoryError::Busy) });
        }
        self.store.last_seen(users)
    }
}

#[tokio::test]
async fn reads_that_storage_is_too_busy_for_wait_and_are_answered() {
    const PAGES: usize = 30;
    let store = MemoryStore::new(16);
    let busy = BusyStore::over(&store);
    let node = Node::start_over(store, Arc::new(busy.clone()), |config| config.shards = 1);
    let mut ann = node.join("ann").await;
    let mut bob = node.join("bob").await;
    let conversation = ann.create_group(1, &["bob"]).await;
    ann.publish(conversation, "first").await;
    busy.busy.store(true, Ordering::SeqCst);
    // Bob is read for the one, the pages for the others.
    let publish = bob.message_frame(conversation, "second");
    bob.send_bytes(&publish).await;
    let history = v1::History {
        conversation: conversation.to_proto(),
        direction: v1::Direction::Backward as i32,
        ..v1::History::default()
    };
    let mut requests = Vec::new();
    for _ in 0..PAGES {
        requests.push(ann.send(FrameKind::History, &history).await);
    }
    // More often than there are reads: some have been tried again.
    busy.has_refused(2 * PAGES as u64).await;
    busy.busy.store(false, Ordering::SeqCst);
    let published: v1::Published = bob.expect(FrameKind::Published).await;
    assert_eq!(published.receipts[0].error, None);
    for request in requests {
        let page: v1::HistoryPage = ann.answer(request, FrameKind::HistoryPage).await;
        assert!(!page.events.is_empty());
    }
    assert_eq!(node.metric("rialto_load_failures_total").await, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_watch_waits_for_storage_and_tells_when_users_were_last_seen() {
    let store = MemoryStore::new(16);
    let busy = BusyStore::over(&store);
    let eve = UserId::from_name("eve");
    let seen = Seen {
        user: eve,
        time_ms: 1_234,
    };
    store.record_seen_now(&[seen]);
    let node = Node::start_over(store, Arc::new(busy.clone()), |config| config.shards = 1);
    let mut ann = node.join("ann").await;
    busy.busy.store(true, Ordering::SeqCst);
    let watch = v1::Watch {
        users: vec![eve.to_proto()],
    };
    let request = ann.send(FrameKind::Watch, &watch).await;
    // The one read, tried again.
    busy.has_refused(2).await;
    busy.busy.store(false, Ordering::SeqCst);
    let answer: v1::Presences = ann.answer(request, FrameKind::Presences).await;
    assert_eq!(answer.presences[0].last_seen_ms, seen.time_ms);
    assert_eq!(node.metric("rialto_load_failures_total").await, 0);
    node.stop().await;
}
