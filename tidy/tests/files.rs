//! How files look: each says what it is for, none is too long, and nothing in them is only true on one machine.

use rialto_tidy::{source, tree};

/// Most lines of a file before its unit tests.
const LINES_MAX: usize = 500;
/// Most lines of a file that is for tests as a whole: a row of cases may be long.
const TEST_LINES_MAX: usize = 1000;

/// Files that are longer, each with its reason.
const LONGER: &[(&str, &str)] = &[];

/// Text that is about this checkout's machine and not about Rialto. Put together here so that this file does not name it.
const MACHINE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/tm", "p/"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("registry.", "npmjs"),
    concat!("deb.", "debian.org"),
    concat!("spar", "se+http"),
];

const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

/// The public registry, as Cargo names it in a lock file.
const REGISTRY: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

#[test]
fn every_rust_file_opens_by_saying_what_lives_in_it() {
    let files = tree::rust_files(&tree::root()).unwrap();
    let silent: Vec<_> = files
        .iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| &file.path)
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
    assert!(files.len() > 50, "the files of the repository were found");
}

#[test]
fn modules_are_files_beside_their_folder() {
    let files = tree::rust_files(&tree::root()).unwrap();
    let wrong: Vec<_> = files
        .iter()
        .map(|file| &file.path)
        .filter(|path| path.ends_with("/mod.rs"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_longer_than_one_can_read_in_one_go() {
    let mut wrong = Vec::new();
    for file in tree::rust_files(&tree::root()).unwrap() {
        let for_tests = source::is_for_tests(&file.path);
        let (part, most) = if for_tests {
            (&*file.text, TEST_LINES_MAX)
        } else {
            (source::before_tests(&file.text), LINES_MAX)
        };
        let lines = part.lines().count();
        let excused = LONGER.iter().any(|(path, _)| *path == file.path);
        if lines > most && !excused {
            wrong.push(format!("{}: {lines} lines, {most} are the most", file.path));
        }
        if lines <= most && excused {
            wrong.push(format!(
                "{}: is short enough now; take it off the list",
                file.path
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_left_unfinished() {
    let mut wrong = Vec::new();
    for file in tree::text_files(&tree::root())
        .unwrap()
        .iter()
        .filter(|file| file.path != "Cargo.lock")
    {
        for (number, line) in file.text.lines().enumerate() {
            if UNFINISHED.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_true_on_one_machine_only() {
    let mut wrong = Vec::new();
    for file in tree::text_files(&tree::root()).unwrap() {
        for (number, line) in file.text.lines().enumerate() {
            if MACHINE.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_lock_file_names_the_public_registry_alone() {
    let lock = std::fs::read_to_string(tree::root().join("Cargo.lock")).unwrap();
    let other: Vec<_> = lock
        .lines()
        .filter(|line| line.starts_with("source = ") && *line != REGISTRY)
        .collect();
    assert!(other.is_empty(), "{other:#?}");
    assert!(lock.contains(REGISTRY));
}
