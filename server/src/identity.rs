//! The certificate that a broker shows: the configured one, or a self-signed one in the data directory, made at the first start.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::{
    config::{Listen, Tls},
    files::{self, Access},
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory cannot be written.
    #[error("{}: {cause}; the data directory must belong to the user that runs rialto", path.display())]
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

/// The files to use. Without a configured certificate a self-signed one is made below `data`, for `localhost` and for the
/// addresses that are listened on; one that is there is used again.
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
    if identity.certificate.exists() && identity.key.exists() {
        return Ok(identity);
    }
    let certified = rcgen::generate_simple_self_signed(names(listen))?;
    write(&directory, |path| fs::create_dir_all(path))?;
    write(&identity.key, |path| {
        files::replace(
            path,
            certified.signing_key.serialize_pem().as_bytes(),
            Access::Owner,
        )
    })?;
    write(&identity.certificate, |path| {
        files::replace(path, certified.cert.pem().as_bytes(), Access::All)
    })?;
    Ok(identity)
}

fn write(path: &Path, action: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), IdentityError> {
    action(path).map_err(|cause| IdentityError::Io {
        path: path.to_owned(),
        cause,
    })
}

/// Names that clients may call the broker by.
fn names(listen: &Listen) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    for address in [listen.tls, listen.quic]
        .into_iter()
        .flatten()
        .map(|address| address.ip())
    {
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
