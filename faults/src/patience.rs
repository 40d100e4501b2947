//! Waiting with an end. Only time in which this process runs counts: a machine that stands still for a while, or a debugger, is
//! no fault of the broker.

use std::time::{Duration, Instant};

use tokio::time::sleep;

/// Between two looks.
const STEP: Duration = Duration::from_millis(5);
/// What a step counts at most, however long it took.
const STEP_MAX: Duration = Duration::from_millis(50);

/// How long is still waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(Duration);

impl Patience {
    pub(crate) const fn of(most: Duration) -> Self {
        Self(most)
    }

    /// Waits a little; false: the patience is used up.
    pub(crate) async fn wait(&mut self) -> bool {
        let begun = Instant::now();
        sleep(STEP).await;
        self.0 = self.0.saturating_sub(begun.elapsed().min(STEP_MAX));
        !self.0.is_zero()
    }

    /// What comes of it, unless the patience is used up before.
    pub(crate) async fn with<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = Box::pin(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                left = self.wait() => if !left {
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_comes_is_given_up_and_what_comes_is_not() {
        let mut patience = Patience::of(Duration::from_millis(20));
        assert_eq!(patience.with(std::future::ready(7)).await, Some(7));
        assert_eq!(patience.with(std::future::pending::<()>()).await, None);
    }
}
