//! Ed25519 for `jsonwebtoken`, by `ring`, which TLS brings along anyway. No other algorithm is compiled in, so that no
//! header can ask for one.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result, new_error},
    jwk::ThumbprintHash,
    signature::{Error, Signer, Verifier},
};
use ring::{
    digest,
    signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey},
};

/// Bytes of a public key (RFC 8032, section 5.1.5).
pub(super) const PUBLIC_KEY_BYTES: usize = 32;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory,
    verifier_factory,
    key_utils: KeyUtils {
        compute_digest,
        ..KeyUtils::new_unimplemented()
    },
};

/// Makes `jsonwebtoken` use this. Has to happen before it signs or verifies for the first time in the process.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only when another provider was installed before, which this program does not do.
        let installed = PROVIDER.install_default();
        debug_assert!(
            installed.is_ok(),
            "another provider of jsonwebtoken was installed"
        );
    });
}

struct RingSigner(Ed25519KeyPair);

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct RingVerifier(UnparsedPublicKey<Vec<u8>>);

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.0.verify(message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if *algorithm != Algorithm::EdDSA || key.family() != AlgorithmFamily::Ed {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(RingSigner(key_pair(key.as_bytes())?)))
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::EdDSA || key.family() != AlgorithmFamily::Ed {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    let public = key.try_get_as_bytes()?;
    if public.len() != PUBLIC_KEY_BYTES {
        return Err(new_error(ErrorKind::InvalidEddsaKey));
    }
    Ok(Box::new(RingVerifier(UnparsedPublicKey::new(
        &ED25519,
        public.to_vec(),
    ))))
}

/// The pair in a PKCS#8 document; with the public key (version 2) or, as OpenSSL writes it, without.
pub(super) fn key_pair(pkcs8: &[u8]) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
        .map_err(|_| new_error(ErrorKind::InvalidEddsaKey))
}

// The signature is the library's.
#[allow(clippy::needless_pass_by_value)]
fn compute_digest(data: &[u8], hash: ThumbprintHash) -> Result<Vec<u8>> {
    // Key ids are SHA-256 thumbprints (RFC 7638, section 3.4); nothing here asks for another.
    if hash != ThumbprintHash::SHA256 {
        return Err(new_error(ErrorKind::UnsupportedAlgorithm));
    }
    Ok(digest::digest(&digest::SHA256, data).as_ref().to_vec())
}
