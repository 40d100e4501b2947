//! Who a connection speaks for: access tokens, the keys that verify them, and what stands in for both on a developer's
//! machine. Issuing tokens to people (passwords, sessions) lives elsewhere; here is only what a token means.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`claims`] | what a token must say, and who follows from it |
//! | [`key_set`] | public keys by key id; verification |
//! | [`key_file`] | a key set in a file that may change while the broker runs |
//! | [`development`] | tokens without a signature, on loopback alone |
//! | [`signing`] | the private half: making tokens and the key set that fits |

pub mod claims;
pub mod development;
mod ed25519;
pub mod key_file;
pub mod key_set;
pub mod signing;

use std::sync::Arc;

use rialto_core::io::{Identity, KeyTag};
use rialto_protocol::error::ErrorCode;

pub use claims::TokenPolicy;
pub use development::{DevelopmentTokens, LoopbackOnly};
pub use key_file::{KeyFile, Reload};
pub use key_set::{KeySet, KeySetError};
pub use signing::{NewToken, SigningKey, SigningKeyError};

/// Verifies access tokens. Called on the thread of a shard: no I/O, and no longer than a signature takes.
pub trait Authenticator: Send + Sync + 'static {
    /// Whom the token speaks for at `unix_ms`, milliseconds since 1970.
    ///
    /// # Errors
    /// One of the codes 200 to 206; the text that goes with it is all that the client learns.
    fn verify(&self, token: &str, unix_ms: u64) -> Result<Identity, ErrorCode>;

    /// Whether tokens of that key, which one of them named, are still taken; see [`crate::Broker::end_untrusted`].
    fn trusts(&self, key: KeyTag) -> bool {
        let _ = key;
        true
    }
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn verify(&self, token: &str, unix_ms: u64) -> Result<Identity, ErrorCode> {
        (**self).verify(token, unix_ms)
    }

    fn trusts(&self, key: KeyTag) -> bool {
        (**self).trusts(key)
    }
}
