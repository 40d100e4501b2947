//! Who may use whom (docs/ARCHITECTURE.md, "Crates"). An edge that is missing here is a decision to be made, not a line to be added.

use std::collections::BTreeMap;

use rialto_tidy::{manifest, tree};

/// What each crate may be built with, of ours.
const EDGES: &[(&str, &[&str])] = &[
    ("rialto-protocol", &[]),
    ("rialto-tls", &[]),
    ("rialto-core", &["rialto-protocol"]),
    ("rialto-storage", &["rialto-protocol"]),
    (
        "rialto-broker",
        &[
            "rialto-core",
            "rialto-storage",
            "rialto-protocol",
            "rialto-tls",
        ],
    ),
    ("rialto-sdk", &["rialto-protocol"]),
    (
        "rialto-server",
        &[
            "rialto-broker",
            "rialto-core",
            "rialto-storage",
            "rialto-protocol",
        ],
    ),
    (
        "rialto-loadgen",
        &["rialto-sdk", "rialto-protocol", "rialto-tls"],
    ),
    (
        "rialto-faults",
        &["rialto-loadgen", "rialto-sdk", "rialto-protocol"],
    ),
    (
        "rialto-benches",
        &["rialto-core", "rialto-storage", "rialto-protocol"],
    ),
    ("rialto-peers", &[]),
    ("rialto-tidy", &[]),
];

/// Tests may use more, but those of the core may not: they have to run without a runtime.
const PURE: &[&str] = &["rialto-protocol", "rialto-core"];

#[test]
fn crates_use_only_what_the_house_allows() {
    let allowed: BTreeMap<_, _> = EDGES.iter().copied().collect();
    let members = manifest::members(&tree::root()).unwrap();
    let mut wrong = Vec::new();
    for member in &members {
        let Some(allowed) = allowed.get(member.name.as_str()) else {
            wrong.push(format!("{} is not in the table of edges", member.name));
            continue;
        };
        for used in member
            .dependencies
            .iter()
            .filter(|name| name.starts_with("rialto-"))
        {
            if !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} must not use {used}", member.name));
            }
        }
    }
    for name in allowed.keys() {
        if !members.iter().any(|member| member.name == *name) {
            wrong.push(format!(
                "{name} is in the table of edges and not in the workspace"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// With a row for each crate, in words that a reader can rely on.
#[test]
fn the_architecture_says_who_may_use_whom() {
    let text = std::fs::read_to_string(tree::root().join("docs/ARCHITECTURE.md")).unwrap();
    let members = manifest::members(&tree::root()).unwrap();
    let folder = |name: &str| {
        let member = members.iter().find(|member| member.name == name);
        format!("`{}/`", member.unwrap().folder)
    };
    let mut missing = Vec::new();
    for (name, used) in EDGES {
        let used: Vec<String> = used.iter().map(|name| folder(name)).collect();
        let used = if used.is_empty() {
            "–".to_owned()
        } else {
            used.join(", ")
        };
        let row = format!("\n| {} | {used} |\n", folder(name));
        if !text.contains(&row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn pure_crates_are_tested_without_a_runtime() {
    let members = manifest::members(&tree::root()).unwrap();
    for member in members
        .iter()
        .filter(|member| PURE.contains(&member.name.as_str()))
    {
        let runtime: Vec<_> = member
            .dependencies
            .iter()
            .chain(&member.dev_dependencies)
            .filter(|name| name.contains("tokio"))
            .collect();
        assert!(runtime.is_empty(), "{}: {runtime:?}", member.name);
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let members = manifest::members(&tree::root()).unwrap();
    let without: Vec<_> = members
        .iter()
        .filter(|member| !member.takes_lints)
        .map(|member| &member.name)
        .collect();
    assert!(
        without.is_empty(),
        "{without:?} need [lints] workspace = true"
    );
}
