//! Public keys by key id (RFC 7517), and the verification of a token with one of them.
//!
//! A key is found by a look-up in a map and in no other way: what a token says about where its key may be found
//! (`jku`, `x5u`, `jwk`, a path in `kid`) is never followed.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
};

use jsonwebtoken::{
    Algorithm, DecodingKey, Header, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use rialto_core::io::{Identity, KeyTag};
use rialto_protocol::{error::ErrorCode, limits};
use serde::Deserialize;

use super::{
    claims::{Claims, TYP, TokenPolicy},
    development, ed25519,
};

/// Longest key id, bytes.
const KEY_ID_BYTES_MAX: usize = 128;

/// Keys, and which tokens are taken.
#[derive(Debug)]
pub struct KeySet {
    keys: HashMap<String, (KeyTag, DecodingKey)>,
    validation: Validation,
    policy: TokenPolicy,
}

/// Why a text is no key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the operating system said.
        cause: String,
    },
    /// No JSON, or JSON of another form.
    #[error("not a JSON Web Key Set: {0}")]
    Form(String),
    /// Larger than any sensible key set.
    #[error("the key set is larger than {0} bytes")]
    TooLarge(usize),
    /// A private key was published.
    #[error(
        "key {0:?} contains its private part: make a new key, and publish its public half only"
    )]
    Private(String),
    /// A key has no usable id.
    #[error("a key has no `kid`, or one of more than {KEY_ID_BYTES_MAX} bytes")]
    KeyId,
    /// Two keys have one id.
    #[error("two keys have the id {0:?}")]
    Twice(String),
    /// Bytes that are no public key.
    #[error("key {0:?} is no Ed25519 public key of 32 bytes")]
    Damaged(String),
    /// Nothing to verify with.
    #[error("the set holds no Ed25519 key for signatures")]
    Empty,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// The Ed25519 keys of a JSON Web Key Set. Keys of other types and for other uses are left out, as RFC 7517
    /// (section 5) asks.
    ///
    /// # Errors
    /// [`KeySetError`] when the text is no such set, publishes a private key, or has no key to verify with.
    pub fn parse(json: &[u8], policy: TokenPolicy) -> Result<Self, KeySetError> {
        ed25519::install();
        let document: Document =
            serde_json::from_slice(json).map_err(|error| KeySetError::Form(error.to_string()))?;
        let mut keys = HashMap::new();
        for value in document.keys {
            let is = |member: &str, what: &str| value[member].as_str() == Some(what);
            if value.get("d").is_some() {
                let name = value["kid"].as_str().unwrap_or_default();
                return Err(KeySetError::Private(name.to_owned()));
            }
            // Of others not even the form is known.
            if !is("kty", "OKP") || !is("crv", "Ed25519") {
                continue;
            }
            let jwk: Jwk = serde_json::from_value(value)
                .map_err(|error| KeySetError::Form(error.to_string()))?;
            let name = jwk.common.key_id.clone().unwrap_or_default();
            let Some(key) = verifying_key(&jwk, &name)? else {
                continue;
            };
            if name.is_empty() || name.len() > KEY_ID_BYTES_MAX {
                return Err(KeySetError::KeyId);
            }
            if keys.insert(name.clone(), (tag(&name, &key), key)).is_some() {
                return Err(KeySetError::Twice(name));
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(Self {
            keys,
            validation: validation(&policy),
            policy,
        })
    }

    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: a set without keys is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether tokens that name this key can be verified.
    #[must_use]
    pub fn contains(&self, key_id: &str) -> bool {
        self.keys.contains_key(key_id)
    }

    /// Whom the token speaks for at `unix_ms`.
    ///
    /// # Errors
    /// One of the codes 200 to 204 and 206.
    pub fn verify(&self, token: &str, unix_ms: u64) -> Result<Identity, ErrorCode> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(ErrorCode::TokenMalformed);
        }
        if development::is_development_token(token) {
            return Err(ErrorCode::DevelopmentTokenRefused);
        }
        let header = decode_header(token).map_err(|_| ErrorCode::TokenMalformed)?;
        let (tag, key) = self.key_for(&header)?;
        let claims = decode::<Claims>(token, key, &self.validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        claims.identity(&self.policy, *tag, unix_ms)
    }

    /// Whether it has the key.
    #[must_use]
    pub fn trusts(&self, key: KeyTag) -> bool {
        self.keys.values().any(|(tag, _)| *tag == key)
    }

    fn key_for(&self, header: &Header) -> Result<&(KeyTag, DecodingKey), ErrorCode> {
        if header.alg != Algorithm::EdDSA {
            return Err(ErrorCode::TokenSignatureInvalid);
        }
        // Extensions that must be understood and are not (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(ErrorCode::TokenMalformed);
        }
        let typ = header.typ.as_deref().ok_or(ErrorCode::TokenClaimsRefused)?;
        if !typ
            .strip_prefix("application/")
            .unwrap_or(typ)
            .eq_ignore_ascii_case(TYP)
        {
            return Err(ErrorCode::TokenClaimsRefused);
        }
        header
            .kid
            .as_ref()
            .and_then(|kid| self.keys.get(kid))
            .ok_or(ErrorCode::TokenKeyUnknown)
    }
}

/// The same for the same key under the same id, in every set of this process.
fn tag(name: &str, key: &DecodingKey) -> KeyTag {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    key.try_get_as_bytes().unwrap_or_default().hash(&mut hasher);
    KeyTag(NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN))
}

/// The key, if it is one to verify Ed25519 signatures with.
fn verifying_key(jwk: &Jwk, name: &str) -> Result<Option<DecodingKey>, KeySetError> {
    let AlgorithmParameters::OctetKeyPair(parameters) = &jwk.algorithm else {
        return Ok(None);
    };
    let for_signatures = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let for_eddsa = matches!(jwk.common.key_algorithm, None | Some(KeyAlgorithm::EdDSA));
    if parameters.curve != EllipticCurve::Ed25519 || !for_signatures || !for_eddsa {
        return Ok(None);
    }
    DecodingKey::from_ed_components(&parameters.x)
        .ok()
        .filter(|key| {
            key.try_get_as_bytes()
                .is_ok_and(|bytes| bytes.len() == ed25519::PUBLIC_KEY_BYTES)
        })
        .map(Some)
        .ok_or_else(|| KeySetError::Damaged(name.to_owned()))
}

/// Presence of the claims, issuer and audience are the library's to check. Times are checked with the clock of the caller.
fn validation(policy: &TokenPolicy) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&policy.issuer]);
    validation.set_audience(&[&policy.audience]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

fn refusal(kind: &ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidEddsaKey => {
            ErrorCode::TokenSignatureInvalid
        }
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::InvalidSubject => ErrorCode::TokenClaimsRefused,
        ErrorKind::ExpiredSignature => ErrorCode::TokenExpired,
        _ => ErrorCode::TokenMalformed,
    }
}

#[cfg(test)]
mod tests;
