//! The known name that somebody probably meant.

/// Most changes of one letter between a mistake and what was meant.
const DISTANCE_MAX: usize = 4;

/// Least bytes of a name that counts as meant because the other one begins with it.
const BEGINNING_MIN: usize = 8;

/// The name with the least edit distance, when that is small; a name that was only cut short or drawn out is next to it.
pub(super) fn nearest<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let (distance, name) = names
        .into_iter()
        .map(|name| (apart(wrong, name), name))
        .min()?;
    (distance <= DISTANCE_MAX.min(wrong.len() / 2)).then_some(name)
}

fn apart(wrong: &str, name: &str) -> usize {
    let begins = wrong.starts_with(name) || name.starts_with(wrong);
    if begins && wrong.len().min(name.len()) >= BEGINNING_MIN {
        1
    } else {
        distance(wrong, name)
    }
}

/// Changes from one text to the other: letters replaced, added, left out, or two neighbours exchanged (the "optimal string
/// alignment" distance).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let exchanged = if exchanged {
                    table[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                replaced
                    .min(exchanged)
                    .min(table[i - 1][j] + 1)
                    .min(table[i][j - 1] + 1)
            };
        }
    }
    table[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let names = [
            "listen.ops",
            "listen.tcp",
            "listen.tls",
            "limits.publish_per_s",
        ];
        assert_eq!(nearest("listen.tpc", names), Some("listen.tcp"));
        assert_eq!(
            nearest("limits.publish_per_second", names),
            Some("limits.publish_per_s")
        );
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
