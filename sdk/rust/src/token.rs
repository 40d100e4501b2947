//! Access tokens: where they come from, and when to get the next one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rialto_protocol::limits::TOKEN_BYTES_MAX;
use tokio::time::Instant;

use crate::error::Retry;

/// No token could be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct TokenError {
    text: String,
    retry: Retry,
}

impl TokenError {
    /// The issuer cannot be reached or the like; asking again may help.
    #[must_use]
    pub fn temporary(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            retry: Retry::Safe,
        }
    }

    /// The user must sign in again or the like; asking again is no use.
    #[must_use]
    pub fn permanent(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            retry: Retry::Never,
        }
    }

    /// Whether asking again may help.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        self.retry
    }
}

/// Gives access tokens: before the first connection, some time before each expires, and when one is refused as expired. Each
/// has to come within [`crate::ClientBuilder::connect_timeout_ms`]; one that does not is a temporary [`TokenError`].
///
/// Implemented for closures: `Arc::new(|| async { Ok(fetch().await) })`.
pub trait TokenProvider: Send + Sync {
    /// A token that is valid for some time yet.
    fn token(&self) -> BoxFuture<'static, Result<String, TokenError>>;
}

impl<F, T> TokenProvider for F
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Result<String, TokenError>> + Send + 'static,
{
    fn token(&self) -> BoxFuture<'static, Result<String, TokenError>> {
        Box::pin(self())
    }
}

/// Where the tokens of a client come from.
#[derive(Clone)]
pub(crate) enum TokenSource {
    /// One for all time.
    Fixed(String),
    /// Asked for.
    Provider(Arc<dyn TokenProvider>),
}

impl TokenSource {
    /// The next token, which a frame can carry; a provider has `patience` for it.
    pub(crate) fn get(&self, patience: Duration) -> BoxFuture<'static, Result<String, TokenError>> {
        match self {
            Self::Fixed(token) => Box::pin(std::future::ready(checked(token.clone()))),
            Self::Provider(provider) => {
                let token = tokio::time::timeout(patience, provider.token());
                Box::pin(async move {
                    let token = token.await.unwrap_or_else(|_| {
                        let ms = patience.as_millis();
                        Err(TokenError::temporary(format!(
                            "the provider gave no token within {ms} ms"
                        )))
                    });
                    token.and_then(checked)
                })
            }
        }
    }

    pub(crate) const fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }
}

/// Refuses one that is longer than the protocol allows: a frame of it could be more than the server takes.
fn checked(token: String) -> Result<String, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        let text = format!("a token has at most {TOKEN_BYTES_MAX} bytes");
        return Err(TokenError::permanent(text));
    }
    Ok(token)
}

/// Longest time before its expiry that a token is replaced.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// Time between two attempts to get a token.
const AGAIN: Duration = Duration::from_secs(5);

/// The replacement of a session's token ahead of its expiry.
pub(crate) struct TokenRenewal {
    source: TokenSource,
    /// Longest time that the provider has for a token.
    patience: Duration,
    /// The provider said that it will have no other, on this connection.
    given_up: bool,
    due: Option<Instant>,
    asked: Option<BoxFuture<'static, Result<String, TokenError>>>,
    /// The server's clock minus ours, in milliseconds since `base`.
    base: Instant,
    base_server_ms: u64,
}

impl TokenRenewal {
    pub(crate) fn new(source: TokenSource, patience: Duration) -> Self {
        Self {
            source,
            patience,
            given_up: false,
            due: None,
            asked: None,
            base: Instant::now(),
            base_server_ms: 0,
        }
    }

    /// A session began at `server_time_ms` with a token that ends at `expires_ms`; both by the server's clock.
    pub(crate) fn began(&mut self, server_time_ms: u64, expires_ms: u64, now: Instant) {
        self.base = now;
        self.base_server_ms = server_time_ms;
        self.asked = None;
        self.given_up = false;
        self.ends(expires_ms, now);
    }

    /// The server has taken another token, which ends at `expires_ms`; 0: never. Where it has ended already, the next one is not
    /// asked for at once: the server takes them for a while yet, and would be asked as fast as it answers.
    pub(crate) fn renewed(&mut self, expires_ms: u64, now: Instant) {
        self.ends(expires_ms, now);
        if self.due == Some(now) {
            self.due = Some(now + AGAIN);
        }
    }

