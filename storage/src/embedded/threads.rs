//! The store's threads, as they start: the kernel shares the processors out among them and all others, and who may wait for
//! whom is for the process to say that they are part of.

/// What a thread of the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreThread {
    /// Writes and syncs the journal: every answer to a publisher waits for it.
    Journal,
    /// Keeps segments ready: the journal waits for it when it is late.
    Segments,
    /// Brings segments into the views: nobody waits for it while it does not lag.
    Views,
    /// Reads for clients.
    Reader,
}

/// Called on each thread as the first thing that it does.
pub type ThreadHook = fn(StoreThread);

/// What a new thread does first.
pub(super) fn begin(hook: Option<ThreadHook>, thread: StoreThread) {
    if let Some(hook) = hook {
        hook(thread);
    }
}
