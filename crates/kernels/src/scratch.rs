//! Buffers that belong to a thread and are used again and again.

use std::cell::Cell;

use bytemuck::{Pod, Zeroable};

/// One cache line; the unit of the buffers, so that they are aligned for every vector width.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

thread_local! {
    static BUFFER: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `body` with `len` elements of this thread's buffer, aligned to 64 bytes; what they hold
/// is left over from earlier uses.
///
/// The buffer is taken out while it is used: a nested call (also one by a task that the thread
/// steals meanwhile) gets a buffer of its own.
pub(crate) fn with_scratch<T: Pod, R>(len: usize, body: impl FnOnce(&mut [T]) -> R) -> R {
    let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    let mut buffer = BUFFER.take();
    if buffer.len() < lines {
        buffer.resize(lines, Line::zeroed());
    }
    let result = body(&mut bytemuck::cast_slice_mut(&mut buffer[..lines])[..len]);
    let other = BUFFER.take();
    BUFFER.set(if other.len() > buffer.len() { other } else { buffer });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_buffers_are_disjoint() {
        with_scratch::<i16, _>(10, |outer| {
            outer.fill(1);
            with_scratch::<f32, _>(100, |inner| {
                assert_eq!(inner.as_ptr().align_offset(64), 0);
                inner.fill(2.0);
            });
            assert_eq!(outer, [1; 10]);
        });
        with_scratch::<f32, _>(100, |again| assert_eq!(again, [2.0; 100]));
    }
}
