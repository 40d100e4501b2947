//! What a Rust file uses: paths of `use` declarations with their braces multiplied out, and paths written in full.

/// Every path that the code names, such as `std::fs::File`. `code` is free of comments and literals.
#[must_use]
pub fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for declaration in declarations(code) {
        expand("", declaration, &mut paths);
    }
    let separators = |letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':');
    paths.extend(
        code.split(separators)
            .filter(|word| word.contains("::"))
            .map(|word| word.trim_matches(':').to_owned()),
    );
    paths
}

/// Whether a path is the forbidden one, or lies in it.
#[must_use]
pub fn lies_in(path: &str, forbidden: &str) -> bool {
    path.strip_prefix(forbidden)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What stands between each `use` and its semicolon.
fn declarations(code: &str) -> impl Iterator<Item = &str> {
    let starts = code.match_indices("use ").filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        before.is_none_or(char::is_whitespace)
    });
    starts.filter_map(|(at, word)| code[at + word.len()..].split(';').next())
}

fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split_whitespace().next().unwrap_or_default();
        let path = if name == "self" {
            prefix.trim_end_matches("::").to_owned()
        } else {
            format!("{prefix}{name}")
        };
        paths.push(path);
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    for branch in branches(group.trim_end().strip_suffix('}').unwrap_or(group)) {
        expand(&prefix, branch, paths);
    }
}

/// Parts between commas that stand in no inner braces.
fn branches(group: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_multiplied_out() {
        let code = "use std::{\n    fs::{self, File},\n    time::Instant as Moment,\n};\nfn f() { std::thread::spawn(); }";
        let paths = paths(code);
        for expected in [
            "std::fs",
            "std::fs::File",
            "std::time::Instant",
            "std::thread::spawn",
        ] {
            assert!(
                paths.iter().any(|path| path == expected),
                "{expected}: {paths:?}"
            );
        }
    }

    #[test]
    fn a_path_lies_in_its_module_and_not_in_one_with_a_longer_name() {
        assert!(lies_in("std::fs::File", "std::fs") && lies_in("tokio", "tokio"));
        assert!(!lies_in("std::fsync", "std::fs"));
    }
}
