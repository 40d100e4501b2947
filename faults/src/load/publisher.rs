//! A device that talks: messages of mixed sizes, edits, reactions, deletions, retries of what was acknowledged long ago, and what
//! was refused for now is sent again until it is taken.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rialto_loadgen::checker::{Fingerprint, Said};
use rialto_protocol::ids::{ClientId, ConversationId, UserId};
use rialto_sdk::{Client, Content, ErrorCode, PublishError, Publishing, Receipt, Retry};
use tokio::sync::watch;
use tokio::time::sleep;

use super::ledger::{Change, Ledger, Line, Place, Words};
use crate::random::Dice;

/// Wait before something is sent again when the broker gave no advice, and the longest one whatever it says.
const AGAIN: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_millis(1_000);
/// Acknowledged messages that a publisher remembers, to send one of them again, to edit or to delete it.
const KEPT_MAX: usize = 32;
/// Longest body, below the broker's default limit.
const BODY_BYTES_MAX: u64 = 48 << 10;

/// How hard a publisher works.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Messages that may wait for their acknowledgement.
    pub window: usize,
    /// Longest pause between two messages, milliseconds; on the average half of it.
    pub pause_ms_max: u64,
    /// Of 1,000 messages, how many have tens of kilobytes.
    pub large_per_mille: u64,
}

/// Something on its way.
#[derive(Clone)]
struct Letter {
    place: Place,
    conversation: ConversationId,
    client_id: ClientId,
    content: Content,
    is_message: bool,
}

/// Something that has arrived.
#[derive(Clone)]
struct Kept {
    letter: Letter,
    receipt: Receipt,
}

type Answer = Pin<Box<dyn Future<Output = Option<Kept>> + Send>>;

pub(super) struct Publisher {
    pub(super) number: usize,
    pub(super) user: UserId,
    pub(super) client: Client,
    pub(super) ledger: Arc<Ledger>,
    pub(super) dice: Dice,
    pub(super) pace: Pace,
}

