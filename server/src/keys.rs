//! The signing key and its key set in the data directory: made when they are needed first.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rialto_broker::auth::{KeySet, SigningKey, SigningKeyError, TokenPolicy};

use crate::files::{self, Access};

/// Where keys are in the data directory.
const FOLDER: &str = "keys";
const SET: &str = "jwks.json";

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file or directory cannot be read or written.
    #[error("{} in the data directory: {cause}; {}", path.display(), files::advice(cause))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others could read the private key.
    #[error(
        "{} can be read by others (mode {mode:o}): run `chmod 600 {}`. If others may have read it, move it and {} away \
         instead, and both are made anew: as long as the key set names the old key, its tokens are taken",
        path.display(), path.display(), beside(path).display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{}: {cause}; move it and {} away, and both are made anew", path.display(), beside(path).display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        cause: SigningKeyError,
    },
    /// The key set cannot be used.
    #[error("the key set {} cannot be used: {cause}", path.display())]
    Set {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Tokens of the key would be refused.
    #[error(
        "the key of {} ({key_id}) is not in the key set {}, so its tokens would be refused: add what `rialto keys` prints to \
         the set, and take out of it what is not to be trusted any more",
        path.display(), set.display()
    )]
    NotInSet {
        /// The key file.
        path: PathBuf,
        /// The key's id.
        key_id: String,
        /// The file of the key set.
        set: PathBuf,
    },
    /// Another issuer's tokens are taken.
    #[error(
        "auth.keys is {}: tokens come from whoever has its private keys, and there is no {}; to have tokens from here as \
         well, add what `rialto keys` prints to the set",
        set.display(), path.display()
    )]
    Elsewhere {
        /// Where a key would be.
        path: PathBuf,
        /// The file of the key set.
        set: PathBuf,
    },
    /// A new key could not be made.
    #[error("a signing key cannot be made: {0}")]
    Made(rcgen::Error),
}

/// Where the private key is.
#[must_use]
pub fn signing_path(data: &Path) -> PathBuf {
    data.join(FOLDER).join("signing.pem")
}

/// Where the key set is that a broker reads unless `auth.keys` names another.
#[must_use]
pub fn key_set_path(data: &Path) -> PathBuf {
    data.join(FOLDER).join(SET)
}

/// The key set beside a key.
fn beside(signing: &Path) -> PathBuf {
    signing.with_file_name(SET)
}

/// The signing key of the data directory, if tokens that it signs are taken. Where `auth.keys` (`configured`) names no other
/// key set, the key and its key set are made where they are missing.
///
/// # Errors
/// [`KeysError`] when a file cannot be read or written, is readable by others or holds no such key, or when the key is not
/// in the key set.
pub fn open(data: &Path, configured: Option<&Path>) -> Result<SigningKey, KeysError> {
    let path = signing_path(data);
    let set = match configured {
        Some(set) if !path.exists() => {
            let set = set.to_owned();
            return Err(KeysError::Elsewhere { path, set });
        }
        Some(set) => set.to_owned(),
        None => key_set_path(data),
    };
    let key = open_or_make(data, configured)?;
    if holds(&set, key.key_id())? {
        return Ok(key);
    }
    Err(KeysError::NotInSet {
        path,
        key_id: key.key_id().to_owned(),
        set,
    })
}

/// The signing key of the data directory, be it in a key set or not. Makes it, and the key set with its public half, where
/// they are missing; a key set that is there is left as it is, because others may have added to it. None is made where
/// `auth.keys` (`configured`) names another.
///
/// # Errors
/// [`KeysError`] when a file cannot be read or written, is readable by others, or holds no such key.
pub fn open_or_make(data: &Path, configured: Option<&Path>) -> Result<SigningKey, KeysError> {
    let path = signing_path(data);
    files::make_data_directory(data).map_err(failed(data))?;
    let directory = data.join(FOLDER);
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
    if configured.is_none() {
        let set = key_set_path(data);
        files::create(&set, key.key_set().as_bytes(), Access::All).map_err(failed(&set))?;
    }
    Ok(key)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> KeysError {
    let path = path.to_owned();
    move |cause| KeysError::Io { path, cause }
}

fn holds(set: &Path, key_id: &str) -> Result<bool, KeysError> {
    let failed = |cause: String| KeysError::Set {
        path: set.to_owned(),
        cause,
    };
    let json = fs::read(set).map_err(|error| failed(error.to_string()))?;
    let keys =
        KeySet::parse(&json, TokenPolicy::default()).map_err(|error| failed(error.to_string()))?;
    Ok(keys.contains(key_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_its_public_half_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), None).unwrap();
        let again = open(directory.path(), None).unwrap();
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
    fn what_to_do_depends_on_what_is_in_the_way_of_a_file() {
        let full = failed(Path::new("data/keys"))(io::ErrorKind::StorageFull.into());
        assert!(full.to_string().contains("free space"), "{full}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), None).unwrap();
        let path = signing_path(directory.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            open(directory.path(), None),
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
            open(directory.path(), None)
                .unwrap_err()
                .to_string()
                .contains("signing.pem")
        );
        assert_eq!(fs::read(&path).unwrap(), b"no key");
    }

    #[test]
    fn a_key_that_its_set_does_not_name_is_refused_and_both_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        let old = open(data, None).unwrap();
        fs::remove_file(signing_path(data)).unwrap();
        let said = open(data, None).unwrap_err().to_string();
        for part in ["signing.pem", "jwks.json", "rialto keys"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        fs::remove_file(key_set_path(data)).unwrap();
        let new = open(data, None).unwrap();
        assert_ne!(old.key_id(), new.key_id());
        assert!(!holds(&key_set_path(data), old.key_id()).unwrap());
    }

    #[test]
    fn a_key_that_others_may_have_read_is_to_leave_the_set_as_well() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), None).unwrap();
        let path = signing_path(directory.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let said = open(directory.path(), None).unwrap_err().to_string();
        assert!(said.contains("jwks.json"), "{said}");
    }

    #[test]
    fn where_another_key_set_is_configured_no_key_is_made_and_one_that_it_does_not_name_is_refused()
    {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        let set = data.join("theirs.json");
        fs::write(&set, SigningKey::generate().unwrap().key_set()).unwrap();
        let elsewhere = open(data, Some(&set));
        assert!(matches!(elsewhere, Err(KeysError::Elsewhere { .. })));
        assert!(!data.join(FOLDER).exists());
        let ours = open_or_make(data, Some(&set)).unwrap();
        assert!(!key_set_path(data).exists());
        let unknown = open(data, Some(&set));
        assert!(matches!(unknown, Err(KeysError::NotInSet { .. })));
        fs::write(&set, ours.key_set()).unwrap();
        assert_eq!(open(data, Some(&set)).unwrap().key_id(), ours.key_id());
    }
}
