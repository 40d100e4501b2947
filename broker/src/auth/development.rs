//! Tokens without a signature (`dev:NAME`, `dev-service:NAME`) for a developer's machine. They are taken only by a broker
//! that can be reached from that machine alone, and that has to be shown, not promised.

use std::net::SocketAddr;

use rialto_core::io::{Identity, KeyTag};
use rialto_protocol::{error::ErrorCode, limits};

use super::{Authenticator, claims};

/// Before the name of a user.
pub const USER_PREFIX: &str = "dev:";
/// Before the name of a service.
pub const SERVICE_PREFIX: &str = "dev-service:";
/// A development token is as good as new each time it is shown.
const LIFE_MS: u64 = 24 * 60 * 60 * 1000;

/// Proof that all listeners of a process are on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackOnly(());

impl LoopbackOnly {
    /// The proof, when every address is a loopback one (127.0.0.0/8, ::1, and the former mapped into IPv6).
    pub fn of(listeners: impl IntoIterator<Item = SocketAddr>) -> Option<Self> {
        listeners
            .into_iter()
            .all(|address| address.ip().to_canonical().is_loopback())
            .then_some(Self(()))
    }
}

/// Takes development tokens, and hands every other token on.
#[derive(Debug)]
pub struct DevelopmentTokens<A> {
    inner: A,
}

impl<A: Authenticator> DevelopmentTokens<A> {
    /// Before `inner`.
    #[must_use]
    pub fn before(inner: A, _proof: LoopbackOnly) -> Self {
        Self { inner }
    }
}

impl<A: Authenticator> Authenticator for DevelopmentTokens<A> {
    fn verify(&self, token: &str, unix_ms: u64) -> Result<Identity, ErrorCode> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(ErrorCode::TokenMalformed);
        }
        let (name, service) = match (
            token.strip_prefix(USER_PREFIX),
            token.strip_prefix(SERVICE_PREFIX),
        ) {
            (Some(name), _) => (name, false),
            (None, Some(name)) => (name, true),
            (None, None) => return self.inner.verify(token, unix_ms),
        };
        let user = claims::user_of(name).ok_or(ErrorCode::TokenClaimsRefused)?;
        Ok(Identity {
            user,
            expires_ms: unix_ms.saturating_add(LIFE_MS),
            service,
            key: None,
        })
    }

    fn trusts(&self, key: KeyTag) -> bool {
        self.inner.trusts(key)
    }
}

/// Whether the text claims to be a development token.
pub(super) fn is_development_token(token: &str) -> bool {
    token.starts_with(USER_PREFIX) || token.starts_with(SERVICE_PREFIX)
}

#[cfg(test)]
mod tests {
    use rialto_protocol::ids::UserId;

    use super::*;

    struct Refuses;

    impl Authenticator for Refuses {
        fn verify(&self, _token: &str, _unix_ms: u64) -> Result<Identity, ErrorCode> {
            Err(ErrorCode::TokenMalformed)
        }
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn one_listener_beyond_loopback_is_enough_to_refuse_the_proof() {
        assert!(
            LoopbackOnly::of(addresses(&[
                "127.0.0.1:1",
                "[::1]:2",
                "127.9.9.9:3",
                "[::ffff:127.0.0.1]:4"
            ]))
            .is_some()
        );
        for beyond in [
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.1:1",
            "[::ffff:10.0.0.1]:1",
            "128.0.0.1:1",
        ] {
            assert!(
                LoopbackOnly::of(addresses(&["127.0.0.1:1", beyond])).is_none(),
                "{beyond}"
            );
        }
    }

    #[test]
    fn names_are_taken_as_they_are_and_other_tokens_handed_on() {
        let proof = LoopbackOnly::of([]).unwrap();
        let tokens = DevelopmentTokens::before(Refuses, proof);
        let alice = tokens.verify("dev:alice", 5).unwrap();
        assert_eq!(
            alice,
            Identity {
                user: UserId::from_name("alice"),
                expires_ms: 5 + LIFE_MS,
                service: false,
                key: None,
            }
        );
        assert!(tokens.verify("dev-service:loadgen", 5).unwrap().service);
        assert_eq!(tokens.verify("dev:", 5), Err(ErrorCode::TokenClaimsRefused));
        assert_eq!(
            tokens.verify("dev:00000000-0000-0000-0000-000000000000", 5),
            Err(ErrorCode::TokenClaimsRefused)
        );
        assert_eq!(tokens.verify("devil", 5), Err(ErrorCode::TokenMalformed));
        assert_eq!(
            tokens.verify(&format!("dev:{}", "x".repeat(4096)), 5),
            Err(ErrorCode::TokenMalformed)
        );
    }
}
