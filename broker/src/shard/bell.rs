//! Waking a task of the same thread, at most once a turn.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Waker},
};

/// Rung by anybody on the thread, heard by one task.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    /// Has the task polled, unless it is going to be anyway.
    pub(crate) fn ring(&self) {
        if !self.rung.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Called by the task at the beginning of each poll: what rings from now on leads to another.
    pub(crate) fn listen(&self, cx: &Context<'_>) {
        self.rung.set(false);
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }
}
