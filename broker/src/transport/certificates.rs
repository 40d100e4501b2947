//! The server's certificate and key, replaced while connections are open: what is open keeps what it agreed on.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use ring::{digest, hmac};
use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::CryptoProvider,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use crate::config::TlsIdentity;

/// ALPN of the protocol's first version (RFC 7301), on TLS and QUIC.
pub(crate) const ALPN: &[u8] = b"rialto/1";

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("{path}: {cause}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There is no certificate in what should be a chain.
    #[error("no certificate found: PEM with at least one CERTIFICATE section is needed")]
    NoCertificate,
    /// Damaged PEM, or no private key in it.
    #[error("the PEM cannot be read: {0}")]
    Pem(String),
    /// The key cannot be used, or is not that of the certificate.
    #[error("certificate and key cannot be used: {0}")]
    Refused(#[from] rustls::Error),
}

/// The current certificate, and where the next one comes from.
#[derive(Debug)]
pub(crate) struct Certificates {
    identity: TlsIdentity,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    seen: Mutex<Seen>,
}

/// What is known of the files.
#[derive(Debug)]
struct Seen {
    /// When those in force were written.
    in_force: Written,
    /// When those were written that cannot be used, once that was told.
    refused: Option<Written>,
}

/// When both files were last written.
type Written = [Option<SystemTime>; 2];

impl Certificates {
    /// Reads and checks them for the first time.
    pub(crate) fn load(identity: TlsIdentity) -> Result<Arc<Self>, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let in_force = written(&identity);
        let current = ArcSwap::from_pointee(read(&identity, &provider)?);
        Ok(Arc::new(Self {
            identity,
            provider,
            current,
            seen: Mutex::new(Seen {
                in_force,
                refused: None,
            }),
        }))
    }

    /// Reads them again; when they cannot be used, those before stay.
    pub(crate) fn reload(&self) -> Result<(), IdentityError> {
        let found = written(&self.identity);
        self.current
            .store(Arc::new(read(&self.identity, &self.provider)?));
        *self.seen() = Seen {
            in_force: found,
            refused: None,
        };
        Ok(())
    }

    /// Reads them again if they were written since; to be called every few seconds. `None`: they were not, or cannot be used as
    /// they were written last, which is told once. They are tried again all the same: the rest may have come at the same moment.
    pub(crate) fn look(&self) -> Option<Result<(), IdentityError>> {
        let found = written(&self.identity);
        if self.seen().in_force == found {
            return None;
        }
        match self.reload() {
            Ok(()) => Some(Ok(())),
            Err(error) => {
                let told = self.seen().refused.replace(found);
                (told != Some(found)).then_some(Err(error))
            }
        }
    }

    /// When the server's own certificate ends, seconds since 1970. `None`: it does not say so as others understand it.
    pub(crate) fn ends_s(&self) -> Option<u64> {
        let certified = self.current.load();
        let certificate = ParsedCertificate::try_from(certified.end_entity_cert().ok()?).ok()?;
        end_of(&certificate).map(|end| end.as_secs())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What both transports agree on with clients: TLS 1.3 alone, no early data (a replay of it could not be told from
    /// the original), tickets without state on the server.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    /// See [`reset_key`].
    pub(crate) fn reset_key(&self) -> Result<hmac::Key, IdentityError> {
        reset_key(&self.identity)
    }
}

/// The key of QUIC's stateless resets (RFC 9000, section 10.3), derived from the private key: after a crash the same broker
/// tells former clients at once that it knows nothing of their connections, and they connect again.
fn reset_key(identity: &TlsIdentity) -> Result<hmac::Key, IdentityError> {
    let pem = match identity {
        TlsIdentity::Files { key, .. } => &read_file(key)?,
        TlsIdentity::Pem { key, .. } => key,
    };
    let mut derived = digest::Context::new(&digest::SHA256);
    derived.update(b"rialto stateless reset\0");
    derived.update(pem);
    Ok(hmac::Key::new(hmac::HMAC_SHA256, derived.finish().as_ref()))
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(identity: &TlsIdentity, provider: &CryptoProvider) -> Result<CertifiedKey, IdentityError> {
    let (certificates, key) = match identity {
        TlsIdentity::Files { certificates, key } => (&read_file(certificates)?, &read_file(key)?),
        TlsIdentity::Pem { certificates, key } => (certificates, key),
    };
    let pem = |error: rustls_pki_types::pem::Error| IdentityError::Pem(error.to_string());
    let chain = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem)?;
    if chain.is_empty() {
        return Err(IdentityError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(pem)?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

impl TlsIdentity {
    /// Whether connections could be secured by it.
    ///
    /// # Errors
    /// [`IdentityError`] says why not.
    pub fn check(&self) -> Result<(), IdentityError> {
        read(self, &rustls::crypto::ring::default_provider()).map(drop)
    }

    /// Whether clients that call the broker by this address are shown a certificate that names it.
    ///
    /// # Errors
    /// As [`TlsIdentity::check`].
    pub fn names(&self, address: IpAddr) -> Result<bool, IdentityError> {
        let certified = read(self, &rustls::crypto::ring::default_provider())?;
        let certificate = ParsedCertificate::try_from(certified.end_entity_cert()?)?;
        Ok(verify_server_name(&certificate, &ServerName::from(address)).is_ok())
    }
}

/// When a certificate ends. rustls reads that when it verifies one and tells it of one that has ended: at the end of all time each
/// has, and that is looked at before who has signed it.
fn end_of(certificate: &ParsedCertificate<'_>) -> Option<UnixTime> {
    let end_of_time = UnixTime::since_unix_epoch(Duration::MAX);
    let roots = RootCertStore::empty();
    let verified =
        verify_server_cert_signed_by_trust_anchor(certificate, &roots, &[], end_of_time, &[]);
    let Err(rustls::Error::InvalidCertificate(error)) = verified else {
        return None;
    };
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Some(not_after),
        _ => None,
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|cause| IdentityError::Unreadable {
        path: path.to_owned(),
        cause,
    })
}

fn written(identity: &TlsIdentity) -> Written {
    match identity {
        TlsIdentity::Files { certificates, key } => {
            [certificates, key].map(|path| fs::metadata(path).and_then(|file| file.modified()).ok())
        }
        TlsIdentity::Pem { .. } => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files written so many seconds after 1970.
    fn write(identity: &TlsIdentity, pems: [&str; 2], seconds: u64) {
        let TlsIdentity::Files { certificates, key } = identity else {
            panic!("{identity:?}")
        };
        for (path, pem) in [certificates, key].into_iter().zip(pems) {
            fs::write(path, pem).unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
                .unwrap();
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_told_of_once_until_they_change() {
        let directory = tempfile::tempdir().unwrap();
        let identity = TlsIdentity::Files {
            certificates: directory.path().join("chain.pem"),
            key: directory.path().join("key.pem"),
        };
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        write(&identity, [&chain, &key], 1);
        let certificates = Certificates::load(identity.clone()).unwrap();
        assert!(certificates.look().is_none());
        for seconds in [2, 3] {
            write(&identity, ["half a chain", &key], seconds);
            assert!(matches!(certificates.look(), Some(Err(_))));
            assert!(certificates.look().is_none() && certificates.look().is_none());
        }
        write(&identity, [&chain, &key], 3);
        assert!(matches!(certificates.look(), Some(Ok(()))));
        write(&identity, ["half a chain", &key], 2);
        assert!(matches!(certificates.look(), Some(Err(_))));
    }

    #[test]
    fn when_a_certificate_ends_is_read_out_of_it() {
        let ended = (rcgen::date_time_ymd(2020, 1, 1), 1_577_836_800);
        let far = (rcgen::date_time_ymd(2060, 1, 1), 2_840_140_800);
        for (end, seconds) in [ended, far] {
            let names = vec!["localhost".to_owned()];
            let mut parameters = rcgen::CertificateParams::new(names).unwrap();
            parameters.not_after = end;
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            let identity = TlsIdentity::Pem {
                certificates: certificate.pem().into(),
                key: key.serialize_pem().into(),
            };
            let certificates = Certificates::load(identity).unwrap();
            assert_eq!(certificates.ends_s(), Some(seconds));
        }
    }

    #[test]
    fn a_broker_that_starts_again_with_its_key_can_reset_what_went_before() {
        let sign = |key: &[u8]| {
            let identity = TlsIdentity::Pem {
                certificates: Vec::new(),
                key: key.to_vec(),
            };
            let key = reset_key(&identity).unwrap();
            hmac::sign(&key, b"a connection id").as_ref().to_vec()
        };
        assert_eq!(sign(b"one"), sign(b"one"));
        assert_ne!(sign(b"one"), sign(b"another"));
    }
}
