//! What can be wrong with a configuration.

use std::path::PathBuf;

use super::layers::Origin;

/// A mistake in the configuration, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No such key.
    #[error("unknown key \"{name}\" ({origin}){}", suggestion(meant.as_deref()))]
    Unknown {
        /// As it was written.
        name: String,
        /// Where.
        origin: Origin,
        /// The known name that is nearest.
        meant: Option<String>,
    },
    /// A value that the key does not allow.
    #[error("{key}: {} is not allowed ({origin}); use {allowed}", shown(text))]
    Value {
        /// The key.
        key: &'static str,
        /// As it was written.
        text: String,
        /// Where.
        origin: Origin,
        /// What is allowed.
        allowed: String,
    },
    /// The configuration file cannot be read.
    #[error("configuration file {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A path that cannot be used as its key needs it.
    #[error("{key}: {}: {cause}", path.display())]
    Path {
        /// The key.
        key: &'static str,
        /// The path.
        path: PathBuf,
        /// Why, and what to do.
        cause: String,
    },
    /// A folder that is well named, and that the operating system does not let us write.
    #[error("{key}: {cause}")]
    Unwritable {
        /// The key.
        key: &'static str,
        /// Which, why, and what to do.
        cause: String,
    },
    /// Values that are allowed each, but not together.
    #[error("{key}: {text}")]
    Conflict {
        /// The key to change.
        key: &'static str,
        /// What is in the way.
        text: String,
    },
}

/// A text that has nothing to show is shown in quotes.
fn shown(text: &str) -> &str {
    if text.trim().is_empty() { "\"\"" } else { text }
}

fn suggestion(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean \"{meant}\"?"))
}
