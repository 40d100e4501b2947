//! Plays one log into its conversation. The file's order is the truth: what one user says goes out without waiting, and when
//! the next message is somebody else's, everything before it is acknowledged first. That holds for users who share a
//! connection too, because a broker keeps the order of each author, and of nothing beyond that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ahash::AHashSet;
use rialto_protocol::error::ErrorCode;
use rialto_protocol::ids::{ConversationId, Seq};
use rialto_sdk::{Content, PublishError, Publishing, Receipt, Retry};
use tokio::time::sleep;

use super::crowd::{Crowd, Voice};
use super::{Clock, ReplayError};
use crate::checker::Script;
use crate::corpus::Log;
use crate::counters::Counters;
use crate::latency::Latencies;

/// Refusals in words that a play keeps.
const PROBLEMS_MAX: usize = 5;
/// Wait before a refused message is sent again when the broker gave no advice.
const AGAIN: Duration = Duration::from_millis(100);

/// A log on its way into a conversation.
#[derive(Debug)]
pub(super) struct Play {
    /// Index of the log in the corpus.
    pub(super) log: usize,
    /// Where it goes.
    pub(super) conversation: ConversationId,
    /// What was sent so far, and everything else as it will be.
    pub(super) script: Script,
    /// When each message was sent, microseconds of the replay's clock; 0: by an earlier replay, or not yet.
    pub(super) sent_us: Vec<u64>,
    /// Messages that stood there already when the replay began.
    pub(super) resumed: usize,
    /// Nicks that are members.
    pub(super) joined: AHashSet<usize>,
    /// Last event that is known to be in the log.
    pub(super) head: Seq,
    /// Times to acknowledgement.
    pub(super) acks: Latencies,
    /// Messages that were refused for good, in words.
    pub(super) problems: Vec<String>,
}

/// What all plays share.
#[derive(Debug)]
pub(super) struct Stage {
    /// Who speaks.
    pub(super) crowd: Crowd,
    /// What has been done.
    pub(super) counters: std::sync::Arc<Counters>,
    /// The replay's time.
    pub(super) clock: Clock,
    /// Messages of one conversation that may wait for acknowledgement.
    pub(super) window: usize,
}

/// What was said and is not acknowledged yet; a message by its index, or somebody's entry.
struct UnderWay {
    message: Option<usize>,
    voice: Voice,
    content: Content,
    publishing: Publishing,
    since: Instant,
}

/// Plays the rest of a log. `due` tells when each message may go out; empty: at once.
///
/// # Errors
/// When a connection is closed for good. Refused messages are no error: the checker will miss them.
pub(super) async fn play(
    stage: &Stage,
    log: &Log,
    play: Play,
    due: &[Duration],
) -> Result<Play, ReplayError> {
    let mut player = Player::new(stage, log, play);
    for at in player.play.resumed..log.messages.len() {
        if let Some(due) = due.get(at) {
            player.wait(*due).await?;
        }
        player.say(at).await?;
    }
    player.settle(0).await?;
    Ok(player.play)
}

struct Player<'a> {
    stage: &'a Stage,
    log: &'a Log,
    play: Play,
    /// When it began, by the replay's clock: with many logs later than others.
    begun: Duration,
    under_way: VecDeque<UnderWay>,
    speaker: Option<usize>,
}

impl<'a> Player<'a> {
    fn new(stage: &'a Stage, log: &'a Log, play: Play) -> Self {
        Self {
            stage,
            log,
            play,
            begun: stage.clock.elapsed(),
            under_way: VecDeque::new(),
            speaker: None,
        }
    }

