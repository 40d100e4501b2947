//! The files of the repository, without what is built or downloaded into it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Of git: a folder, or a file that says where it is.
const GIT: &str = ".git";

/// Folders that hold nothing that somebody wrote.
const NOT_OURS: &[&str] = &[
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
            if name == GIT {
                continue;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_keeps_is_not_ours_be_it_a_folder_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("README.md"), "ours").unwrap();
        fs::write(folder.path().join(GIT), "gitdir: elsewhere").unwrap();
        let paths = || -> Vec<String> {
            let files = text_files(folder.path()).unwrap();
            files.into_iter().map(|file| file.path).collect()
        };
        assert_eq!(paths(), ["README.md"]);
        fs::remove_file(folder.path().join(GIT)).unwrap();
        fs::create_dir(folder.path().join(GIT)).unwrap();
        fs::write(folder.path().join(GIT).join("HEAD"), "ref").unwrap();
        assert_eq!(paths(), ["README.md"]);
    }
}
