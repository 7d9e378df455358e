//! Threads that wait for loops, and take turns in them beside the caller.
//!
//! A loop is opened in one word; a worker joins it by one exchange. Caller and workers each begin
//! with a share of their own, the same part of every loop: so what a thread wrote in one layer, it
//! reads from its own cache in the next. Who is done goes on with the shares of the others. The
//! caller never waits for a worker that has not joined. Idle workers look at the word for a moment,
//! since the next layer follows soon, and sleep then.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::gate::Gate;
use super::share_of;

/// How long an idle worker looks for the next loop before it sleeps.
const PATIENCE: Duration = Duration::from_micros(150);

/// Looks between two looks at the clock.
const LOOKS: u32 = 64;

/// What this thread is doing for a team.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Stranger,
    /// Has a place: its loops may be shared.
    Admitted,
    /// Within a loop: loops inside run on this thread alone.
    AtWork,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Stranger) };
}

/// Runs `body` in another role.
fn act<R>(role: Role, body: impl FnOnce() -> R) -> R {
    struct Back(Role);
    impl Drop for Back {
        fn drop(&mut self) {
            ROLE.set(self.0);
        }
    }
    let _back = Back(ROLE.replace(role));
    body()
}

/// The state of the loop under way: its number, the workers that may join, those inside.
#[derive(Clone, Copy)]
struct Phase(u64);

impl Phase {
    const SEATS: u64 = 0xffff << 16;

    fn open(number: u32, seats: u16) -> Phase {
        Phase(u64::from(number) << 32 | u64::from(seats) << 16)
    }

    fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn seats(self) -> usize {
        ((self.0 & Phase::SEATS) >> 16) as usize
    }

    fn inside(self) -> u64 {
        self.0 & 0xffff
    }
}

/// The body of a loop, and among how many its turns are shared.
#[derive(Clone, Copy)]
struct Work {
    body: *const (dyn Fn(usize) + Sync),
    shares: usize,
    /// Whether no share has more than one turn.
    single: bool,
}

/// Turns that follow each other: the next one, and their end.
#[derive(Default)]
struct Share {
    next: AtomicUsize,
    end: AtomicUsize,
}

impl Share {
    /// The next turn, if there is one. To look first costs less than to write where another thread
    /// works.
    fn take(&self) -> Option<usize> {
        let end = self.end.load(Ordering::Relaxed);
        if self.next.load(Ordering::Relaxed) >= end {
            return None;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (turn < end).then_some(turn)
    }
}

/// On cache lines of its own: nobody waits for a line because its neighbour is looked at.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

type Panic = Box<dyn Any + Send>;

/// What callers and workers share.
struct Shared {
    door: Apart<Door>,
    /// That of the caller, then one per worker.
    shares: Vec<Apart<Share>>,
    busy: Apart<AtomicBool>,
    panic: Apart<Mutex<Option<Panic>>>,
    asleep: Vec<AtomicBool>,
    stop: AtomicBool,
    patience: Duration,
}

/// What those look at who wait: who sees that a loop is open, has its work as well.
#[derive(Default)]
struct Door {
    phase: AtomicU64,
    /// Written by the caller that holds `busy`, while nobody may join.
    work: UnsafeCell<Option<Work>>,
}

// SAFETY: `work` is written while `busy` is held and no worker can join, and read by workers that
// joined through `phase`, which orders both; its body is `Sync`, and outlives the loop because the
// caller waits for all who joined.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Workers, and a place at the gate for as many callers as there are threads.
pub(super) struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    gate: Gate,
}

impl Team {
    /// A team for loops on `threads` threads, one of which is the caller's.
    ///
    /// # Errors
    /// When the system refuses to start a thread.
    pub(super) fn new(threads: usize) -> std::io::Result<Team> {
        let count = threads.min(usize::from(u16::MAX)) - 1;
        let crowded = threads > super::all_cores();
        let shared = Arc::new(Shared {
            door: Apart::default(),
            shares: (0..=count).map(|_| Apart::default()).collect(),
            busy: Apart::default(),
            asleep: (0..count).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panic: Apart::default(),
            patience: if crowded { Duration::ZERO } else { PATIENCE },
        });
        let mut team =
            Team { shared, workers: Vec::with_capacity(count), gate: Gate::new(threads) };
        for index in 0..count {
            let shared = Arc::clone(&team.shared);
            let named = std::thread::Builder::new().name(format!("fewbit-{index}"));
            team.workers.push(named.spawn(move || shared.serve(index))?);
        }
        Ok(team)
    }

