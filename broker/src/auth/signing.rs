//! The private half: makes access tokens, and the key set that verifies them.

use std::fmt;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, encode,
    errors::Error,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};

use super::{
    claims::{IssuedClaims, SERVICE_SCOPE, TYP, TokenPolicy},
    ed25519,
};

/// Signs access tokens with Ed25519.
pub struct SigningKey {
    key: EncodingKey,
    jwk: Jwk,
    key_id: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SigningKey")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// A key cannot be used, or a token not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// The text holds no Ed25519 key in PKCS#8.
    #[error("no Ed25519 private key in PKCS#8: {0}")]
    Key(Error),
    /// The token could not be signed.
    #[error("the token cannot be signed: {0}")]
    Sign(Error),
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    Randomness,
}

/// What a token is to say.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// Names issuer and audience.
    pub policy: &'a TokenPolicy,
    /// The user: a name or a UUID.
    pub subject: &'a str,
    /// Now, milliseconds since 1970.
    pub issued_ms: u64,
    /// How long it is good for, seconds.
    pub life_s: u64,
    /// A service's: no rate limits, and it may publish on behalf of users.
    pub service: bool,
}

impl SigningKey {
    /// A new key, kept nowhere.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, SigningKeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| SigningKeyError::Randomness)?;
        Self::from_key(EncodingKey::from_ed_der(document.as_ref()))
    }

    /// The key in a PEM text (`-----BEGIN PRIVATE KEY-----`).
    ///
    /// # Errors
    /// When it holds no Ed25519 private key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        Self::from_key(EncodingKey::from_ed_pem(pem).map_err(SigningKeyError::Key)?)
    }

    fn from_key(key: EncodingKey) -> Result<Self, SigningKeyError> {
        ed25519::install();
        let pair = ed25519::key_pair(key.as_bytes()).map_err(SigningKeyError::Key)?;
        let public = DecodingKey::from_ed_der(pair.public_key().as_ref());
        let mut jwk = Jwk::from_decoding_key(&public, Some(Algorithm::EdDSA))
            .map_err(SigningKeyError::Key)?;
        let key_id = jwk
            .thumbprint(ThumbprintHash::SHA256)
            .map_err(SigningKeyError::Key)?;
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { key, jwk, key_id })
    }

    /// Its id: the thumbprint of the public key (RFC 7638).
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// A JSON Web Key Set of its public half, indented.
    #[must_use]
    pub fn key_set(&self) -> String {
        let set = JwkSet {
            keys: vec![self.jwk.clone()],
        };
        // Strings only: there is nothing that could fail to be written.
        serde_json::to_string_pretty(&set).unwrap_or_default()
    }

    /// Makes a token.
    ///
    /// # Errors
    /// When there are no random bytes for its id.
    pub fn sign(&self, token: &NewToken<'_>) -> Result<String, SigningKeyError> {
        let mut id = [0_u8; 16];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| SigningKeyError::Randomness)?;
        let issued_s = token.issued_ms / 1000;
        let claims = IssuedClaims {
            iss: &token.policy.issuer,
            aud: &token.policy.audience,
            sub: token.subject,
            iat: issued_s,
            exp: issued_s.saturating_add(token.life_s),
            jti: format!("{:032x}", u128::from_be_bytes(id)),
            scope: token.service.then_some(SERVICE_SCOPE),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYP.to_owned());
        header.kid = Some(self.key_id.clone());
        encode(&header, &claims, &self.key).map_err(SigningKeyError::Sign)
    }
}
