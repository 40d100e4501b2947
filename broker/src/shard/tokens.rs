//! Tokens that wait to be verified, oldest first. The core asks for one of a connection at a time; those of connections that are
//! gone meanwhile take nobody's time.

use std::collections::VecDeque;

use rialto_core::io::ConnId;

/// So many may wait before it is looked whose connections are gone.
const UNSEARCHED_MAX: usize = 1_024;

/// See the module.
#[derive(Default)]
pub(crate) struct Tokens {
    waiting: VecDeque<(ConnId, String)>,
}

impl Tokens {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes one in, of `open` connections that there are. Once more than half of those that wait must be of connections that
    /// are gone, these are dropped: what is searched each time has come since the last time.
    pub(crate) fn push(
        &mut self,
        conn: ConnId,
        token: String,
        open: usize,
        is_wanted: impl Fn(ConnId) -> bool,
    ) {
        if self.waiting.len() >= UNSEARCHED_MAX + 2 * open {
            self.waiting.retain(|(conn, _)| is_wanted(*conn));
        }
        self.waiting.push_back((conn, token));
    }

    /// The next one of a connection that still wants to know.
    pub(crate) fn next(&mut self, is_wanted: impl Fn(ConnId) -> bool) -> Option<(ConnId, String)> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|(conn, _)| is_wanted(*conn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32) -> ConnId {
        ConnId {
            index,
            generation: 0,
        }
    }

    #[test]
    fn tokens_of_those_who_are_gone_are_passed_over() {
        let mut tokens = Tokens::default();
        for index in 0..100 {
            tokens.push(conn(index), String::new(), 100, |_| true);
        }
        let stays = |conn: ConnId| conn.index % 30 == 29;
        let next = std::iter::from_fn(|| tokens.next(stays));
        assert_eq!(
            next.map(|(conn, _)| conn.index).collect::<Vec<_>>(),
            [29, 59, 89]
        );
        assert!(tokens.is_empty());
    }

    #[test]
    fn those_who_come_and_go_leave_no_more_than_a_bounded_number() {
        let mut tokens = Tokens::default();
        tokens.push(conn(0), "stays".to_owned(), 1, |_| true);
        for index in 1..100_000 {
            tokens.push(conn(index), String::new(), 2, |conn| conn.index == 0);
            assert!(tokens.waiting.len() <= UNSEARCHED_MAX + 5);
        }
        assert_eq!(tokens.next(|_| true), Some((conn(0), "stays".to_owned())));
    }
}
