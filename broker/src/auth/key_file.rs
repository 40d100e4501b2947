//! A key set in a file. The file may be replaced while the broker runs; a file that cannot be used changes nothing.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use rialto_core::io::{Identity, KeyTag};
use rialto_protocol::error::ErrorCode;

use super::{
    Authenticator,
    claims::TokenPolicy,
    key_set::{KeySet, KeySetError},
};

/// Largest key set, bytes: thousands of keys.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Verifies by the keys of a file.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    policy: TokenPolicy,
    current: ArcSwap<KeySet>,
    seen: Mutex<Result<Vec<u8>, KeySetError>>,
}

/// What a look at the file brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The same bytes as at the look before, or the same failure.
    Unchanged,
    /// New keys are in force.
    Replaced {
        /// How many.
        keys: usize,
    },
}

impl KeyFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`KeySetError`] when it cannot be read or is no key set.
    pub fn open(path: &Path, policy: TokenPolicy) -> Result<Self, KeySetError> {
        let content = read(path)?;
        let keys = KeySet::parse(&content, policy.clone())?;
        Ok(Self {
            path: path.to_owned(),
            policy,
            current: ArcSwap::from_pointee(keys),
            seen: Mutex::new(Ok(content)),
        })
    }

    /// Where the keys come from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the file again; to be called every few seconds. Keys that are no longer in it are refused from now on; sessions
    /// that they let in [`crate::Broker::end_untrusted`] ends.
    ///
    /// # Errors
    /// [`KeySetError`] when the file cannot be used; the former keys stay in force. Each failure is reported once, until
    /// the file changes again.
    pub fn reload(&self) -> Result<Reload, KeySetError> {
        let found = read(&self.path);
        let mut seen = self.seen();
        if *seen == found {
            return Ok(Reload::Unchanged);
        }
        seen.clone_from(&found);
        let keys = KeySet::parse(&found?, self.policy.clone())?;
        let count = keys.len();
        self.current.store(keys.into());
        Ok(Reload::Replaced { keys: count })
    }

    fn seen(&self) -> MutexGuard<'_, Result<Vec<u8>, KeySetError>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authenticator for KeyFile {
    fn verify(&self, token: &str, unix_ms: u64) -> Result<Identity, ErrorCode> {
        self.current.load().verify(token, unix_ms)
    }

    fn trusts(&self, key: KeyTag) -> bool {
        self.current.load().trusts(key)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeySetError> {
    let failed = |error: std::io::Error| KeySetError::Unreadable {
        path: path.display().to_string(),
        cause: error.to_string(),
    };
    let mut content = Vec::new();
    File::open(path)
        .map_err(failed)?
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() > FILE_BYTES_MAX {
        return Err(KeySetError::TooLarge(FILE_BYTES_MAX));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::signing::{NewToken, SigningKey};

    const NOW_MS: u64 = 1_700_000_000_000;

    fn token(key: &SigningKey) -> String {
        key.sign(&NewToken {
            policy: &TokenPolicy::default(),
            subject: "alice",
            issued_ms: NOW_MS,
            life_s: 900,
            service: false,
        })
        .unwrap()
    }

    #[test]
    fn a_changed_file_takes_effect_and_a_bad_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        let (old, new) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        std::fs::write(&path, old.key_set()).unwrap();
        let file = KeyFile::open(&path, TokenPolicy::default()).unwrap();
        let tag_of = |key| file.verify(&token(key), NOW_MS).unwrap().key.unwrap();
        let old_tag = tag_of(&old);
        assert!(file.trusts(old_tag));
        assert_eq!(
            file.verify(&token(&new), NOW_MS),
            Err(ErrorCode::TokenKeyUnknown)
        );
        assert_eq!(file.reload(), Ok(Reload::Unchanged));

        std::fs::write(&path, "{\"keys\": [").unwrap();
        assert!(matches!(file.reload(), Err(KeySetError::Form(_))));
        assert_eq!(
            file.reload(),
            Ok(Reload::Unchanged),
            "the same failure is reported once"
        );
        assert_eq!(tag_of(&old), old_tag, "the former keys stay");
        assert!(file.trusts(old_tag));

        std::fs::write(&path, new.key_set()).unwrap();
        assert_eq!(file.reload(), Ok(Reload::Replaced { keys: 1 }));
        assert!(file.trusts(tag_of(&new)) && !file.trusts(old_tag));
        assert_eq!(
            file.verify(&token(&old), NOW_MS),
            Err(ErrorCode::TokenKeyUnknown),
            "a key that was taken out is refused"
        );

        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.reload(), Err(KeySetError::Unreadable { .. })));
        assert!(file.verify(&token(&new), NOW_MS).is_ok());
    }

    #[test]
    fn a_huge_file_is_not_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(
            KeyFile::open(&path, TokenPolicy::default()).unwrap_err(),
            KeySetError::TooLarge(FILE_BYTES_MAX)
        );
    }
}
