//! Documentation: parts that are made from code, and the paths that a page names.

/// The lines between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
#[must_use]
pub fn generated<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let (begin, end) = marks(name);
    let after = page.split_once(&begin)?.1;
    after.split_once(&end).map(|(part, _)| part)
}

/// The page with that part replaced.
#[must_use]
pub fn with_generated(page: &str, name: &str, part: &str) -> Option<String> {
    let (begin, end) = marks(name);
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{part}{end}{after}"))
}

fn marks(name: &str) -> (String, String) {
    (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->"),
    )
}

/// Paths that a page names: targets of links that lead to files, and words in backquotes that look like paths of the
/// repository (with a `/`, and no blank or wildcard).
#[must_use]
pub fn paths(page: &str) -> Vec<String> {
    let links = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let links = links
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .map(|link| link.split('#').next().unwrap_or(link));
    let quoted = page.split('`').skip(1).step_by(2);
    let odd = |letter: char| letter.is_whitespace() || "*$<>{}()=,;:\"'|&?%…@".contains(letter);
    let quoted = quoted.filter(|word| {
        word.contains('/') && !word.starts_with(['/', '-', '~']) && !word.contains(odd)
    });
    links
        .chain(quoted)
        .map(|path| path.trim_end_matches('/').to_owned())
        .filter(|path| !path.is_empty())
        .collect()
}

/// Rows of tables that have more or fewer cells than their head: the number of the line, from 1 on, and the line.
#[must_use]
pub fn uneven_rows(page: &str) -> Vec<(usize, &str)> {
    let mut uneven = Vec::new();
    let mut head = None;
    let mut is_code = false;
    for (number, line) in (1..).zip(page.lines()) {
        is_code ^= line.starts_with("```");
        if is_code || !line.starts_with('|') {
            head = None;
            continue;
        }
        let cells = line.replace(r"\|", "").matches('|').count();
        if *head.get_or_insert(cells) != cells {
            uneven.push((number, line));
        }
    }
    uneven
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_part_is_found_and_replaced() {
        let page = "a\n<!-- keys: begin -->\nold\n<!-- keys: end -->\nb\n";
        assert_eq!(generated(page, "keys"), Some("old\n"));
        assert_eq!(
            with_generated(page, "keys", "new\n").unwrap(),
            page.replace("old", "new")
        );
        assert_eq!(generated(page, "other"), None);
    }

    #[test]
    fn paths_are_told_from_commands_and_addresses() {
        let page = "see [x](docs/A.md#part), [y](https://example.org), `broker/core/`, `make run`, `/metrics`, `a/*.rs`, `tcp://a/b`";
        assert_eq!(paths(page), ["docs/A.md", "broker/core"]);
    }

    #[test]
    fn a_row_of_another_table_is_told_from_those_beside_it() {
        let page = "| a | b |\n| --- | --- |\n| 1 | 2 |\n| x | y | z |\n\n| c |\n| --- |\n| a \\| b |\n```\n| 1 |\n| 1 | 2 |\n```\n";
        assert_eq!(uneven_rows(page), [(4, "| x | y | z |")]);
    }
}
