//! A value that one thread hands to a future that waits elsewhere: what reads and appends resolve by. Free of any runtime.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

enum State<T> {
    Waiting(Option<Waker>),
    Ready(T),
    Gone,
}

type Slot<T> = Arc<Mutex<State<T>>>;

/// The side that knows the value some day. Dropped without it, the promise yields `None`.
pub(crate) struct Resolver<T>(Option<Slot<T>>);

/// The side that waits.
pub(crate) struct Promise<T>(Slot<T>);

/// The two sides of one value.
pub(crate) fn promise<T>() -> (Resolver<T>, Promise<T>) {
    let slot = Arc::new(Mutex::new(State::Waiting(None)));
    (Resolver(Some(Arc::clone(&slot))), Promise(slot))
}

fn lock<T>(slot: &Slot<T>) -> MutexGuard<'_, State<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settle<T>(slot: &Slot<T>, state: State<T>) {
    let before = std::mem::replace(&mut *lock(slot), state);
    if let State::Waiting(Some(waker)) = before {
        waker.wake();
    }
}

impl<T> Resolver<T> {
    /// Hands the value over and wakes who waits.
    pub(crate) fn resolve(mut self, value: T) {
        if let Some(slot) = self.0.take() {
            settle(&slot, State::Ready(value));
        }
    }
}

impl<T> Drop for Resolver<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            settle(&slot, State::Gone);
        }
    }
}

impl<T> Future for Promise<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Gone) {
            State::Ready(value) => Poll::Ready(Some(value)),
            State::Gone => Poll::Ready(None),
            State::Waiting(_) => {
                *state = State::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future of this crate to its end on the calling thread: for operator commands and tests, never on a shard.
pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_arrives_from_another_thread() {
        let (resolver, promise) = promise();
        let thread = std::thread::spawn(move || resolver.resolve(7));
        assert_eq!(wait(promise), Some(7));
        thread.join().unwrap();
    }

    #[test]
    fn a_dropped_resolver_ends_the_waiting() {
        let (resolver, promise) = promise::<u8>();
        let thread = std::thread::spawn(move || drop(resolver));
        assert_eq!(wait(promise), None);
        thread.join().unwrap();
    }
}
