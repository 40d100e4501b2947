//! New conversations, at the beginning of an era and while it lasts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_sdk::{Client, Content, Create, RequestError, Retry};
use tokio::sync::watch;
use tokio::time::sleep;

use super::dial::user;
use super::ledger::Ledger;
use super::reader::Follower;

/// Wait before a request that was refused for now is made again.
const AGAIN: Duration = Duration::from_millis(20);

/// A conversation with all of these in it.
pub(super) async fn found(
    keeper: &Client,
    ledger: &Ledger,
    era: &str,
    number: usize,
    members: &[UserId],
) -> anyhow::Result<ConversationId> {
    let name = format!("{era}, room {number}");
    let mut wanted = match number % 3 {
        0 => Create::group(name.as_str()),
        _ => Create::channel(name.as_str()),
    };
    wanted.members = members.to_vec();
    wanted.members.sort_unstable();
    wanted.members.dedup();
    let created = loop {
        match keeper.create(wanted.clone()).await {
            Ok(created) => break created,
            Err(error) if waits(&error) => sleep(AGAIN).await,
            Err(error) => return Err(anyhow!("{name} cannot be founded: {error}")),
        }
    };
    ledger.open(name, created.conversation, number % 4 == 1);
    Ok(created.conversation)
}

fn waits(error: &RequestError) -> bool {
    error.retry() != Retry::Never
}

/// Now and then a new conversation while all else goes on.
pub(super) async fn keep_founding(
    keeper: Client,
    ledger: Arc<Ledger>,
    era: String,
    members: Vec<UserId>,
    followers: Arc<Vec<Follower>>,
    from: usize,
    mut stop: watch::Receiver<bool>,
) {
    const EVERY: Duration = Duration::from_millis(700);
    const ROOMS_MAX: usize = 24;
    for number in from..ROOMS_MAX {
        tokio::select! {
            _ = stop.changed() => return,
            () = sleep(EVERY) => {}
        }
        match found(&keeper, &ledger, &era, number, &members).await {
            Ok(conversation) => {
                come_and_go(&keeper, conversation).await;
                for follower in followers.iter() {
                    follower.follow(&[conversation]).await;
                }
            }
            Err(error) => ledger.violation("refused for good", format!("{error:#}")),
        }
    }
}

/// A visitor is invited and removed again, whatever comes of it: what was acknowledged of it every reader sees the same.
async fn come_and_go(keeper: &Client, conversation: ConversationId) {
    let visitor = user("visitor");
    for content in [Content::invite(visitor), Content::remove(visitor)] {
        if let Ok(publishing) = keeper.publish(conversation, content).await {
            let _ = publishing.await;
        }
    }
}
