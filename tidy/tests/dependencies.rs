//! Every dependency is shared, has its reason beside it, and is used.

use std::collections::BTreeSet;

use rialto_tidy::{manifest, source, tree};

#[test]
fn every_shared_dependency_has_its_reason_beside_it() {
    let shared = manifest::shared_dependencies(&tree::root()).unwrap();
    let others = shared
        .iter()
        .filter(|(name, _)| !name.starts_with("rialto-"));
    let silent: Vec<_> = others
        .filter(|(_, line)| {
            line.split_once(" # ")
                .is_none_or(|(_, why)| why.trim().len() < 10)
        })
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn every_shared_dependency_is_used_and_no_crate_has_one_of_its_own() {
    let shared: BTreeSet<String> = manifest::shared_dependencies(&tree::root())
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let members = manifest::members(&tree::root()).unwrap();
    let used: BTreeSet<String> = members
        .iter()
        .flat_map(|member| member.dependencies.union(&member.dev_dependencies).cloned())
        .collect();
    let unused: Vec<_> = shared.difference(&used).collect();
    let own: Vec<_> = used.difference(&shared).collect();
    assert!(
        unused.is_empty() && own.is_empty(),
        "unused: {unused:?}; not shared: {own:?}"
    );
}

/// The reasons in full stand in the decision; a crate that it does not name was never decided upon.
#[test]
fn every_shared_dependency_is_in_the_decision_about_them() {
    let decision =
        std::fs::read_to_string(tree::root().join("docs/decisions/0002-dependencies.md")).unwrap();
    let shared = manifest::shared_dependencies(&tree::root()).unwrap();
    let others = shared
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with("rialto-"));
    let missing: Vec<_> = others
        .filter(|name| !decision.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A line that nobody took out when the code that needed it went.
#[test]
fn every_dependency_of_a_crate_is_named_in_its_source() {
    let root = tree::root();
    let mut wrong = Vec::new();
    for member in manifest::members(&root).unwrap() {
        let files = tree::rust_files(&root.join(&member.folder)).unwrap();
        let inner = |path: &str| member.folder == "broker" && path.starts_with("core/");
        let texts: Vec<&str> = files
            .iter()
            .filter(|file| !inner(&file.path))
            .map(|file| file.text.as_str())
            .collect();
        for name in member.dependencies.union(&member.dev_dependencies) {
            let word = name.replace('-', "_");
            if !texts.iter().any(|text| source::has_word(text, &word)) {
                wrong.push(format!("{} does not use {name}", member.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
