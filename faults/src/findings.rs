//! What a campaign found: violations by kind, with examples in words, and figures of what it did.

use std::collections::BTreeMap;

use rialto_loadgen::checker::{EXAMPLES_MAX, Verdict};
use serde::Serialize;

/// Violations, counted by kind. None means that the campaign passed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// How many of each kind.
    pub violations: BTreeMap<String, u64>,
    /// The first ones in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// Counts one violation.
    pub fn add(&mut self, kind: &str, words: impl Into<String>) {
        self.count(kind, 1, words);
    }

    /// Counts several of a kind.
    pub fn count(&mut self, kind: &str, count: u64, words: impl Into<String>) {
        *self.violations.entry(kind.to_owned()).or_default() += count;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{kind}: {}", words.into()));
        }
    }

    /// Adds what the judge of the readers found.
    pub fn add_verdict(&mut self, verdict: &Verdict) {
        for (kind, count) in verdict.violations.named() {
            if count > 0 {
                *self.violations.entry(kind.to_owned()).or_default() += count;
            }
        }
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples
            .extend(verdict.examples.iter().take(room).cloned());
    }

    /// The same with examples that say where it was.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        for example in &mut self.examples {
            *example = format!("{place}: {example}");
        }
        self
    }

    /// Adds those of another part.
    pub fn merge(&mut self, other: Self) {
        for (kind, count) in other.violations {
            *self.violations.entry(kind).or_default() += count;
        }
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// How many of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.violations.values().sum()
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Figures of what was done, by name.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures(pub BTreeMap<String, u64>);

impl Figures {
    /// Adds to one.
    pub fn add(&mut self, name: &str, count: u64) {
        *self.0.entry(name.to_owned()).or_default() += count;
    }

    /// Raises one to at least this.
    pub fn at_least(&mut self, name: &str, value: u64) {
        let figure = self.0.entry(name.to_owned()).or_default();
        *figure = (*figure).max(value);
    }

    /// One of them; 0 when it was never touched.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Adds those of another part.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.add(name, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_when_examples_are_full() {
        let mut findings = Findings::default();
        for number in 0..EXAMPLES_MAX + 5 {
            findings.add("lost", number.to_string());
        }
        assert_eq!(findings.total(), EXAMPLES_MAX as u64 + 5);
        assert_eq!(findings.examples.len(), EXAMPLES_MAX);
        let mut all = Findings::default();
        assert!(all.is_clean());
        all.merge(findings);
        assert!(!all.is_clean());
    }
}