    /// Runs `body` when fewer than all threads have a caller; callers come in nearly as they arrive.
    pub(super) fn admit<R>(&self, body: impl FnOnce() -> R) -> R {
        if ROLE.get() != Role::Stranger {
            return body();
        }
        let _place = self.gate.enter();
        act(Role::Admitted, body)
    }

    /// Calls `body` with each number below `turns`, on the caller and on workers that are free.
    pub(super) fn run(&self, turns: usize, body: &(dyn Fn(usize) + Sync)) {
        let seats = self.seats(turns);
        if seats == 0 || self.shared.busy.swap(true, Ordering::Acquire) {
            return (0..turns).for_each(body);
        }
        self.shared.open(erase(body), turns, seats);
        self.wake(seats);
        let own = act(Role::AtWork, || catch_unwind(AssertUnwindSafe(|| self.shared.turns(0))));
        self.shared.close();
        let theirs = self.shared.panic().take();
        self.shared.busy.store(false, Ordering::Release);
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Workers that may join a loop: those that no other caller stands for.
    pub(super) fn seats(&self, turns: usize) -> usize {
        if ROLE.get() == Role::AtWork {
            return 0;
        }
        self.free().min(turns.saturating_sub(1))
    }

    /// Workers that no other caller stands for.
    fn free(&self) -> usize {
        let callers = self.gate.taken().max(1);
        (self.workers.len() + 1).saturating_sub(callers)
    }

    /// Whether who runs share `share` of a loop may go on: the caller, or a worker that no other
    /// caller stands for by now.
    pub(super) fn has_seat(&self, share: usize) -> bool {
        share <= self.free()
    }

    fn wake(&self, seats: usize) {
        for (worker, asleep) in self.workers.iter().zip(&self.shared.asleep).take(seats) {
            if asleep.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what bodies throw, so it ends in peace.
            _ = worker.join();
        }
    }
}

/// The same body without its lifetime.
fn erase(body: &(dyn Fn(usize) + Sync)) -> *const (dyn Fn(usize) + Sync) {
    let body: *const (dyn Fn(usize) + Sync + '_) = body;
    // SAFETY: only the lifetime changes; `Team::run` does not return before all who use it left.
    unsafe { std::mem::transmute(body) }
}

impl Shared {
    fn phase(&self) -> Phase {
        Phase(self.door.phase.load(Ordering::SeqCst))
    }

    fn panic(&self) -> std::sync::MutexGuard<'_, Option<Panic>> {
        self.panic.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets workers in. The caller holds `busy`.
    fn open(&self, body: *const (dyn Fn(usize) + Sync), turns: usize, seats: usize) {
        let shares = seats + 1;
        // SAFETY: nobody can join, and the last who did has left; `busy` keeps other callers away.
        unsafe { *self.door.work.get() = Some(Work { body, shares, single: turns <= shares }) };
        for (i, share) in self.shares.iter().enumerate().take(shares) {
            let part = share_of(turns, i, shares);
            share.next.store(part.start, Ordering::Relaxed);
            share.end.store(part.end, Ordering::Relaxed);
        }
        let number = self.phase().number().wrapping_add(1);
        // SeqCst, as a worker that falls asleep: either it sees this, or we see it asleep.
        self.door.phase.store(Phase::open(number, seats as u16).0, Ordering::SeqCst);
    }

    /// Lets nobody in any more, and waits until all are out.
    fn close(&self) {
        self.door.phase.fetch_and(!Phase::SEATS, Ordering::SeqCst);
        let mut looks = 0u32;
        while Phase(self.door.phase.load(Ordering::Acquire)).inside() > 0 {
            looks = looks.saturating_add(1);
            // A worker without a processor needs ours.
            if looks > 20_000 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    /// Takes turns until none is left, those of share `own` first. A worker with a single turn leaves
    /// after it: the caller waits for nothing but workers that leave, and looks at all shares itself.
    fn turns(&self, own: usize) {
        // SAFETY: the caller wrote it before it opened the loop, which this thread saw or did.
        let Some(work) = (unsafe { *self.door.work.get() }) else { return };
        // SAFETY: the loop is under way, so its body is alive.
        let body = unsafe { &*work.body };
        let (before, after) = self.shares[..work.shares].split_at(own);
        for share in after.iter().chain(before) {
            while let Some(turn) = share.take() {
                body(turn);
                if work.single {
                    break;
                }
            }
            if work.single && own > 0 {
                break;
            }
        }
    }

    /// The life of worker `index`.
    fn serve(&self, index: usize) {
        ROLE.set(Role::AtWork);
        let mut done = 0;
        while !self.stop.load(Ordering::Relaxed) {
            match self.join(index, done) {
                Some(number) => {
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.turns(index + 1))) {
                        self.panic().get_or_insert(panic);
                    }
                    self.door.phase.fetch_sub(1, Ordering::Release);
                    done = number;
                }
                None => self.wait(index, done),
            }
        }
    }

    /// Whether worker `index`, which has been in loop `done`, may join one that is under way.
    fn is_open(&self, index: usize, done: u32) -> bool {
        let phase = self.phase();
        phase.seats() > index && phase.number() != done
    }

    /// Joins the loop under way; its number.
    fn join(&self, index: usize, done: u32) -> Option<u32> {
        loop {
            let phase = self.phase();
            if phase.seats() <= index || phase.number() == done {
                return None;
            }
            let joined = self.door.phase.compare_exchange_weak(
                phase.0,
                phase.0 + 1,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
            if joined.is_ok() {
                return Some(phase.number());
            }
        }
    }

    /// Waits for a loop that worker `index` may join: first awake, then asleep.
    fn wait(&self, index: usize, done: u32) {
        let began = Instant::now();
        while began.elapsed() < self.patience {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            for _ in 0..LOOKS {
                if self.is_open(index, done) {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        self.asleep[index].store(true, Ordering::SeqCst);
        while !self.is_open(index, done) && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep[index].store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen_by(team: &Team, turns: usize) -> usize {
        let sum = AtomicUsize::new(0);
        team.run(turns, &|turn| _ = sum.fetch_add(turn + 1, Ordering::Relaxed));
        sum.into_inner()
    }

    #[test]
    fn each_turn_is_taken_once_whoever_calls() {
        let team = Team::new(3).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..4 {
                let team = &team;
                scope.spawn(move || {
                    for turns in 0..300 {
                        let sum = || seen_by(team, turns);
                        let sum = if caller % 2 == 0 { team.admit(sum) } else { sum() };
                        assert_eq!(sum, turns * (turns + 1) / 2);
                    }
                });
            }
        });
    }

    #[test]
    fn sleepers_wake() {
        let team = Team::new(2).unwrap();
        for _ in 0..5 {
            while !team.shared.asleep[0].load(Ordering::SeqCst) {
                std::thread::sleep(PATIENCE);
            }
            let helped = AtomicBool::new(false);
            let caller = std::thread::current().id();
            team.run(2, &|_| {
                // The caller holds its turn until the worker has come for the other one.
                let is_caller = std::thread::current().id() == caller;
                helped.fetch_or(!is_caller, Ordering::SeqCst);
                while is_caller && !helped.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            });
            assert!(helped.into_inner());
        }
    }

    #[test]
    fn loops_inside_of_loops_run() {
        let team = Team::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        team.run(8, &|_| _ = sum.fetch_add(team.admit(|| seen_by(&team, 4)), Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 80);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = Team::new(2).unwrap();
        for bad in 0..4 {
            let run = || team.run(4, &|turn| assert_ne!(turn, bad));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            assert_eq!(seen_by(&team, 4), 10);
        }
    }
}
