//! Admission nearly in the order of arrival, so that not more callers compute at once than there
//! are threads.
//!
//! Who leaves gives the place to a caller that last ran on the same processor, where one is among
//! the first: the system wakes a thread where it ran, and would let it wait there behind another
//! caller while the processor of the one who left has nothing to do.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Thread;

/// A number of places.
pub(super) struct Gate {
    places: usize,
    /// Places taken. Changed under the lock of `waiting` only.
    taken: AtomicUsize,
    waiting: Mutex<Queue>,
}

/// A caller in the queue.
struct Waiter {
    admitted: AtomicBool,
    thread: Thread,
    /// Where it ran when it came.
    processor: Option<usize>,
}

/// Callers in the order of arrival.
#[derive(Default)]
struct Queue {
    waiters: VecDeque<Arc<Waiter>>,
    /// How often the first one was passed over.
    passed: usize,
}

impl Queue {
    /// The one to be admitted when a place on `processor` is free: of the first few, one that ran
    /// there, but the first one when it was passed over as many times.
    fn next(&mut self, processor: Option<usize>, few: usize) -> Option<Arc<Waiter>> {
        let near = || {
            let mut first = self.waiters.iter().take(few + 1);
            first.position(|waiter| waiter.processor == processor)
        };
        let index = if self.passed < few { near().unwrap_or(0) } else { 0 };
        self.passed = if index == 0 { 0 } else { self.passed + 1 };
        self.waiters.remove(index)
    }
}

/// The processor that this thread runs on, where the system tells.
#[cfg(target_os = "linux")]
fn processor() -> Option<usize> {
    // SAFETY: it takes nothing and changes nothing.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

#[cfg(not(target_os = "linux"))]
fn processor() -> Option<usize> {
    None
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
        let (thread, processor) = (std::thread::current(), processor());
        let waiter = Arc::new(Waiter { admitted: AtomicBool::new(false), thread, processor });
        waiting.waiters.push_back(Arc::clone(&waiter));
        drop(waiting);
        while !waiter.admitted.load(Ordering::Acquire) {
            std::thread::park();
        }
        Place(self)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        match waiting.next(processor(), self.0.places) {
            // The place goes to that one.
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
    fn those_of_the_same_processor_go_first_but_nobody_is_passed_over_for_long() {
        let mut queue = Queue::default();
        let waiter = |processor| {
            let thread = std::thread::current();
            Arc::new(Waiter { admitted: AtomicBool::new(false), thread, processor })
        };
        queue.waiters.extend([1, 2, 2, 2, 2, 1].map(|processor| waiter(Some(processor))));
        let mut next = |processor| queue.next(Some(processor), 2).unwrap().processor.unwrap();
        assert_eq!([next(2), next(2), next(2), next(2), next(3), next(2)], [2, 2, 1, 2, 2, 1]);
        assert!(queue.next(None, 2).is_none());
    }

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