    fn ends(&mut self, expires_ms: u64, now: Instant) {
        let replaceable = expires_ms != 0 && !self.source.is_fixed();
        self.due = replaceable.then(|| {
            let passed_ms = u64::try_from((now - self.base).as_millis()).unwrap_or(u64::MAX);
            let left_ms = expires_ms.saturating_sub(self.base_server_ms.saturating_add(passed_ms));
            // A year is beyond any session, and keeps the sum below in range.
            let left = Duration::from_millis(left_ms).min(Duration::from_secs(366 * 86_400));
            now + (left - AHEAD_MAX.min(left / 5))
        });
    }

    /// The server says that the token has expired: a new one at once.
    pub(crate) fn expired(&mut self, now: Instant) {
        if !self.source.is_fixed() && !self.given_up && self.asked.is_none() {
            self.due = Some(now);
        }
    }

    /// Getting or using a token failed: once more, soon, unless that is of no use. Then the session lasts as long as its token.
    pub(crate) fn failed(&mut self, retry: Retry, now: Instant) {
        self.given_up = retry == Retry::Never;
        self.due = (!self.given_up).then_some(now + AGAIN);
    }

    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Asks the provider if it is time to.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.asked = Some(self.source.get(self.patience));
        }
    }

    /// The provider's next answer; pending for as long as nothing was asked.
    pub(crate) async fn answer(&mut self) -> Result<String, TokenError> {
        match &mut self.asked {
            Some(asked) => {
                let answer = asked.await;
                self.asked = None;
                answer
            }
            None => std::future::pending().await,
        }
    }

    pub(crate) const fn source(&self) -> &TokenSource {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn renewal() -> TokenRenewal {
        let provider = Arc::new(|| async { Ok("t".to_owned()) });
        TokenRenewal::new(TokenSource::Provider(provider), PATIENCE)
    }

    #[test]
    fn a_token_is_replaced_a_fifth_of_its_time_ahead_but_a_minute_at_most() {
        let (mut renewal, now) = (renewal(), Instant::now());
        renewal.began(1_000_000, 1_100_000, now);
        assert_eq!(renewal.due(), Some(now + Duration::from_secs(80)));
        renewal.began(1_000_000, 4_600_000, now);
        assert_eq!(renewal.due(), Some(now + Duration::from_secs(3540)));
        // Time that has passed since Welcome counts by our own clock.
        let later = now + Duration::from_secs(100);
        renewal.renewed(1_200_000, later);
        assert_eq!(renewal.due(), Some(later + Duration::from_secs(80)));
    }

    #[tokio::test]
    async fn a_token_that_no_frame_carries_is_none() {
        for (bytes, fits) in [(TOKEN_BYTES_MAX, true), (TOKEN_BYTES_MAX + 1, false)] {
            let token = "x".repeat(bytes);
            let fixed = TokenSource::Fixed(token.clone());
            let provider = TokenSource::Provider(Arc::new(move || {
                let token = token.clone();
                async { Ok(token) }
            }));
            for source in [fixed, provider] {
                let refused = source.get(PATIENCE).await.err();
                let retry = refused.as_ref().map(TokenError::retry);
                assert_eq!(retry, (!fits).then_some(Retry::Never));
            }
        }
    }

    #[test]
    fn a_provider_whose_tokens_have_ended_is_not_asked_as_fast_as_it_answers() {
        let (mut renewal, now) = (renewal(), Instant::now());
        renewal.began(1_000_000, 1_000_000, now);
        assert_eq!(renewal.due(), Some(now));
        renewal.renewed(1_000_000, now);
        assert_eq!(renewal.due(), Some(now + AGAIN));
    }

    #[test]
    fn a_provider_that_will_have_no_other_token_is_asked_on_the_next_connection_at_the_earliest() {
        let (mut renewal, now) = (renewal(), Instant::now());
        renewal.began(1_000, 100_000, now);
        renewal.failed(Retry::Safe, now);
        assert_eq!(renewal.due(), Some(now + AGAIN));
        renewal.failed(Retry::Never, now);
        renewal.expired(now);
        assert_eq!(renewal.due(), None);
        renewal.began(1_000, 100_000, now);
        assert!(renewal.due().is_some());
        renewal.expired(now);
        assert_eq!(renewal.due(), Some(now));
    }

    #[test]
    fn a_fixed_token_and_one_without_an_end_are_never_replaced() {
        let (mut fixed, now) = (
            TokenRenewal::new(TokenSource::Fixed("t".into()), PATIENCE),
            Instant::now(),
        );
        fixed.began(1_000, 2_000, now);
        fixed.expired(now);
        assert_eq!(fixed.due(), None);
        let mut endless = renewal();
        endless.began(1_000, 0, now);
        assert_eq!(endless.due(), None);
        endless.began(1_000, u64::MAX, now);
        assert!(endless.due() > Some(now + Duration::from_secs(300 * 86_400)));
    }
}