impl Publisher {
    /// Talks until it is told to stop, then waits for every answer.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut under_way: FuturesUnordered<Answer> = FuturesUnordered::new();
        let mut kept: VecDeque<Kept> = VecDeque::new();
        let keep = |answer: Option<Kept>, kept: &mut VecDeque<Kept>| {
            kept.extend(answer);
            if kept.len() > KEPT_MAX {
                kept.pop_front();
            }
        };
        while !*stop.borrow() {
            let pause = self.dice.millis(0, self.pace.pause_ms_max);
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                Some(answer) = under_way.next(), if !under_way.is_empty() => keep(answer, &mut kept),
                () = sleep(pause), if under_way.len() < self.pace.window => {
                    if let Some(answer) = self.say_something(&kept).await {
                        under_way.push(answer);
                    }
                }
            }
        }
        while under_way.next().await.is_some() {}
    }

    async fn say_something(&mut self, kept: &VecDeque<Kept>) -> Option<Answer> {
        let old = kept.get(self.dice.roll(kept.len())).cloned();
        match (self.dice.roll(100), old) {
            (0..2, Some(old)) => self.say_again(&old).await,
            (2..5, Some(old)) if old.letter.is_message => {
                let text = format!("edited {}", self.dice.between(0, 1 << 40));
                self.change(&old, Change::Edit(old.receipt.seq, text)).await
            }
            (5..7, Some(old)) if old.letter.is_message => {
                let emoji = "👍".to_owned();
                self.change(&old, Change::React(old.receipt.seq, emoji))
                    .await
            }
            (7..8, Some(old)) if old.letter.is_message && self.is_moderated(&old) => {
                self.change(&old, Change::Delete(old.receipt.seq)).await
            }
            _ => self.say().await,
        }
    }

    fn is_moderated(&self, old: &Kept) -> bool {
        self.ledger.pages().books[old.letter.place.book].moderated
    }

    /// A new message.
    async fn say(&mut self) -> Option<Answer> {
        let (book, conversation) = self.ledger.any(&mut self.dice)?;
        let body = self.body();
        let said = Said {
            sender: self.user,
            body: Fingerprint::of(body.as_bytes()),
            reply_to: Box::default(),
        };
        self.publish(book, conversation, Content::text(body), Words::Said(said))
            .await
    }

    fn body(&mut self) -> String {
        let bytes = if self.dice.chance(self.pace.large_per_mille) {
            self.dice.between(8 << 10, BODY_BYTES_MAX)
        } else if self.dice.chance(20) {
            self.dice.between(500, 6_000)
        } else {
            self.dice.between(1, 200)
        };
        let mut body = format!("{} {} ", self.number, self.dice.between(0, u64::MAX >> 1));
        let filler = usize::try_from(bytes).unwrap_or(0);
        body.extend(std::iter::repeat_n('x', filler));
        body
    }

    /// Does something to a message that has arrived.
    async fn change(&mut self, old: &Kept, change: Change) -> Option<Answer> {
        let Letter {
            place,
            conversation,
            ..
        } = old.letter;
        self.publish(
            place.book,
            conversation,
            change.content(),
            Words::Change(change),
        )
        .await
    }

    /// What was acknowledged before, once more: it must get the same answer.
    async fn say_again(&mut self, old: &Kept) -> Option<Answer> {
        let letter = old.letter.clone();
        let publishing = again(&self.client, &letter).await;
        self.on_its_way(letter, publishing)
    }

    async fn publish(
        &mut self,
        book: usize,
        conversation: ConversationId,
        content: Content,
        words: Words,
    ) -> Option<Answer> {
        let publishing = match self.client.publish(conversation, content.clone()).await {
            Ok(publishing) => publishing,
            Err(error) => {
                self.ledger.violation("not sent", error.to_string());
                return None;
            }
        };
        let client_id = publishing.client_id();
        let is_message = matches!(words, Words::Said(_));
        let line = Line {
            client_id,
            author: self.number,
            words,
            receipt: None,
            in_turn: true,
            is_void: false,
        };
        let place = self.ledger.sent(book, line);
        let letter = Letter {
            place,
            conversation,
            client_id,
            content,
            is_message,
        };
        self.on_its_way(letter, Ok(publishing))
    }

    #[allow(clippy::unnecessary_wraps)] // as its callers return it
    fn on_its_way(
        &self,
        letter: Letter,
        publishing: Result<Publishing, PublishError>,
    ) -> Option<Answer> {
        let (client, ledger) = (self.client.clone(), self.ledger.clone());
        Some(Box::pin(arrive(client, ledger, letter, publishing)))
    }
}

async fn again(client: &Client, letter: &Letter) -> Result<Publishing, PublishError> {
    client
        .publish_again(
            letter.client_id,
            letter.conversation,
            letter.content.clone(),
        )
        .await
}

/// Waits until a letter is taken, sending it again for as long as it is refused for now.
async fn arrive(
    client: Client,
    ledger: Arc<Ledger>,
    letter: Letter,
    mut publishing: Result<Publishing, PublishError>,
) -> Option<Kept> {
    loop {
        let answer = match publishing {
            Ok(publishing) => publishing.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(receipt) => {
                ledger.acknowledged(letter.place, receipt);
                return Some(Kept { letter, receipt });
            }
            Err(PublishError::Refused(error)) if error.retry() != Retry::Never => {
                ledger.refused(letter.place, error.retry_after().is_some());
                sleep(error.retry_after().unwrap_or(AGAIN).min(AGAIN_MAX)).await;
            }
            Err(PublishError::Refused(error))
                if !letter.is_message && error.is(ErrorCode::TargetDeleted) =>
            {
                ledger.void(letter.place);
                return None;
            }
            Err(error) => {
                ledger.violation("refused for good", format!("{}: {error}", letter.client_id));
                return None;
            }
        }
        publishing = again(&client, &letter).await;
    }
}
