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
        if self.0 == ACCEPTED_AT_ONCE {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}
