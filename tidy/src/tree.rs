//! The files of the repository, without what is built or downloaded into it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Folders that hold nothing that somebody wrote.
const NOT_OURS: &[&str] = &[
    ".git",
    "target",
    "data",
    ".tools",
    "node_modules",
    "corpus",
    "artifacts",
];

/// The folder that everything lies in.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A text file of the repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextFile {
    /// Seen from the root, with `/`.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// Every text file below `folder`, by path. Files that are not UTF-8 are none.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn text_files(folder: &Path) -> io::Result<Vec<TextFile>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if !NOT_OURS.iter().any(|not| name == *not) {
                    folders.push(entry.path());
                }
            } else if let Ok(text) = String::from_utf8(fs::read(entry.path())?) {
                let path = entry.path();
                let path = path
                    .strip_prefix(folder)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                files.push(TextFile { path, text });
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Those of them that are Rust.
///
/// # Errors
/// As [`text_files`].
pub fn rust_files(folder: &Path) -> io::Result<Vec<TextFile>> {
    let mut files = text_files(folder)?;
    files.retain(|file| file.path.ends_with(".rs"));
    Ok(files)
}
