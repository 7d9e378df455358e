//! The region that a thread cuts lines from.

use std::cell::RefCell;
use std::sync::Arc;

use super::Lines;
use super::region::{HUGE, Region};
use crate::scratch::Line;

/// Lines of a region, unless it is the first of a thread. Only what is touched takes memory.
pub(super) const SHARED: usize = 32 * PAGE;

/// Lines of the first region of a thread, too small for huge pages: on many threads, those would
/// be more than a small model needs.
const FIRST: usize = PAGE / 4;

/// Lines of a huge page.
const PAGE: usize = HUGE / size_of::<Line>();

/// Lines that are worth a call of the system, to give back their memory.
const MANY: usize = PAGE / 32;

/// Lines are cut one behind the other. Where those that were cut last are dropped first, as
/// operands are that a run packs for a moment, the same memory serves again and again.
#[derive(Default)]
struct Open {
    region: Option<Arc<Region>>,
    /// Lines that were cut and not given back.
    used: usize,
    /// Lines from here on are zero, but those in use.
    clean: usize,
}

thread_local! {
    static OPEN: RefCell<Open> = RefCell::default();
}

/// No lines yet, with room for `capacity`.
pub(super) fn cut(capacity: usize) -> Lines {
    if capacity >= SHARED {
        return Open::default().cut(capacity);
    }
    OPEN.with_borrow_mut(|open| open.cut(capacity))
}

/// Gives back the room behind the first `kept` lines. Says whether others can have it, which they
/// can if these lines were cut last, on this thread.
pub(super) fn give_back(lines: &Lines, kept: usize) -> bool {
    // A thread that ends has no open region any more.
    let last = OPEN.try_with(|open| open.borrow_mut().give_back(lines, kept)).unwrap_or(false);
    if let (false, 0, Some(region)) = (last, kept, &lines.region)
        && lines.capacity >= MANY
    {
        region.release(lines.start, lines.capacity);
    }
    last
}

impl Open {
    fn cut(&mut self, capacity: usize) -> Lines {
        if let Some(region) = &mut self.region
            && Arc::get_mut(region).is_some()
        {
            // Nobody has lines of it.
            self.clean = self.clean.max(self.used);
            self.used = 0;
        }
        let region = match self.region.take() {
            Some(region) if region.lines() - self.used >= capacity => region,
            before => {
                (self.used, self.clean) = (0, 0);
                Region::new(if before.is_none() { FIRST } else { SHARED }, capacity)
            }
        };
        let start = region.line(self.used);
        let clean = self.clean.saturating_sub(self.used);
        self.used += capacity;
        self.region = Some(region.clone());
        Lines { region: Some(region), start, len: 0, capacity, clean }
    }

    fn give_back(&mut self, lines: &Lines, kept: usize) -> bool {
        let (Some(open), Some(region)) = (&self.region, &lines.region) else { return false };
        let end = lines.start.as_ptr().wrapping_add(lines.capacity);
        if !Arc::ptr_eq(open, region) || end != region.line(self.used).as_ptr() {
            return false;
        }
        let first = self.used - lines.capacity;
        self.used = first + kept;
        self.clean = self.clean.max(first + lines.clean);
        // A little is kept for the next ones. Whole pages, so that all of it is zero then.
        let from = (self.used + PAGE).next_multiple_of(MANY);
        let to = self.clean.next_multiple_of(MANY).min(region.lines());
        if from < to && region.release(region.line(from), to - from) {
            self.clean = from;
        }
        true
    }
}
