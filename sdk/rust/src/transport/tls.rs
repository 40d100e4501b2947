//! TLS 1.3: how the server's certificate is checked, and TLS over TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::{Connected, Side, tcp};
use crate::builder::Roots;
use crate::error::TransportError;

/// Name of the protocol in TLS's negotiation.
const ALPN: &[u8] = b"rialto/1";

/// TLS as this client does it.
#[derive(Clone)]
pub(crate) struct TlsSetup {
    pub(crate) config: Arc<ClientConfig>,
    /// Certificates are not checked: other machines are out of bounds.
    pub(super) loopback_only: bool,
}

impl TlsSetup {
    /// Reads the roots.
    pub(crate) fn new(roots: &Roots) -> Result<Self, TransportError> {
        let mut crypto = rustls::crypto::ring::default_provider();
        // AES-128 before AES-256: it costs less, wherever AES is what the processor does best.
        crypto
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let crypto = Arc::new(crypto);
        let builder = ClientConfig::builder_with_provider(crypto.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TransportError::Roots(error.to_string()))?;
        let builder = match roots {
            Roots::Pem(pem) => builder.with_root_certificates(store(pem)?),
            Roots::File(path) => {
                let pem = std::fs::read(path).map_err(|error| {
                    TransportError::Roots(format!("{}: {error}", path.display()))
                })?;
                builder.with_root_certificates(store(&pem)?)
            }
            Roots::InsecureLoopbackOnly => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate { crypto })),
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            loopback_only: matches!(roots, Roots::InsecureLoopbackOnly),
        })
    }
}

fn store(pem: &[u8]) -> Result<RootCertStore, TransportError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TransportError::Roots(error.to_string()))?;
        store
            .add(certificate)
            .map_err(|error| TransportError::Roots(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(TransportError::Roots(
            "no certificate is in the PEM text".to_owned(),
        ));
    }
    Ok(store)
}

pub(super) async fn connect(
    tls: &TlsSetup,
    host: &str,
    address: SocketAddr,
) -> Result<Connected, TransportError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TransportError::InvalidName)?;
    let stream = tcp::open(address).await?;
    let stream = TlsConnector::from(tls.config.clone())
        .connect(name, stream)
        .await?;
    let (reader, writer) = tokio::io::split(stream);
    Ok(Connected::new(
        Box::new(reader),
        Box::new(writer),
        Side::NONE,
    ))
}

/// Accepts every certificate, but only from a peer that holds its key. [`TlsSetup::loopback_only`] keeps it on this machine.
#[derive(Debug)]
struct AnyCertificate {
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.crypto.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.crypto.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto
            .signature_verification_algorithms
            .supported_schemes()
    }
}
