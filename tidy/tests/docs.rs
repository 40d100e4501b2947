//! Documentation against code. `make docs` writes the parts that are made from code; everything else is only checked.

use std::{fs, path::Path};

use rialto_tidy::{markdown, tree};

/// Set by `make docs`: write the parts instead of comparing them.
const WRITE_VARIABLE: &str = "TIDY_WRITE_DOCS";

#[allow(clippy::unwrap_used)]
fn check(page: &str, name: &str, expected: &str) {
    let path = tree::root().join(page);
    let text = fs::read_to_string(&path).unwrap();
    let current = markdown::generated(&text, name);
    assert!(current.is_some(), "{page} has no part {name}");
    if current == Some(expected) {
        return;
    }
    assert!(
        std::env::var_os(WRITE_VARIABLE).is_some(),
        "{page}: the part {name} is not what the code says; run `make docs`"
    );
    fs::write(
        &path,
        markdown::with_generated(&text, name, expected).unwrap(),
    )
    .unwrap();
}

#[test]
fn the_table_of_configuration_keys_is_that_of_the_code() {
    check(
        "docs/OPERATIONS.md",
        "configuration",
        &rialto_server::config::print::markdown(),
    );
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    let rows = rialto_broker::ops::METRICS
        .iter()
        .map(|(name, help)| format!("| `{name}` | {help} |\n"));
    check(
        "docs/OPERATIONS.md",
        "metrics",
        &format!(
            "| metric | what it tells |\n| --- | --- |\n{}",
            rows.collect::<String>()
        ),
    );
}

/// Operators find out there what a count means; a row may name several reasons.
#[test]
fn every_queue_and_reason_of_refusals_is_explained() {
    let text = fs::read_to_string(tree::root().join("docs/OPERATIONS.md")).unwrap();
    let cells = |line: &str| -> Vec<String> { line.split('|').map(str::to_owned).collect() };
    let rows: Vec<Vec<String>> = text.lines().map(cells).collect();
    let missing: Vec<_> = rialto_broker::ops::sheds()
        .filter(|(queue, reason)| {
            !rows.iter().any(|row| {
                let of =
                    |cell: usize, word: &str| row.get(cell).is_some_and(|cell| cell.contains(word));
                of(1, &format!("`{queue}`"))
                    && (of(2, &format!("`{reason}`"))
                        || of(2, "error code") && reason.contains("error code"))
            })
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Whoever meets a limit finds out there what shows it and what to do, and whoever sets one where to look.
#[test]
fn every_limit_that_can_be_set_is_explained() {
    let text = fs::read_to_string(tree::root().join("docs/OPERATIONS.md")).unwrap();
    let section = text
        .split("\n## ")
        .find(|part| part.starts_with("Limits\n"))
        .unwrap();
    let rows: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('|').nth(1))
        .collect();
    let missing: Vec<_> = rialto_server::config::table::TABLE
        .iter()
        .map(|key| key.name)
        .filter(|name| name.starts_with("limits.") || name.ends_with("_max"))
        .filter(|name| !rows.iter().any(|row| row.contains(&format!("`{name}`"))))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn paths_that_pages_name_exist() {
    let mut wrong = Vec::new();
    for page in [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/decisions/README.md",
    ] {
        let text = fs::read_to_string(tree::root().join(page)).unwrap();
        let beside = tree::root()
            .join(page)
            .parent()
            .unwrap_or(Path::new(""))
            .to_owned();
        let paths = markdown::paths(&text);
        assert!(!paths.is_empty(), "{page} names no path");
        let missing = paths
            .into_iter()
            .filter(|path| !tree::root().join(path).exists() && !beside.join(path).exists());
        wrong.extend(missing.map(|path| format!("{page} names {path}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Pages that speak of data directories as well name paths that are not here; what begins with a folder of ours is.
#[test]
fn paths_of_our_folders_exist_whatever_page_names_them() {
    let root = tree::root();
    let mut wrong = Vec::new();
    for page in pages() {
        for path in markdown::paths(&page.text) {
            let folder = path.split('/').next().unwrap_or_default();
            let ours = path.contains('/') && folder != "target" && root.join(folder).is_dir();
            if ours && !folder.starts_with('.') && !root.join(&path).exists() {
                wrong.push(format!("{} names {path}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every page of the documentation.
#[allow(clippy::unwrap_used)]
fn pages() -> Vec<tree::TextFile> {
    let mut pages = tree::text_files(&tree::root()).unwrap();
    pages.retain(|file| file.path.ends_with(".md"));
    assert!(pages.len() > 10, "the pages were found");
    pages
}

/// A row that came from another table says something else than its place does.
#[test]
fn rows_of_a_table_have_the_cells_of_its_head() {
    let mut wrong = Vec::new();
    for page in pages() {
        let uneven = markdown::uneven_rows(&page.text).into_iter();
        wrong.extend(uneven.map(|(number, row)| format!("{}:{number}: {row}", page.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_page_is_to_be_found_from_the_readme() {
    let readme = fs::read_to_string(tree::root().join("README.md")).unwrap();
    let pages = tree::text_files(&tree::root().join("docs")).unwrap();
    let missing: Vec<_> = pages
        .iter()
        .filter(|page| !page.path.contains('/'))
        .filter(|page| !readme.contains(&format!("](docs/{})", page.path)))
        .map(|page| &page.path)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_crate_is_in_the_architecture() {
    let text = fs::read_to_string(tree::root().join("docs/ARCHITECTURE.md")).unwrap();
    let members = rialto_tidy::manifest::members(&tree::root()).unwrap();
    let missing: Vec<_> = members
        .iter()
        .filter(|member| !text.contains(&format!("`{}/`", member.folder)))
        .map(|member| &member.folder)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn decisions_are_numbered_without_a_gap_and_listed() {
    let folder = tree::root().join("docs/decisions");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    let names = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "README.md").collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        assert!(
            name.starts_with(&format!("{:04}-", index + 1)) && name.ends_with(".md"),
            "{name} should be number {}",
            index + 1
        );
        assert!(
            list.contains(&format!("]({name})")),
            "{name} is not in docs/decisions/README.md"
        );
    }
    assert!(!names.is_empty());
}

#[test]
fn every_decision_has_its_four_parts() {
    let mut wrong = Vec::new();
    for file in tree::text_files(&tree::root().join("docs/decisions"))
        .unwrap()
        .iter()
        .filter(|file| file.path != "README.md")
    {
        for part in ["## Context", "## Decision", "## Consequences"] {
            if !file.text.contains(part) {
                wrong.push(format!("{} has no {part:?}", file.path));
            }
        }
        if !["## Alternatives", "## Ways considered"]
            .iter()
            .any(|part| file.text.contains(part))
        {
            wrong.push(format!(
                "{} does not say what else was considered",
                file.path
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Commands that pages tell people to type.
#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = fs::read_to_string(tree::root().join("Makefile")).unwrap();
    for tree::TextFile { path, text } in pages() {
        for (_, rest) in text
            .match_indices("make ")
            .map(|(at, word)| (at, &text[at + word.len()..]))
        {
            let before = text[..text.len() - rest.len() - "make ".len()]
                .chars()
                .next_back();
            let target: String = rest
                .chars()
                .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
                .collect();
            if before.is_none_or(|letter| letter == '`' || letter == '\n') && !target.is_empty() {
                assert!(
                    makefile.contains(&format!("\n{target}:")),
                    "{path}: make {target}"
                );
            }
        }
    }
}
