//! Connections of a campaign's clients.

use anyhow::Context as _;
use rialto_loadgen::tokens::Tokens;
use rialto_protocol::ids::UserId;
use rialto_sdk::{Client, ConnectError, Events, ReconnectPolicy, Retry, Roots};

use super::Plan;
use crate::patience::Patience;

/// A campaign has no time for the patience of phones.
const RECONNECT: ReconnectPolicy = ReconnectPolicy {
    base_ms: 10,
    max_ms: 100,
    attempts_max: None,
};
/// Longest time for one attempt to connect.
const CONNECT_TIMEOUT_MS: u64 = 2_000;
/// Silence after which a client over QUIC that only listens finds out that its broker was killed.
const QUIC_KEEP_ALIVE_MS: u64 = 1_000;

pub(super) fn user(name: &str) -> UserId {
    UserId::from_name(name)
}

/// A connection of the user; waits for a broker that is away.
pub(super) async fn dial(
    plan: &Plan,
    number: usize,
    user: UserId,
) -> anyhow::Result<(Client, Events)> {
    dial_as(plan, number, Tokens::Development.of(user)).await
}

/// The same, for whoever the token names.
pub(super) async fn dial_as(
    plan: &Plan,
    number: usize,
    token: String,
) -> anyhow::Result<(Client, Events)> {
    let mut patience = Patience::of(plan.patience);
    let endpoint = &plan.endpoints[number % plan.endpoints.len()];
    loop {
        let attempt: Result<_, ConnectError> = Box::pin(
            Client::builder()
                .endpoint(endpoint)
                .roots(Roots::InsecureLoopbackOnly)
                .token(token.clone())
                .sdk_name("rialto-faults")
                .connect_timeout_ms(CONNECT_TIMEOUT_MS)
                .quic_keep_alive_ms(QUIC_KEEP_ALIVE_MS)
                .reconnect(RECONNECT)
                .connect(),
        )
        .await;
        match attempt {
            Err(error) if error.retry() != Retry::Never && patience.wait().await => {}
            done => return done.with_context(|| format!("no connection to {endpoint}")),
        }
    }
}

/// A connection that follows nothing.
pub(super) async fn connect(plan: &Plan, number: usize, user: UserId) -> anyhow::Result<Client> {
    let (client, mut events) = dial(plan, number, user).await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    Ok(client)
}
