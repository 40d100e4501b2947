//! Access tokens for the users that loadgen plays. All are service tokens: nobody's rate limit is to slow a load test, and
//! a shared connection publishes on behalf of its users.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rialto_protocol::ids::UserId;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

/// How long a token is good for: longer than any run, because a session ends with its token.
const LIFE_S: u64 = 400 * 24 * 60 * 60;
/// Alphabet of base64url (RFC 4648, section 5).
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Where tokens come from.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// Unsigned ones, which a broker takes while it listens on loopback alone.
    Development,
    /// Signed with the broker's key.
    Signed(Arc<Signer>),
}

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The file holds no private key in PEM.
    #[error("{0}: {1}")]
    Pem(PathBuf, rustls_pki_types::pem::Error),
    /// The key is no Ed25519 key in PKCS#8.
    #[error("{0}: no Ed25519 private key in PKCS#8 ({1})")]
    Key(PathBuf, ring::error::KeyRejected),
}

/// Signs tokens (RFC 9068) with Ed25519.
pub struct Signer {
    pair: Ed25519KeyPair,
    key_id: String,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Signer")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Signs with the key in a PEM file, for this issuer and audience.
    ///
    /// # Errors
    /// When the file holds no Ed25519 key.
    pub fn signed(path: &Path, issuer: &str, audience: &str) -> Result<Self, TokenKeyError> {
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_file(path)
            .map_err(|error| TokenKeyError::Pem(path.to_owned(), error))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.secret_pkcs8_der())
            .map_err(|error| TokenKeyError::Key(path.to_owned(), error))?;
        let key_id = thumbprint(pair.public_key().as_ref());
        Ok(Self::Signed(Arc::new(Signer {
            pair,
            key_id,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        })))
    }

    /// A service token of the user.
    #[must_use]
    pub fn of(&self, user: UserId) -> String {
        match self {
            Self::Development => format!("dev-service:{user}"),
            Self::Signed(signer) => signer.sign(user, unix_s()),
        }
    }
}

impl Signer {
    fn sign(&self, user: UserId, now_s: u64) -> String {
        let header = serde_json::json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": self.key_id });
        let claims = serde_json::json!({
            "iss": self.issuer, "aud": self.audience, "sub": user.to_string(), "iat": now_s, "exp": now_s + LIFE_S,
            "jti": format!("{user}-{now_s}"), "scope": "service",
        });
        let mut token = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        let signature = self.pair.sign(token.as_bytes());
        // Writing to a string does not fail.
        let _ = write!(token, ".{}", base64url(signature.as_ref()));
        token
    }
}

/// The key's id: the thumbprint of its public half as a JSON Web Key (RFC 7638, RFC 8037).
fn thumbprint(public: &[u8]) -> String {
    let jwk = format!(
        "{{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"{}\"}}",
        base64url(public)
    );
    base64url(digest(&SHA256, jwk.as_bytes()).as_ref())
}

/// Without padding.
fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_usize, |word, (at, byte)| {
            word | usize::from(*byte) << (16 - 8 * at)
        });
        for at in 0..=chunk.len() {
            text.push(char::from(BASE64URL[word >> (18 - 6 * at) & 63]));
        }
    }
    text
}

fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// The private key of RFC 8032, section 7.1, test 1, as OpenSSL writes it (PKCS#8, version 1).
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                       -----END PRIVATE KEY-----\n";

    #[test]
    fn base64url_has_no_padding_and_no_plus() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"\xfb\xff\xfe", "-__-"),
        ] {
            assert_eq!(base64url(bytes), text);
        }
    }

    #[test]
    fn the_key_id_is_the_thumbprint_that_rfc_8037_gives_for_this_key() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(PEM.as_bytes()).unwrap();
        let Tokens::Signed(signer) = Tokens::signed(file.path(), "i", "a").unwrap() else {
            panic!("not signed")
        };
        assert_eq!(signer.key_id, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_signed_token_verifies_and_a_file_without_a_key_is_refused() {
        let rng = ring::rand::SystemRandom::new();
        let pair =
            Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&rng).unwrap().as_ref())
                .unwrap();
        let public = pair.public_key().as_ref().to_vec();
        let signer = Signer {
            key_id: thumbprint(&public),
            pair,
            issuer: "i".into(),
            audience: "a".into(),
        };
        let token = signer.sign(UserId::from_name("ann"), 1_000);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let expected = signer.pair.sign(signed.as_bytes());
        assert_eq!(signature, base64url(expected.as_ref()));
        UnparsedPublicKey::new(&ED25519, public)
            .verify(signed.as_bytes(), expected.as_ref())
            .unwrap();

        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "no key").unwrap();
        assert!(matches!(
            Tokens::signed(file.path(), "i", "a"),
            Err(TokenKeyError::Pem(..))
        ));
    }

    #[test]
    fn development_tokens_name_the_user_by_id() {
        let user = UserId::from_name("ann");
        assert_eq!(Tokens::Development.of(user), format!("dev-service:{user}"));
    }
}