    /// Takes acknowledgements until a message is due, so long after the log began.
    async fn wait(&mut self, due: Duration) -> Result<(), ReplayError> {
        while let Some(left) = (self.begun + due)
            .checked_sub(self.stage.clock.elapsed())
            .filter(|left| !left.is_zero())
        {
            let Some(first) = self.under_way.front_mut() else {
                sleep(left).await;
                return Ok(());
            };
            tokio::select! {
                answer = &mut first.publishing => self.answered(answer).await?,
                () = sleep(left) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn say(&mut self, at: usize) -> Result<(), ReplayError> {
        let message = &self.log.messages[at];
        let voice = self.stage.crowd.voice(message.nick, self.play.log).await?;
        if self.speaker.replace(message.nick) != Some(message.nick) {
            self.settle(0).await?;
        }
        if self.play.joined.insert(message.nick) {
            self.publish(None, voice.clone(), Content::join()).await?;
        }
        let mut content = Content::text(message.text.as_str());
        let mut reply_to = Vec::with_capacity(message.reply_to.len());
        for &answered in &message.reply_to {
            while self.is_under_way(answered) {
                self.settle_first().await?;
            }
            // What was refused has no seq to point to; it is counted as lost.
            if let Some((_, seq)) = self.play.script.messages[answered].receipt {
                content = content.reply_to(seq);
                reply_to.push(seq);
            }
        }
        self.play.script.messages[at].said.reply_to = reply_to.into();
        self.publish(Some(at), voice, content).await?;
        self.settle(self.stage.window - 1).await
    }

    fn is_under_way(&self, message: usize) -> bool {
        self.under_way
            .iter()
            .any(|sent| sent.message == Some(message))
    }

    async fn publish(
        &mut self,
        message: Option<usize>,
        voice: Voice,
        content: Content,
    ) -> Result<(), ReplayError> {
        // Before it waits for credit: that is the broker's time too.
        let (since, sent_us) = (Instant::now(), self.stage.clock.now_us());
        let publishing = match voice.publish(self.play.conversation, content.clone()).await {
            Ok(publishing) => publishing,
            Err(error) => return self.refused_for_good(message, &error),
        };
        if let Some(at) = message {
            self.play.script.messages[at].client_id = Some(publishing.client_id());
            self.play.sent_us[at] = sent_us;
        }
        self.under_way.push_back(UnderWay {
            message,
            voice,
            content,
            publishing,
            since,
        });
        Ok(())
    }

    /// Waits until at most `left` are not acknowledged.
    async fn settle(&mut self, left: usize) -> Result<(), ReplayError> {
        while self.under_way.len() > left {
            self.settle_first().await?;
        }
        Ok(())
    }

    async fn settle_first(&mut self) -> Result<(), ReplayError> {
        let Some(first) = self.under_way.front_mut() else {
            return Ok(());
        };
        let answer = (&mut first.publishing).await;
        self.answered(answer).await
    }

    /// Takes the answer to what was said first.
    async fn answered(&mut self, answer: Result<Receipt, PublishError>) -> Result<(), ReplayError> {
        let Some(sent) = self.under_way.pop_front() else {
            return Ok(());
        };
        match answer {
            Ok(receipt) => {
                self.acknowledged(&sent, &receipt);
                Ok(())
            }
            Err(error) if sent.message.is_none() && is_member_already(&error) => Ok(()),
            Err(error) if may_be_said_again(&error) => self.say_again(sent, error).await,
            Err(error) => self.refused_for_good(sent.message, &error),
        }
    }

    fn acknowledged(&mut self, sent: &UnderWay, receipt: &Receipt) {
        self.play.head = self.play.head.max(receipt.seq);
        let Some(at) = sent.message else { return };
        self.play.script.messages[at].receipt = Some((receipt.epoch, receipt.seq));
        self.play.acks.record(sent.since.elapsed());
        Counters::add(&self.stage.counters.published, 1);
    }

    /// Sends again what the broker refused for now, under the same id, and waits for it.
    async fn say_again(
        &mut self,
        mut sent: UnderWay,
        mut error: PublishError,
    ) -> Result<(), ReplayError> {
        while may_be_said_again(&error) {
            Counters::add(&self.stage.counters.refused, 1);
            sleep(
                error
                    .refusal()
                    .and_then(rialto_sdk::ServerError::retry_after)
                    .unwrap_or(AGAIN),
            )
            .await;
            let (voice, client_id) = (&sent.voice, sent.publishing.client_id());
            let again =
                voice.publish_again(client_id, self.play.conversation, sent.content.clone());
            sent.publishing = match again.await {
                Ok(publishing) => publishing,
                Err(error) => return self.refused_for_good(sent.message, &error),
            };
            match (&mut sent.publishing).await {
                Ok(receipt) => {
                    self.acknowledged(&sent, &receipt);
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
        self.refused_for_good(sent.message, &error)
    }

    fn refused_for_good(
        &mut self,
        message: Option<usize>,
        error: &PublishError,
    ) -> Result<(), ReplayError> {
        if let PublishError::Closed { reason, .. } = error {
            return Err(ReplayError::Closed(reason.clone()));
        }
        if self.play.problems.len() < PROBLEMS_MAX {
            let what = message.map_or("somebody's entry".to_owned(), |at| format!("message {at}"));
            self.play.problems.push(format!(
                "{}: {what} was not taken: {error}",
                self.play.script.name
            ));
        }
        Ok(())
    }
}

/// Under its id, also where it may have been taken before.
fn may_be_said_again(error: &PublishError) -> bool {
    error.retry() != Retry::Never && !matches!(error, PublishError::Closed { .. })
}

/// An entry that an earlier replay made, or that was sent twice.
fn is_member_already(error: &PublishError) -> bool {
    error
        .refusal()
        .is_some_and(|refusal| refusal.is(ErrorCode::MembershipUnchanged))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rialto_protocol::ids::UserId;

    use super::super::crowd::Sharing;
    use super::super::resume::new_play;
    use super::*;
    use crate::dial::to_nowhere;

    #[tokio::test]
    async fn a_log_that_begins_later_is_played_as_slowly_as_the_first() {
        let due = Duration::from_millis(20);
        let counters = Arc::new(Counters::default());
        let dialer = to_nowhere(counters.clone());
        let stage = Stage {
            crowd: Crowd::new(Arc::new(dialer), &[], Sharing::None),
            counters,
            clock: Clock {
                start: Instant::now().checked_sub(4 * due).unwrap(),
            },
            window: 1,
        };
        let log = Log {
            channel: "c".into(),
            day: "d".into(),
            messages: Vec::new(),
        };
        let room = ConversationId::from_bytes([1; 16]);
        let play = new_play(0, &log, room, |_| UserId::SYSTEM);
        let begun = Instant::now();
        Player::new(&stage, &log, play).wait(due).await.unwrap();
        assert!(begun.elapsed() >= due);
    }
}
