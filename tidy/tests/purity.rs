//! Protocol and core decide and do nothing else: no runtime, socket, file, clock, thread or randomness enters them. That is
//! what makes the whole broker runnable in a deterministic simulation.

use rialto_tidy::{imports, manifest, source, tree};

const PURE: &[&str] = &["protocol", "broker/core"];

const FORBIDDEN_PATHS: &[&str] = &[
    "tokio",
    "std::net",
    "std::fs",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::env",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::collections::hash_map::RandomState",
    "Instant",
    "SystemTime",
    "thread",
    "rand",
    "getrandom",
    "uuid::Uuid::new_v4",
    "Uuid::new_v4",
    "Uuid::now_v7",
];

const FORBIDDEN_CRATES: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "quinn",
    "rustls",
    "rand",
    "getrandom",
    "fastrand",
    "fjall",
    "libc",
    "rustix",
    "tracing",
];

const FORBIDDEN_WORDS: &[&str] = &[
    "async fn",
    "async move",
    ".await",
    "println!",
    "eprintln!",
    "unsafe {",
];

#[test]
fn no_clock_socket_file_thread_or_randomness_enters_the_pure_crates() {
    let mut wrong = Vec::new();
    for folder in PURE {
        for file in tree::rust_files(&tree::root().join(folder).join("src")).unwrap() {
            if source::is_for_tests(&file.path) {
                continue;
            }
            let code = source::code_only(source::before_tests(&file.text));
            for path in imports::paths(&code) {
                if FORBIDDEN_PATHS
                    .iter()
                    .any(|forbidden| imports::lies_in(&path, forbidden))
                {
                    wrong.push(format!("{folder}/src/{} uses {path}", file.path));
                }
            }
            for word in FORBIDDEN_WORDS
                .iter()
                .filter(|word| source::has_word(&code, word))
            {
                wrong.push(format!("{folder}/src/{} contains {word:?}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_crate_that_does_such_things_is_built_into_them() {
    for member in manifest::members(&tree::root()).unwrap() {
        if PURE.contains(&member.folder.as_str()) {
            let wrong: Vec<_> = member
                .dependencies
                .iter()
                .filter(|name| FORBIDDEN_CRATES.contains(&name.as_str()))
                .collect();
            assert!(wrong.is_empty(), "{}: {wrong:?}", member.name);
        }
    }
}

/// Ways to make a map that hashes by a random seed. Such a map iterates in another order each run, and the same seed of the
/// simulation would not give the same trace. Maps of the core are made with a hasher of fixed seeds.
const RANDOM_MAPS: &[&str] = &[
    "HashMap::new",
    "HashSet::new",
    "HashMap::default",
    "HashSet::default",
    "HashMap::with_capacity",
    "HashSet::with_capacity",
    "LruCache::new",
    "LinkedHashMap::new",
    "LinkedHashSet::new",
    "AHashMap",
    "AHashSet",
    "Counts::default",
    "RandomState::new",
    "RandomState::default",
    "hash_map::RandomState",
];

#[test]
fn the_core_has_no_map_with_a_random_order() {
    let mut wrong = Vec::new();
    for file in tree::rust_files(&tree::root().join("broker/core/src")).unwrap() {
        if source::is_for_tests(&file.path) {
            continue;
        }
        let code = source::code_only(source::before_tests(&file.text));
        let random = RANDOM_MAPS
            .iter()
            .filter(|word| source::has_word(&code, word));
        wrong.extend(random.map(|word| format!("broker/core/src/{} uses {word}", file.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
