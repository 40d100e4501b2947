//! The broker is started again every few hundred milliseconds while a crowd reconnects; then it stays, and everybody is served.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rialto_loadgen::open_files;
use rialto_loadgen::tokens::Tokens;
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_sdk::{Client, Create, ReconnectPolicy, Roots, Start};
use tokio::time::sleep;

use super::CannotRun;
use super::stage::Stage;
use crate::load::{Read, read};

/// Clients of the crowd, in full and in the short form.
const CROWD: usize = 1_200;
const CROWD_SHORT: usize = 150;
/// Clients that do something at the same time.
const AT_ONCE: usize = 64;
/// Lives between restarts, milliseconds.
const LIFE_MS: (u64, u64) = (50, 500);
/// Of 1,000 restarts, how many are in order instead of by kill -9.
const IN_ORDER: u64 = 300;
const STOP_MAX: Duration = Duration::from_secs(30);
/// A crowd that comes back soon.
const RECONNECT: ReconnectPolicy = ReconnectPolicy {
    base_ms: 20,
    max_ms: 500,
    attempts_max: None,
};

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let count = if stage.options.short {
        CROWD_SHORT
    } else {
        CROWD
    };
    open_files::make_room_for(2 * count as u64).map_err(|error| CannotRun(error.to_string()))?;
    stage.launch.settings.push("broker.drain_ms=100".to_owned());
    let mut broker = stage.start().await?;
    let mut town = stage.town(stage.plan()).await?;
    let mut era = town.begin().await?;
    let endpoint = format!("tcp://127.0.0.1:{}", stage.launch.ports.tcp);
    let crowd = gather(&endpoint, count).await?;
    stage.figures.add("crowd", crowd.clients.len() as u64);
    while let Some(round) = stage.next_round() {
        let life = stage.dice.millis(LIFE_MS.0, LIFE_MS.1);
        sleep(life).await;
        if stage.dice.chance(IN_ORDER) {
            broker.stop(STOP_MAX).await;
        } else {
            broker.kill();
            stage.figures.add("kills", 1);
        }
        broker = stage.start().await?;
        era = stage.end_round(round, &mut town, era).await?;
    }
    stage.expect_progress(&era, "after the storm").await;
    crowd.is_served(stage).await;
    stage.close(town, era).await
}

struct Crowd {
    clients: Vec<Client>,
    room: ConversationId,
}

async fn gather(endpoint: &str, count: usize) -> anyhow::Result<Crowd> {
    let first = connect(endpoint, 0).await?;
    let room = first.create(Create::channel("square")).await?.conversation;
    let others = stream::iter(1..count).map(|number| async move {
        let client = connect(endpoint, number).await?;
        client.subscribe(vec![(room, Start::Live)]).await?;
        anyhow::Ok(client)
    });
    let mut clients = vec![first];
    let mut others = Box::pin(others.buffer_unordered(AT_ONCE));
    while let Some(client) = others.next().await {
        clients.push(client?);
    }
    Ok(Crowd { clients, room })
}

impl Crowd {
    /// Each of them asks for something and has to be answered.
    async fn is_served(&self, stage: &mut Stage) {
        let patience = stage.patience();
        let asked = stream::iter(&self.clients).map(|client| async move {
            // What is refused for now is asked for again.
            match read(client, self.room, patience, patience).await {
                Read::Whole(_) => None,
                Read::Refused(error) | Read::Denied(error) => Some(error.to_string()),
                Read::Unanswered => Some(format!("no answer: {:?}", *client.state().borrow())),
            }
        });
        let answers: Vec<Option<String>> = asked.buffer_unordered(AT_ONCE).collect().await;
        for problem in answers.into_iter().flatten() {
            stage.findings.add("not served after the storm", problem);
        }
        stage
            .figures
            .add("clients asked after the storm", self.clients.len() as u64);
    }
}

async fn connect(endpoint: &str, number: usize) -> anyhow::Result<Client> {
    let user = UserId::from_name(&format!("passer-by {number}"));
    let (client, mut events) = Box::pin(
        Client::builder()
            .endpoint(endpoint)
            .roots(Roots::InsecureLoopbackOnly)
            .token(Tokens::Development.of(user))
            .reconnect(RECONNECT)
            .connect(),
    )
    .await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    Ok(client)
}
