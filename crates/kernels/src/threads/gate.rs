//! Admission in the order of arrival, so that not more callers compute at once than there are
//! threads, and nobody waits for longer than those before.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Thread;

/// A number of places.
pub(super) struct Gate {
    places: usize,
    /// Places taken. Changed under the lock of `waiting` only.
    taken: AtomicUsize,
    waiting: Mutex<VecDeque<Arc<Waiter>>>,
}

/// A caller in the queue.
struct Waiter {
    admitted: AtomicBool,
    thread: Thread,
}

/// A place, given back when dropped.
pub(super) struct Place<'a>(&'a Gate);

impl Gate {
    pub(super) fn new(places: usize) -> Gate {
        Gate { places, taken: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    /// Places taken at this moment.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits for a place.
    pub(super) fn enter(&self) -> Place<'_> {
        let mut waiting = self.lock();
        if self.taken() < self.places {
            self.taken.fetch_add(1, Ordering::Relaxed);
            return Place(self);
        }
        let thread = std::thread::current();
        let waiter = Arc::new(Waiter { admitted: AtomicBool::new(false), thread });
        waiting.push_back(Arc::clone(&waiter));
        drop(waiting);
        while !waiter.admitted.load(Ordering::Acquire) {
            std::thread::park();
        }
        Place(self)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Waiter>>> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        match waiting.pop_front() {
            // The place goes to the next one.
            Some(next) => {
                drop(waiting);
                next.admitted.store(true, Ordering::Release);
                next.thread.unpark();
            }
            None => _ = self.0.taken.fetch_sub(1, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_places_are_inside() {
        let (gate, inside, most) = (Gate::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _place = gate.enter();
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(gate.taken(), 0);
    }
}
