//! Steps that threads walk through side by side, each with a share of every step. Behind some steps
//! they meet: nobody goes on before all shares are that far.
//!
//! Who is done with its share waits for the others on a cache line that each of them writes once a
//! step. A share that nobody works on, because its thread sleeps, was interrupted or left, is taken
//! over by one that waits, step by step.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::team::Apart;

/// Looks at a share that is not begun before it is taken over, where its thread is on the way.
const PATIENCE: u32 = 64;

/// Looks before the processor is offered to others.
const LONG: u32 = 20_000;

/// A walk of several threads.
pub(super) struct Walk {
    /// For each step, whether threads meet behind it.
    meets: Vec<bool>,
    shares: Vec<Share>,
    /// A thread panicked: its share will never be done.
    broken: AtomicBool,
}

/// How far a share is. What is written once a step by one thread and read by all others lies apart
/// from what only its thread looks at, as a rule.
#[derive(Default)]
struct Share {
    /// Steps that were begun.
    begun: Apart<AtomicUsize>,
    seen: Apart<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Steps that are done.
    done: AtomicUsize,
    /// Whether its thread walks.
    present: AtomicBool,
}

impl Share {
    /// Begins a step, unless somebody has.
    fn begin(&self, step: usize) -> bool {
        let exchange = || {
            self.begun.compare_exchange(step, step + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        // To look first costs less than to write where another thread works.
        self.begun.load(Ordering::Relaxed) == step && exchange()
    }
}

/// Marks a share as left, and the walk as broken where its thread panics.
struct Leave<'a>(&'a Walk, usize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let Leave(walk, share) = *self;
        if std::thread::panicking() {
            walk.broken.store(true, Ordering::Release);
        }
        walk.shares[share].seen.present.store(false, Ordering::Release);
    }
}

impl Walk {
    /// A walk of steps of `shares` shares each; `meets` says behind which of them threads meet, as
    /// they do behind the last one.
    pub(super) fn new(mut meets: Vec<bool>, shares: usize) -> Walk {
        meets.last_mut().into_iter().for_each(|last| *last = true);
        let shares = (0..shares).map(|_| Share::default()).collect();
        Walk { meets, shares, broken: AtomicBool::new(false) }
    }

    /// Walks with the others, as the thread of share `own`: calls `body` with steps and shares.
    /// Share 0 is the caller's, which calls `done` after each step, where it need not wait for other
    /// shares; the others leave when `stays` says no.
    pub(super) fn join(
        &self,
        own: usize,
        body: &dyn Fn(usize, usize),
        done: &dyn Fn(usize),
        stays: &dyn Fn() -> bool,
    ) {
        let _leave = Leave(self, own);
        self.shares[own].seen.present.store(true, Ordering::Release);
        for (step, &meets) in self.meets.iter().enumerate() {
            if !stays() {
                return;
            }
            self.run(step, own, body);
            let wanted = if meets { 0..self.shares.len() } else { own..own + 1 };
            self.wait(step, wanted, body);
            if self.broken.load(Ordering::Relaxed) {
                return;
            }
            if own == 0 {
                done(step);
            }
        }
    }

    /// Runs a share of a step, unless somebody has begun it.
    fn run(&self, step: usize, share: usize, body: &dyn Fn(usize, usize)) {
        let state = &self.shares[share];
        if state.begin(step) {
            body(step, share);
            state.seen.done.store(step + 1, Ordering::Release);
        }
    }

