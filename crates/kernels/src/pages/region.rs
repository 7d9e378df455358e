//! A piece of fresh memory, all zero.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::scratch::Line;

/// Bytes of a huge page of x86-64, and of AArch64 with pages of 4 KiB.
pub(super) const HUGE: usize = 2 << 20;

/// Lines of zeros. The system finds memory for them when they are touched.
pub(super) struct Region {
    start: NonNull<Line>,
    lines: usize,
    memory: memory::Memory,
}

// SAFETY: a region does nothing with its lines itself: it gives their addresses away.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// As many lines as are wished for, where the system allows it and they suffice; else as many
    /// as are needed. From the size of a huge page on, lines begin at the boundary of one.
    pub(super) fn new(wished: usize, needed: usize) -> Arc<Region> {
        let wished = (wished > needed).then(|| Region::of(wished)).flatten();
        Arc::new(wished.or_else(|| Region::of(needed)).unwrap_or_else(|| {
            let layout = Layout::array::<Line>(needed).expect("lines fit into memory");
            handle_alloc_error(layout)
        }))
    }

    fn of(lines: usize) -> Option<Region> {
        let bytes = lines.checked_mul(size_of::<Line>())?;
        let align = if bytes < HUGE { align_of::<Line>() } else { HUGE };
        let (memory, start) = memory::Memory::zeros(bytes, align)?;
        Some(Region { start: start.cast(), lines, memory })
    }

    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// The address of a line, or of the end.
    pub(super) fn line(&self, index: usize) -> NonNull<Line> {
        assert!(index <= self.lines, "a line is behind the end of its region");
        // SAFETY: the address is within the region, or its end.
        unsafe { self.start.add(index) }
    }

    /// Gives back the memory of lines that nobody uses. Says whether all are zero then; else some
    /// are as they were.
    pub(super) fn release(&self, start: NonNull<Line>, lines: usize) -> bool {
        self.memory.release(start.cast(), lines * size_of::<Line>())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.memory.free();
    }
}

#[cfg(target_os = "linux")]
mod memory {
    use std::ptr::{NonNull, null_mut};

    use super::HUGE;

    /// Bytes of a small page, or several of them.
    const SMALL: usize = 64 << 10;

    /// A mapping of its own: the system clears its pages, and nobody has to again.
    pub(super) struct Memory {
        start: NonNull<u8>,
        bytes: usize,
    }

    impl Memory {
        pub(super) fn zeros(bytes: usize, align: usize) -> Option<(Memory, NonNull<u8>)> {
            // What lies before the boundary, and behind the end, is never touched.
            let room = bytes.checked_add(align)?;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new mapping, at an address that the system chooses, touches no other.
            let mapped = unsafe { libc::mmap(null_mut(), room, access, kind, -1, 0) };
            let start = NonNull::new(mapped).filter(|_| mapped != libc::MAP_FAILED)?.cast::<u8>();
            // SAFETY: the boundary is at most `align` behind the beginning, where there is room.
            let first = unsafe { start.add(start.as_ptr().align_offset(align)) };
            advise(first, bytes);
            Some((Memory { start, bytes: room }, first))
        }

        pub(super) fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
            let skipped = start.as_ptr().align_offset(SMALL);
            let whole = bytes.saturating_sub(skipped) / SMALL * SMALL;
            if whole == 0 {
                return false;
            }
            // SAFETY: these pages are of the mapping, and the caller says that nobody uses what
            // they hold.
            let failed = unsafe {
                libc::madvise(start.add(skipped).as_ptr().cast(), whole, libc::MADV_DONTNEED)
            };
            failed == 0 && whole == bytes
        }

        pub(super) fn free(&self) {
            // SAFETY: this was mapped so, and nobody refers to it any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }

    /// Asks for huge pages, of those that are whole: a part of one would take memory for nothing.
    fn advise(start: NonNull<u8>, bytes: usize) {
        let whole = bytes / HUGE * HUGE;
        if whole > 0 {
            // SAFETY: these pages are of the mapping, and only their size changes, not what they
            // hold. It is a wish: where the system knows no such pages, all stays as it is.
            unsafe { libc::madvise(start.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod memory {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    /// An allocation.
    pub(super) struct Memory {
        start: NonNull<u8>,
        layout: Layout,
    }

    impl Memory {
        pub(super) fn zeros(bytes: usize, align: usize) -> Option<(Memory, NonNull<u8>)> {
            let layout = Layout::from_size_align(bytes.max(1), align).ok()?;
            // SAFETY: the layout is not empty.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            Some((Memory { start, layout }, start))
        }

        /// Only a whole allocation can be given back.
        pub(super) fn release(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }

        pub(super) fn free(&self) {
            // SAFETY: this was allocated so, and nobody refers to it any more.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}
