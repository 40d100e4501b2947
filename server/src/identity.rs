//! The certificate that a broker shows: the configured one, or a self-signed one in the data directory, made at the first start.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, KeyPair};
use rialto_broker::TlsIdentity;

use crate::{
    config::{Listen, Tls},
    files::{self, Access},
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory cannot be read or written.
    #[error("{} in the data directory: {cause}; {}", path.display(), files::advice(cause))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// No certificate could be made.
    #[error("a self-signed certificate cannot be made: {0}")]
    Made(#[from] rcgen::Error),
}

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM with the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM with the private key.
    pub key: PathBuf,
    /// Whether clients have to be told to trust it.
    pub self_signed: bool,
}

impl Identity {
    /// For the broker.
    #[must_use]
    pub fn files(&self) -> TlsIdentity {
        TlsIdentity::Files {
            certificates: self.certificate.clone(),
            key: self.key.clone(),
        }
    }
}

/// The files to use. Without a configured certificate a self-signed one is made below `data`, for `localhost` and for the
/// addresses that are listened on. One that is there is used again, unless it does not name one of them: then another is made
/// with the same key, which clients that trust the former one trust as well.
///
/// # Errors
/// [`IdentityError`] when it cannot be made or written.
pub fn open_or_make(tls: &Tls, listen: &Listen, data: &Path) -> Result<Identity, IdentityError> {
    if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
        return Ok(Identity {
            certificate: certificate.clone(),
            key: key.clone(),
            self_signed: false,
        });
    }
    let directory = data.join("tls");
    let identity = Identity {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
        self_signed: true,
    };
    let names = names(listen);
    warn_of_all_addresses(listen, &names);
    if identity.certificate.exists() && identity.key.exists() {
        if let Some(address) = unnamed(&identity, listen) {
            tracing::warn!(
                %address,
                certificate = %identity.certificate.display(),
                "the self-signed certificate did not name an address that is listened on, and is made again with the same key"
            );
            let key = KeyPair::from_pem(&with(&identity.key, |path| fs::read_to_string(path))?)?;
            write_certificate(&identity, names, &key)?;
        }
        return Ok(identity);
    }
    let key = KeyPair::generate()?;
    with(&directory, |path| fs::create_dir_all(path))?;
    with(&identity.key, |path| {
        files::replace(path, key.serialize_pem().as_bytes(), Access::Owner)
    })?;
    write_certificate(&identity, names, &key)?;
    Ok(identity)
}

fn write_certificate(
    identity: &Identity,
    names: Vec<String>,
    key: &KeyPair,
) -> Result<(), IdentityError> {
    let certificate = CertificateParams::new(names)?.self_signed(key)?;
    with(&identity.certificate, |path| {
        files::replace(path, certificate.pem().as_bytes(), Access::All)
    })
}

/// The first address that is listened on and is not in the certificate. One that cannot be read is for the start to complain of.
fn unnamed(identity: &Identity, listen: &Listen) -> Option<IpAddr> {
    let identity = identity.files();
    addresses(listen).find(|address| {
        !address.is_unspecified() && identity.names(*address).is_ok_and(|named| !named)
    })
}

/// All addresses of a machine are more than anybody could name.
fn warn_of_all_addresses(listen: &Listen, names: &[String]) {
    if addresses(listen).any(|address| address.is_unspecified()) {
        tracing::warn!(
            names = names.join(", "),
            "clients can call the broker by the names in its self-signed certificate alone, which are these; for others set \
             tls.certificate and tls.key, or listen on the address that they call"
        );
    }
}

fn with<T>(path: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, IdentityError> {
    action(path).map_err(|cause| IdentityError::Io {
        path: path.to_owned(),
        cause,
    })
}

/// Where a certificate is shown.
fn addresses(listen: &Listen) -> impl Iterator<Item = IpAddr> {
    let listeners = [listen.tls, listen.quic].into_iter().flatten();
    listeners.map(|address| address.ip())
}

/// Names that clients may call the broker by.
fn names(listen: &Listen) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    for address in addresses(listen) {
        let name = IpAddr::to_string(&address);
        if !address.is_unspecified() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NONE: Tls = Tls {
        certificate: None,
        key: None,
    };

    fn listen(tls: &str) -> Listen {
        Listen {
            tcp: None,
            tls: tls.parse().ok(),
            quic: None,
            ops: None,
        }
    }

    #[test]
    fn a_certificate_is_made_at_the_first_start_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let identity = open_or_make(&NONE, &listen("127.0.0.1:0"), directory.path()).unwrap();
        let certificate = fs::read(&identity.certificate).unwrap();
        assert!(certificate.starts_with(b"-----BEGIN CERTIFICATE-----"));
        assert_eq!(
            fs::metadata(&identity.key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            open_or_make(&NONE, &listen("127.0.0.1:0"), directory.path()).unwrap(),
            identity
        );
        assert_eq!(fs::read(&identity.certificate).unwrap(), certificate);
    }

    #[test]
    fn one_that_does_not_name_an_address_is_made_again_with_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let made = |listen: &Listen| {
            let identity = open_or_make(&NONE, listen, directory.path()).unwrap();
            identity.files().check().unwrap();
            [identity.certificate, identity.key].map(|path| fs::read(path).unwrap())
        };
        let first = made(&listen("127.0.0.1:0"));
        let elsewhere = listen("192.0.2.7:4401");
        let second = made(&elsewhere);
        assert_ne!(first[0], second[0]);
        assert_eq!(first[1], second[1]);
        assert_eq!(made(&elsewhere), second, "it names it now");
        assert_eq!(
            made(&listen("0.0.0.0:4401")),
            second,
            "what is there is kept"
        );
        fs::write(directory.path().join("tls/certificate.pem"), "damaged").unwrap();
        let kept = open_or_make(&NONE, &elsewhere, directory.path()).unwrap();
        assert!(
            kept.files().check().is_err(),
            "that is for somebody to look at"
        );
    }

    #[test]
    fn what_to_do_depends_on_what_is_in_the_way_of_a_file() {
        let full = IdentityError::Io {
            path: "data/tls/key.pem".into(),
            cause: io::ErrorKind::StorageFull.into(),
        };
        assert!(full.to_string().contains("free space"), "{full}");
    }

    #[test]
    fn it_names_the_addresses_that_are_listened_on() {
        assert!(names(&listen("192.0.2.7:4401")).contains(&"192.0.2.7".to_owned()));
        assert_eq!(
            names(&listen("0.0.0.0:4401")),
            ["localhost", "127.0.0.1", "::1"]
        );
    }

    #[test]
    fn configured_files_are_used_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let tls = Tls {
            certificate: Some("chain.pem".into()),
            key: Some("key.pem".into()),
        };
        let identity = open_or_make(&tls, &listen("0.0.0.0:1"), directory.path()).unwrap();
        assert!(!identity.self_signed && identity.key == Path::new("key.pem"));
        assert!(!directory.path().join("tls").exists());
    }
}
