//! A Rust file, seen without its comments, or without its tests. Good enough for rustfmt's layout; not a parser.

/// Where the unit tests of a file begin: everything from here on is theirs.
const TESTS_BEGIN: &str = "#[cfg(test)]\nmod tests";

/// What stands before the unit tests.
#[must_use]
pub fn before_tests(text: &str) -> &str {
    let sub = text
        .find(TESTS_BEGIN)
        .or_else(|| text.find("#[cfg(test)]\npub(crate) mod tests"));
    sub.map_or(text, |end| &text[..end])
}

/// Whether the whole file is for tests: `tests.rs`, and whatever lies in `tests/`, `benches/` or `fuzz/`.
#[must_use]
pub fn is_for_tests(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let name = parts.next().unwrap_or_default();
    name == "tests.rs" || parts.any(|folder| ["tests", "benches", "fuzz"].contains(&folder))
}

/// Whether the code contains the word, and not only a longer one that contains it.
#[must_use]
pub fn has_word(code: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(part) && word.starts_with(part);
        let after =
            code[at + word.len()..].chars().next().is_some_and(part) && word.ends_with(part);
        !before && !after
    })
}

/// The text with comments and the content of literals blanked out; every line keeps its number.
#[must_use]
pub fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_bytes(rest);
        if skipped > 0 {
            out.extend(rest[..skipped].chars().filter(|letter| *letter == '\n'));
            out.push(' ');
            rest = &rest[skipped..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// How many bytes of a comment or literal the text begins with; 0: it begins with neither.
fn skipped_bytes(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if text.starts_with('"') {
        return literal_bytes(text, '"');
    }
    if let Some(hashes) = text
        .strip_prefix('r')
        .map(|raw| raw.chars().take_while(|letter| *letter == '#').count())
    {
        let open = 1 + hashes;
        if text[open..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            return text[open + 1..]
                .find(&close)
                .map_or(text.len(), |end| open + 1 + end + close.len());
        }
    }
    // A character, not a lifetime: 'x', '\n', '\u{7f}'.
    if let Some(inside) = text.strip_prefix('\'') {
        let mut letters = inside.chars();
        return match (letters.next(), letters.next()) {
            (Some('\\'), _) => literal_bytes(text, '\''),
            (Some(letter), Some('\'')) => 2 + letter.len_utf8(),
            _ => 0,
        };
    }
    0
}

/// Bytes up to and including the closing quote.
fn literal_bytes(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_vanish_and_code_stays() {
        let text = "//! tokio\nlet a = \"std::fs \\\" //\"; /* x\ny */ b('\"', 'a', &'a str, r#\"un\"safe\"#)";
        let code = code_only(text);
        for gone in ["tokio", "std::fs", "x", "un"] {
            assert!(!code.contains(gone), "{gone}: {code}");
        }
        assert!(code.contains("let a =") && code.contains("&'a str") && code.contains("b("));
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("x.await?", ".await") && has_word("a HashMap::new()", "HashMap::new"));
        assert!(
            !has_word("x.awaits()", ".await")
                && !has_word("AHashMap::new()", "HashMap::new")
                && !has_word("HashMap::new_in", "HashMap::new")
        );
    }

    #[test]
    fn unit_tests_are_cut_off_and_test_files_known() {
        assert_eq!(
            before_tests("fn a() {}\n#[cfg(test)]\nmod tests {\n}\n"),
            "fn a() {}\n"
        );
        assert!(
            is_for_tests("a/src/b/tests.rs")
                && is_for_tests("a/tests/b.rs")
                && !is_for_tests("a/src/contests.rs")
        );
    }
}
