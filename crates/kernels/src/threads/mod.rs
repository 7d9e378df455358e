//! The threads that all kernels share, and the ways to split work over them.
//!
//! Splitting never changes a result: each task computes its own outputs completely.

mod gate;
mod team;
mod walk;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use team::Team;
use walk::Walk;

/// A fixed number of threads, of which the caller of a loop is one. With one thread everything
/// runs on the caller, without overhead. Loops inside of a loop run on the thread they are in.
pub struct Pool {
    threads: usize,
    crew: Crew,
}

/// Who runs the loops of a pool.
enum Crew {
    /// The caller.
    Caller,
    /// The caller and threads that wait for loops.
    Team(Team),
    /// The caller, but this share of them only: other threads run the other ones.
    Share(usize),
}

impl Pool {
    /// A pool of `threads` threads; 0 means one per core that this process may use.
    ///
    /// Where the system refuses to start them, everything runs on the caller.
    pub fn new(threads: usize) -> Pool {
        let threads = if threads == 0 { all_cores() } else { threads };
        if threads == 1 {
            return Pool::single();
        }
        match Team::new(threads) {
            Ok(team) => Pool { threads, crew: Crew::Team(team) },
            Err(_) => Pool::single(),
        }
    }

    /// The calling thread only.
    pub fn single() -> Pool {
        Pool { threads: 1, crew: Crew::Caller }
    }

    /// How many threads work at once.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `body`, a whole inference for example, as one of at most [`Pool::threads`] callers at
    /// a time. Others wait, and come in nearly as they arrived. A caller alone shares its loops with
    /// all threads; where there are many, each computes on its own thread.
    pub fn install<R>(&self, body: impl FnOnce() -> R) -> R {
        match &self.crew {
            Crew::Team(team) => team.admit(body),
            Crew::Caller | Crew::Share(_) => body(),
        }
    }

    /// Calls `body` for each step below `steps`, one after another, on all threads at once: each
    /// gets a pool that runs its share of every loop. No loop is opened or closed: threads wait for
    /// each other behind those steps that `meets` names, given how many shares there are. `done` is
    /// called on the caller's thread after its share of each step.
    ///
    /// A loop of such a step is not complete when it returns, only when threads have met: loops
    /// between two meetings must not depend on other shares.
    pub(crate) fn walk(
        &self,
        steps: usize,
        meets: impl FnOnce(usize) -> Vec<bool>,
        body: impl Fn(usize, &Pool) + Sync,
        done: impl Fn(usize) + Sync,
    ) {
        let (team, shares) = match &self.crew {
            Crew::Team(team) => (team, 1 + team.seats(self.threads)),
            Crew::Caller | Crew::Share(_) => return alone(steps, body, done),
        };
        if shares == 1 {
            return alone(steps, body, done);
        }
        let of_share =
            |step, share| body(step, &Pool { threads: shares, crew: Crew::Share(share) });
        let walk = Walk::new(meets(shares), shares);
        team.run(shares, &|share| {
            let stays = || team.has_seat(share);
            walk.join(share, &of_share, &done, &stays);
        });
    }

    /// The part of `items` that is this share's, where the pool is one of several.
    pub(crate) fn part(&self, items: usize) -> Option<Range<usize>> {
        match self.crew {
            Crew::Share(share) => Some(share_of(items, share, self.threads)),
            Crew::Caller | Crew::Team(_) => None,
        }
    }

    /// Calls `body` with consecutive ranges of at most `grain` items that cover `0..items`, as equal
    /// as can be, so many that each thread gets as many.
    pub fn for_each_range(&self, items: usize, grain: usize, body: impl Fn(Range<usize>) + Sync) {
        if grain <= 1 {
            return self.for_each(items, |item| body(item..item + 1));
        }
        let least = items.div_ceil(grain);
        let tasks = match least {
            0 | 1 => least,
            _ => least.next_multiple_of(self.threads).min(items),
        };
        // The product of the two would be too large for some.
        let (each, rest) = (items / tasks.max(1), items % tasks.max(1));
        let start = |task: usize| task * each + task * rest / tasks;
        self.for_each(tasks, |task| body(start(task)..start(task + 1)));
    }

    /// As [`Pool::for_each_range`], for items that wait for the memory, which serves threads
    /// unevenly: the ranges of each thread begin large and end with single items, so that threads
    /// end together whoever was slower. Up to `least` items are one range.
    pub fn for_each_taper(&self, items: usize, least: usize, body: impl Fn(Range<usize>) + Sync) {
        if self.threads == 1 || items <= least {
            return if items > 0 {
                body(0..items)
            };
        }
        let ends = taper(items.div_ceil(self.threads));
        // The product of the two would be too large for some.
        let (each, rest) = (items / self.threads, items % self.threads);
        let start = |share: usize| share * each + share * rest / self.threads;
        self.for_each(self.threads * ends.len(), |turn| {
            let (share, piece) = (turn / ends.len(), turn % ends.len());
            let (first, behind) = (start(share), start(share + 1));
            let begin = if piece == 0 { first } else { behind.min(first + ends[piece - 1]) };
            let range = begin..behind.min(first + ends[piece]);
            if !range.is_empty() {
                body(range);
            }
        });
    }

