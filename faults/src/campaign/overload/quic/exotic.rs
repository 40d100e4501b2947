//! Clients that begin with a key for a group that the broker does not have, so that it asks for another.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use tokio_rustls::rustls::{ClientConfig, Error, NamedGroup, RootCertStore};

/// Bytes of a public key of the group.
const KEY_BYTES: usize = 133;

/// They trust nobody, and come no further than to the broker's certificate.
pub(super) fn client_config(like: &ClientConfig) -> anyhow::Result<ClientConfig> {
    let mut provider = (**like.crypto_provider()).clone();
    provider.kx_groups.insert(0, &Exotic);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols.clone_from(&like.alpn_protocols);
    Ok(config)
}

/// A group with a name, and nothing behind it.
#[derive(Debug)]
struct Exotic;

impl SupportedKxGroup for Exotic {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Key([4; KEY_BYTES])))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct Key([u8; KEY_BYTES]);

impl ActiveKeyExchange for Key {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Err(Error::General("the group has nothing behind it".to_owned()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}
