//! What an access token has to say (RFC 9068, RFC 8725), and whom it speaks for.

use rialto_core::io::{Identity, KeyTag};
use rialto_protocol::{error::ErrorCode, ids::UserId};
use serde::{Deserialize, Serialize};

/// Media type of an access token (RFC 9068, section 2.1). Tokens of the same issuer for other ends have others.
pub(super) const TYP: &str = "at+jwt";
/// Scope that makes a token that of a service.
pub(super) const SERVICE_SCOPE: &str = "service";
/// Longest subject, bytes: a user's name or UUID.
pub const SUBJECT_BYTES_MAX: usize = 128;

/// Which tokens are meant for this broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPolicy {
    /// The one issuer whose tokens are taken (`iss`).
    pub issuer: String,
    /// What has to be among a token's audience (`aud`).
    pub audience: String,
    /// By how much the issuer's clock may differ, seconds.
    pub leeway_s: u32,
}

impl Default for TokenPolicy {
    fn default() -> Self {
        Self {
            issuer: "rialto".to_owned(),
            audience: "rialto".to_owned(),
            leeway_s: 60,
        }
    }
}

/// Claims that the broker goes by; issuer and audience are checked before these are looked at.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    exp: Option<serde_json::Number>,
    nbf: Option<serde_json::Number>,
    scope: Option<String>,
    service: Option<bool>,
}

impl Claims {
    /// Who it is at `unix_ms` by a token of that key, or why not.
    pub(super) fn identity(
        &self,
        policy: &TokenPolicy,
        key: KeyTag,
        unix_ms: u64,
    ) -> Result<Identity, ErrorCode> {
        let leeway_ms = u64::from(policy.leeway_s) * 1000;
        let expires_ms = self
            .exp
            .as_ref()
            .map(milliseconds)
            .ok_or(ErrorCode::TokenClaimsRefused)?;
        if unix_ms >= expires_ms.saturating_add(leeway_ms) {
            return Err(ErrorCode::TokenExpired);
        }
        if self
            .nbf
            .as_ref()
            .is_some_and(|from| unix_ms.saturating_add(leeway_ms) < milliseconds(from))
        {
            return Err(ErrorCode::TokenClaimsRefused);
        }
        let user = self
            .sub
            .as_deref()
            .and_then(user_of)
            .ok_or(ErrorCode::TokenClaimsRefused)?;
        let scoped = self
            .scope
            .as_deref()
            .is_some_and(|scope| scope.split(' ').any(|word| word == SERVICE_SCOPE));
        // Whoever is let in now is not sent away at once.
        let longer_ms = leeway_ms.saturating_sub(Identity::GRACE_MS);
        Ok(Identity {
            user,
            expires_ms: expires_ms.saturating_add(longer_ms),
            service: self.service.unwrap_or(false) || scoped,
            key: Some(key),
        })
    }
}

/// The user of a subject; none when the subject is empty, too long, unprintable or the system's own id.
pub(super) fn user_of(subject: &str) -> Option<UserId> {
    let fits = !subject.is_empty()
        && subject.len() <= SUBJECT_BYTES_MAX
        && !subject.chars().any(char::is_control);
    let user = UserId::from_name(subject);
    (fits && user != UserId::SYSTEM).then_some(user)
}

/// Whether a text can be the subject of a token.
#[must_use]
pub fn is_subject(text: &str) -> bool {
    user_of(text).is_some()
}

/// A NumericDate (RFC 7519, section 2: seconds since 1970, fractions allowed), clamped to what milliseconds can say.
fn milliseconds(date: &serde_json::Number) -> u64 {
    match (date.as_u64(), date.as_f64()) {
        (Some(seconds), _) => seconds.saturating_mul(1000),
        // From float to integer `as` clamps, and a negative date is long past.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (None, Some(seconds)) => (seconds * 1000.0) as u64,
        (None, None) => 0,
    }
}

/// Claims of a token as it is made.
#[derive(Debug, Serialize)]
pub(super) struct IssuedClaims<'a> {
    pub(super) iss: &'a str,
    pub(super) aud: &'a str,
    pub(super) sub: &'a str,
    pub(super) iat: u64,
    pub(super) exp: u64,
    pub(super) jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_every_size_are_clamped_and_not_wrapped() {
        let of = |text: &str| milliseconds(&serde_json::from_str(text).unwrap());
        assert_eq!(of("1700000000"), 1_700_000_000_000);
        assert_eq!(of("1700000000.5"), 1_700_000_000_500);
        assert_eq!(of("-5"), 0);
        assert_eq!(of("18446744073709551615"), u64::MAX);
        assert_eq!(of("1e300"), u64::MAX);
    }

    #[test]
    fn whoever_is_let_in_by_the_leeway_stays_for_it() {
        let key = KeyTag(std::num::NonZeroU64::MIN);
        let claims: Claims = serde_json::from_str(r#"{ "sub": "alice", "exp": 1000 }"#).unwrap();
        for leeway_s in [0, 60, 600] {
            let policy = TokenPolicy {
                leeway_s,
                ..TokenPolicy::default()
            };
            let end_ms = 1_000_000 + u64::from(leeway_s) * 1_000;
            let last = claims.identity(&policy, key, end_ms - 1).unwrap();
            assert!(last.expires_ms + Identity::GRACE_MS >= end_ms);
            let late = claims.identity(&policy, key, end_ms);
            assert_eq!(late.unwrap_err(), ErrorCode::TokenExpired);
        }
    }

    #[test]
    fn a_subject_is_a_printable_name_or_a_uuid_but_never_the_system() {
        assert_eq!(user_of("alice"), Some(UserId::from_name("alice")));
        assert_eq!(
            user_of("00112233-4455-6677-8899-aabbccddeeff")
                .unwrap()
                .to_string(),
            "00112233-4455-6677-8899-aabbccddeeff"
        );
        for refused in [
            "",
            "a\nb",
            "00000000-0000-0000-0000-000000000000",
            &"x".repeat(SUBJECT_BYTES_MAX + 1),
        ] {
            assert_eq!(user_of(refused), None, "{refused:?}");
        }
    }
}