    /// Calls `body(i, chunk)` with the `i`-th chunk of `chunk_len` elements of `out`; the last
    /// chunk may be shorter.
    pub fn for_each_chunk<T: Send>(
        &self,
        out: &mut [T],
        chunk_len: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (len, chunk_len) = (out.len(), chunk_len.max(1));
        let out = SharedMut::new(out);
        self.for_each(len.div_ceil(chunk_len), |index| {
            let start = index * chunk_len;
            // SAFETY: ranges do not overlap.
            body(index, unsafe { out.range(start..len.min(start + chunk_len)) });
        });
    }

    /// Calls `body` with each number below `tasks`.
    fn for_each(&self, tasks: usize, body: impl Fn(usize) + Sync) {
        match &self.crew {
            Crew::Team(team) if tasks > 1 => team.run(tasks, &body),
            Crew::Share(share) => share_of(tasks, *share, self.threads).for_each(body),
            _ => (0..tasks).for_each(body),
        }
    }

    /// A grain for [`Pool::for_each_range`]: a few tasks per thread, and no task below `least`
    /// items, so that small loops stay on one thread.
    pub fn grain(&self, items: usize, least: usize) -> usize {
        let tasks = if self.threads == 1 { 1 } else { self.threads * 4 };
        items.div_ceil(tasks).max(least).max(1)
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::new(0)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish()
    }
}

/// All steps on the caller.
fn alone(steps: usize, body: impl Fn(usize, &Pool), done: impl Fn(usize)) {
    let pool = Pool::single();
    for step in 0..steps {
        body(step, &pool);
        done(step);
    }
}

/// The turns of share `share` of `shares`: the same part of every loop.
pub(crate) fn share_of(turns: usize, share: usize, shares: usize) -> Range<usize> {
    share * turns / shares..(share + 1) * turns / shares
}

/// Where the ranges of a share end: each is a part of what is left.
fn taper(items: usize) -> Vec<usize> {
    const PART: usize = 4;
    let next = |&done: &usize| (done < items).then(|| done + (items - done).div_ceil(PART));
    std::iter::successors(next(&0), next).collect()
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A mutable slice whose disjoint parts are written by several tasks at once, where the parts
/// are not contiguous chunks (tiles of a matrix).
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer is used only through `range`, whose callers promise disjoint parts; that is
// what sending `&mut [T]` parts to other threads needs.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> SharedMut<'a, T> {
        SharedMut { data: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    /// Where the part `range` of the slice begins.
    #[inline(always)]
    pub(crate) fn pointer(&self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.len);
        self.data.wrapping_add(range.start)
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The part `range` of the slice, to read.
    ///
    /// # Safety
    /// Nobody writes to the part while it is alive.
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the check above; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data.add(range.start), range.len()) }
    }

    /// The part `range` of the slice, to be shared as it is.
    pub(crate) fn part(&self, range: Range<usize>) -> SharedMut<'a, T> {
        let (len, data) = (range.len(), self.pointer(range));
        SharedMut { data, len, lifetime: PhantomData }
    }

    /// Where element `index` lies, if there is one.
    #[inline(always)]
    pub(crate) fn place(&self, index: usize) -> *const T {
        self.data.wrapping_add(index)
    }

    /// The part `range` of the slice.
    ///
    /// # Safety
    /// No two parts that are alive at the same time may overlap.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the check above; not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn ranges_cover_each_item_once() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for (items, grain) in [(0, 1), (1, 4), (17, 4), (16, 4), (5, 0), (14, 2)] {
                let seen: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each_range(items, grain, |range| {
                    assert!(range.len() <= grain.max(1));
                    range.for_each(|i| _ = seen[i].fetch_add(1, Ordering::Relaxed));
                });
                assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn tapering_ranges_cover_each_item_once() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            for (items, least) in [(0, 1), (1, 0), (3, 1), (17, 4), (100, 8), (7, 7), (128, 0)] {
                let seen: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each_taper(items, least, |range| {
                    assert!(range.len() == items || items > least);
                    range.for_each(|i| _ = seen[i].fetch_add(1, Ordering::Relaxed));
                });
                assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
        assert_eq!(taper(20), [5, 9, 12, 14, 16, 17, 18, 19, 20]);
    }

    #[test]
    fn threads_get_equal_shares() {
        for items in [14, 28, 100, 1001] {
            let pool = Pool::new(2);
            let first = AtomicUsize::new(0);
            let half = items / 2;
            pool.for_each_range(items, pool.grain(items, 1), |range| {
                assert!(range.end <= half || range.start >= half, "{range:?} of {items}");
                first.fetch_add(range.len() * usize::from(range.end <= half), Ordering::Relaxed);
            });
            assert_eq!(first.into_inner(), half);
        }
    }

    #[test]
    fn chunks_are_numbered_in_order() {
        for threads in [1, 2, 3] {
            let mut out = vec![0; 10];
            Pool::new(threads).for_each_chunk(&mut out, 4, |i, chunk| chunk.fill(i));
            assert_eq!(out, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
        }
    }

    #[test]
    fn grain_keeps_small_loops_whole() {
        let pool = Pool::new(2);
        assert_eq!(pool.grain(100, 1000), 1000);
        assert_eq!(pool.grain(8000, 100), 1000);
        assert_eq!(Pool::single().grain(8000, 100), 8000);
    }
}