    /// Waits until some shares have done a step and all before it.
    fn wait(&self, step: usize, shares: Range<usize>, body: &dyn Fn(usize, usize)) {
        for share in shares {
            let (state, mut looks) = (&self.shares[share], 0u32);
            loop {
                // The next step of the share: it has done all before.
                let next = state.seen.done.load(Ordering::Acquire);
                if next > step {
                    break;
                }
                looks = looks.saturating_add(1);
                if looks > PATIENCE || !state.seen.present.load(Ordering::Relaxed) {
                    self.run(next, share, body);
                }
                if self.broken.load(Ordering::Acquire) {
                    return;
                }
                // A thread without a processor needs ours.
                if looks > LONG { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pool;
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Steps that go from one half of the items to the other and back. Each item comes from one that
    /// another thread's share wrote in the step before.
    fn sums(pool: &Pool, steps: usize) -> usize {
        const HALF: usize = 48;
        let items: Vec<AtomicUsize> = (0..2 * HALF).map(AtomicUsize::new).collect();
        let last = AtomicUsize::new(0);
        let step = |step: usize, pool: &Pool| {
            let (from, to) = if step.is_multiple_of(2) { (0, HALF) } else { (HALF, 0) };
            pool.for_each_range(HALF, 1, |range| {
                for i in range {
                    let item = items[from + HALF - 1 - i].load(Ordering::Relaxed);
                    items[to + i].store(item + 1, Ordering::Relaxed);
                }
            });
        };
        let meets = |_| vec![true; steps];
        pool.walk(steps, meets, step, |step| {
            assert_eq!(last.fetch_add(1, Ordering::Relaxed), step)
        });
        assert_eq!(last.into_inner(), steps);
        items.into_iter().map(AtomicUsize::into_inner).sum()
    }

    #[test]
    fn a_step_sees_all_of_the_step_before() {
        let expected = sums(&Pool::single(), 100);
        for threads in [2, 3, 5] {
            let pool = Pool::new(threads);
            for _ in 0..50 {
                assert_eq!(sums(&pool, 100), expected);
                assert_eq!(pool.install(|| sums(&pool, 100)), expected);
            }
        }
    }

    #[test]
    fn a_share_sees_what_it_did_itself_where_threads_do_not_meet() {
        const STEPS: usize = 100;
        for threads in [2, 3, 5] {
            let pool = Pool::new(threads);
            for _ in 0..50 {
                let items: Vec<AtomicUsize> = (0..64).map(|_| AtomicUsize::new(0)).collect();
                let step = |step: usize, pool: &Pool| {
                    pool.for_each_range(items.len(), 1, |range| {
                        for item in &items[range] {
                            // Each step exactly once, in order, whoever does it.
                            let last = item.load(Ordering::Relaxed);
                            assert_eq!(last, step);
                            item.store(last + 1, Ordering::Relaxed);
                        }
                    });
                };
                let meets = |_| (0..STEPS).map(|step| step % 7 == 3).collect();
                pool.walk(STEPS, meets, step, |_| ());
                assert!(items.iter().all(|item| item.load(Ordering::Relaxed) == STEPS));
            }
        }
    }

    #[test]
    fn callers_at_once_walk_alone() {
        let (pool, expected) = (Pool::new(3), sums(&Pool::single(), 100));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert_eq!(pool.install(|| sums(&pool, 100)), expected);
                    }
                });
            }
        });
    }

    #[test]
    fn shares_without_a_thread_are_taken_over() {
        let walk = Walk::new(vec![false; 3], 4);
        let seen: Vec<AtomicUsize> = (0..12).map(|_| AtomicUsize::new(0)).collect();
        let body =
            |step: usize, share: usize| _ = seen[step * 4 + share].fetch_add(1, Ordering::Relaxed);
        walk.join(0, &body, &|_| (), &|| true);
        // Who comes late finds nothing to do, and who leaves misses nothing.
        walk.join(2, &body, &|_| (), &|| true);
        walk.join(3, &body, &|_| (), &|| false);
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_panic_in_any_share_reaches_the_caller() {
        let pool = Pool::new(3);
        for bad in [0, 40, 99] {
            let step = |_: usize, pool: &Pool| {
                pool.for_each_range(100, 1, |range| assert!(!range.contains(&bad)));
            };
            let walk = || pool.walk(4, |_| vec![true; 4], step, |_| ());
            assert!(catch_unwind(AssertUnwindSafe(walk)).is_err());
            assert_eq!(sums(&pool, 10), sums(&Pool::single(), 10));
        }
    }
}
