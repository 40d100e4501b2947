//! The signing key and its key set in the data directory: made when they are needed first.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rialto_broker::auth::{SigningKey, SigningKeyError};

use crate::files::{self, Access};

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file or directory cannot be read or written.
    #[error("{}: {cause}; the data directory must belong to the user that runs rialto", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others could read the private key.
    #[error("{} can be read by others (mode {mode:o}): run `chmod 600 {}`, and make a new key if others may have read it", path.display(), path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{}: {cause}; move the file away, and a new key is made", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        cause: SigningKeyError,
    },
    /// A new key could not be made.
    #[error("a signing key cannot be made: {0}")]
    Made(rcgen::Error),
}

/// Where the private key is.
#[must_use]
pub fn signing_path(data: &Path) -> PathBuf {
    data.join("keys").join("signing.pem")
}

/// Where the key set is that a broker reads unless `auth.keys` names another.
#[must_use]
pub fn key_set_path(data: &Path) -> PathBuf {
    data.join("keys").join("jwks.json")
}

/// The signing key of the data directory. Makes it, and the key set with its public half, where they are missing; a key
/// set that is there is left as it is, because others may have added to it.
///
/// # Errors
/// [`KeysError`] when a file cannot be read or written, is readable by others, or holds no such key.
pub fn open_or_make(data: &Path) -> Result<SigningKey, KeysError> {
    let path = signing_path(data);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| KeysError::Io { path, cause }
    };
    let directory = data.join("keys");
    fs::create_dir_all(&directory).map_err(failed(&directory))?;
    if !path.exists() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(KeysError::Made)?;
        files::create(&path, pair.serialize_pem().as_bytes(), Access::Owner)
            .map_err(failed(&path))?;
    }
    let mode = fs::metadata(&path)
        .map_err(failed(&path))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed { path, mode });
    }
    let pem = fs::read(&path).map_err(failed(&path))?;
    let key = SigningKey::from_pem(&pem).map_err(|cause| KeysError::Key {
        path: path.clone(),
        cause,
    })?;
    let set = key_set_path(data);
    files::create(&set, key.key_set().as_bytes(), Access::All).map_err(failed(&set))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_its_public_half_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = open_or_make(directory.path()).unwrap();
        let again = open_or_make(directory.path()).unwrap();
        assert_eq!(first.key_id(), again.key_id());
        let set = fs::read_to_string(key_set_path(directory.path())).unwrap();
        assert!(
            set.contains(first.key_id()) && !set.contains("\"d\""),
            "{set}"
        );
        assert_eq!(
            fs::metadata(signing_path(directory.path()))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        open_or_make(directory.path()).unwrap();
        let path = signing_path(directory.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            open_or_make(directory.path()),
            Err(KeysError::Exposed { mode: 0o644, .. })
        ));
    }

    #[test]
    fn a_file_that_is_no_key_is_named_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("keys")).unwrap();
        let path = signing_path(directory.path());
        files::create(&path, b"no key", Access::Owner).unwrap();
        assert!(
            open_or_make(directory.path())
                .unwrap_err()
                .to_string()
                .contains("signing.pem")
        );
        assert_eq!(fs::read(&path).unwrap(), b"no key");
    }
}
