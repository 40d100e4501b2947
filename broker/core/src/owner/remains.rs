//! Members of conversations that have left memory. One may have had hundreds of thousands of them: they are freed some at a time,
//! so that nobody waits for it.

use super::conversation::Members;

/// Members that are freed at once: some 0.3 ms.
pub(super) const FREED_AT_ONCE: usize = 4_096;

/// Those that are not freed yet.
#[derive(Debug, Default)]
pub(super) struct Remains(Vec<Members>);

impl Remains {
    /// Takes members in that nobody needs any more; a few are freed at once.
    pub(super) fn add(&mut self, members: Members) {
        if members.len() > FREED_AT_ONCE {
            self.0.push(members);
        }
    }

    /// Frees the next of them.
    pub(super) fn free_some(&mut self) {
        let Some(members) = self.0.last_mut() else {
            return;
        };
        let freed = members.extract_if(|_, _| true).take(FREED_AT_ONCE).count();
        if freed < FREED_AT_ONCE {
            self.0.pop();
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Members::len).sum()
    }
}
