//! How fast connections are accepted.

/// Connections of a listener that are accepted, or refused, before everybody else has a turn.
const ACCEPTED_AT_ONCE: u32 = 8;

/// Who accepts connections lets everybody else have a turn after every few: what follows from them comes no faster then.
#[derive(Default)]
pub(super) struct Pace(u32);

impl Pace {
    /// One more was, or is about to be.
    pub(super) async fn keep(&mut self) {
        self.0 += 1;
        if self.0 >= ACCEPTED_AT_ONCE {
            self.let_others().await;
        }
    }

    /// One more was that has a handshake before it, with a key exchange and a signature of 0.3 ms and more: what they do not come to
    /// waits with the system or with quinn, where no time runs for it.
    pub(super) async fn keep_handshake(&mut self) {
        self.let_others().await;
    }

    async fn let_others(&mut self) {
        self.0 = 0;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// How many turns somebody else had while so many connections were accepted.
    async fn turns(accepted: u32, has_handshake: bool) -> u32 {
        let had = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&had);
        let other = spawn_local(async move {
            loop {
                theirs.set(theirs.get() + 1);
                yield_now().await;
            }
        });
        let mut pace = Pace::default();
        for _ in 0..accepted {
            if has_handshake {
                pace.keep_handshake().await;
            } else {
                pace.keep().await;
            }
        }
        other.abort();
        had.get()
    }

    #[tokio::test]
    async fn others_have_a_turn_after_each_handshake_that_begins_and_after_a_few_without_one() {
        LocalSet::new()
            .run_until(async {
                assert_eq!(turns(16, true).await, 16);
                assert_eq!(turns(16, false).await, 16 / ACCEPTED_AT_ONCE);
            })
            .await;
    }
}
