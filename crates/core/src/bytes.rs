//! Shared, immutable bytes of a tensor: owned and 64-byte aligned, or a view into someone else's memory.

use crate::error::{Error, Result};
use bytemuck::{Pod, Zeroable};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Largest tensor that may be allocated; a hundred-byte file can ask for terabytes.
static MAX_TENSOR_BYTES: AtomicUsize = AtomicUsize::new(4 << 30);

/// The limit on one allocated tensor, 4 GiB unless set. Mapped tensors are not bound by it.
pub fn max_tensor_bytes() -> usize {
    MAX_TENSOR_BYTES.load(Ordering::Relaxed)
}

/// Sets the limit on one allocated tensor for the whole process.
pub fn set_max_tensor_bytes(bytes: usize) {
    MAX_TENSOR_BYTES.store(bytes, Ordering::Relaxed);
}

fn too_large(len: usize) -> Error {
    let limit = max_tensor_bytes();
    Error::resource(format!("a tensor needs {len} bytes; the limit for one tensor is {limit}"))
        .code("FB-5101")
        .hint("check the shapes in the model; raise the limit with --max-memory if they are right")
}

/// One cache line; a vector of these is aligned for every SIMD load.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Owned bytes aligned to 64, with an exact length.
pub struct AlignedBytes {
    /// As many as were ever needed: an allocation that is used again is not cleared again.
    lines: Vec<Line>,
    len: usize,
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        AlignedBytes { lines: self.lines[..self.len.div_ceil(64)].to_vec(), len: self.len }
    }
}

impl AlignedBytes {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// When `len` exceeds [`max_tensor_bytes`] or the allocator has no memory left.
    pub fn try_zeroed(len: usize) -> Result<Self> {
        if len > max_tensor_bytes() {
            return Err(too_large(len));
        }
        let count = len.div_ceil(64);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).map_err(|_| too_large(len))?;
        lines.resize(count, Line::zeroed());
        Ok(AlignedBytes { lines, len })
    }

    /// `len` zero bytes, for sizes that are known to be small.
    pub fn zeroed(len: usize) -> Self {
        AlignedBytes { lines: vec![Line::zeroed(); len.div_ceil(64)], len }
    }

    /// Gives the allocation a new length; keeps its capacity. Where it grows, it holds zeros or
    /// what it held earlier.
    pub fn reuse(&mut self, len: usize) {
        let count = len.div_ceil(64);
        if count > self.lines.len() {
            self.lines.resize(count, Line::zeroed());
        }
        self.len = len;
    }

    /// Bytes that fit without allocating again.
    pub fn capacity(&self) -> usize {
        self.lines.capacity() * 64
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut out = Self::zeroed(bytes.len());
        out.as_mut().copy_from_slice(bytes);
        out
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl AsMut<[u8]> for AlignedBytes {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// Memory that a tensor may view: a mapped file, a decoded message.
pub trait Backing: AsRef<[u8]> + Send + Sync {
    /// Says that the bytes of `range` will not be read soon. What is backed by a file may leave
    /// the memory of this process; it comes back when it is read again.
    fn release(&self, _range: Range<usize>) {}
}

impl Backing for Vec<u8> {}

/// Shared memory that a tensor may view.
pub type Owner = Arc<dyn Backing>;

/// Cheaply cloned, immutable bytes.
#[derive(Clone)]
pub struct SharedBytes(Storage);

#[derive(Clone)]
enum Storage {
    Owned(Arc<AlignedBytes>),
    View { owner: Owner, range: Range<usize> },
}

impl SharedBytes {
    /// Views `range` of `owner` without copying; `None` when the range leaves the owner's bytes.
    pub fn view(owner: Owner, range: Range<usize>) -> Option<Self> {
        let len = (*owner).as_ref().len();
        (range.start <= range.end && range.end <= len)
            .then_some(SharedBytes(Storage::View { owner, range }))
    }

    /// Mutable access to owned bytes; views and shared bytes are copied first.
    pub fn make_mut(&mut self) -> &mut [u8] {
        if let Storage::View { .. } = self.0 {
            self.0 = Storage::Owned(Arc::new(AlignedBytes::copy_of(self.as_ref())));
        }
        match &mut self.0 {
            Storage::Owned(bytes) => Arc::make_mut(bytes).as_mut(),
            Storage::View { .. } => unreachable!("replaced above"),
        }
    }

    /// Takes the bytes back, if they are owned and nobody else holds them.
    pub fn into_unique(self) -> Option<UniqueBytes> {
        match self.0 {
            Storage::Owned(mut bytes) => {
                Arc::get_mut(&mut bytes)?;
                Some(UniqueBytes(bytes))
            }
            Storage::View { .. } => None,
        }
    }

    /// Says that the bytes will not be read soon; see [`Backing::release`].
    pub fn release(&self) {
        if let Storage::View { owner, range } = &self.0 {
            owner.release(range.clone());
        }
    }

    /// Whether the bytes live in someone else's memory, such as a mapped file.
    pub fn is_view(&self) -> bool {
        matches!(self.0, Storage::View { .. })
    }
}

impl From<AlignedBytes> for SharedBytes {
    fn from(bytes: AlignedBytes) -> Self {
        SharedBytes(Storage::Owned(Arc::new(bytes)))
    }
}

/// Bytes that could be shared, and that nobody else holds: what is used again and again costs no
/// allocation each time.
pub struct UniqueBytes(Arc<AlignedBytes>);

impl UniqueBytes {
    /// As [`AlignedBytes::reuse`].
    pub fn reuse(&mut self, len: usize) {
        // Nobody else holds them, so that nothing is copied.
        Arc::make_mut(&mut self.0).reuse(len);
    }

    /// As [`AlignedBytes::capacity`].
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Where they lie in memory.
    pub fn address(&self) -> usize {
        self.0.lines.as_ptr().addr()
    }

    /// The bytes themselves.
    pub fn into_aligned(self) -> AlignedBytes {
        Arc::unwrap_or_clone(self.0)
    }
}

impl From<UniqueBytes> for SharedBytes {
    fn from(bytes: UniqueBytes) -> Self {
        SharedBytes(Storage::Owned(bytes.0))
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Storage::Owned(bytes) => (**bytes).as_ref(),
            Storage::View { owner, range } => &(**owner).as_ref()[range.clone()],
        }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_view() { "view" } else { "owned" };
        write!(f, "{} bytes, {kind}", self.as_ref().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_bytes_are_aligned_and_exact() {
        let bytes = AlignedBytes::copy_of(&[1, 2, 3]);
        assert_eq!(bytes.as_ref(), &[1, 2, 3]);
        assert_eq!(bytes.as_ref().as_ptr() as usize % 64, 0);
    }

    #[test]
    fn a_view_outside_its_owner_is_refused() {
        let owner: Owner = Arc::new(vec![0u8; 4]);
        assert!(SharedBytes::view(owner.clone(), 2..5).is_none());
        assert!(SharedBytes::view(owner, 1..4).is_some());
    }

    #[test]
    fn only_bytes_that_nobody_shares_are_unique() {
        let bytes = SharedBytes::from(AlignedBytes::copy_of(&[1, 2, 3]));
        let (address, other) = (bytes.as_ref().as_ptr(), bytes.clone());
        assert!(bytes.into_unique().is_none());
        let mut bytes = other.into_unique().unwrap();
        bytes.reuse(2);
        let bytes = SharedBytes::from(bytes);
        assert_eq!((bytes.as_ref().as_ptr(), bytes.as_ref()), (address, &[1, 2][..]));
        let owner: Owner = Arc::new(vec![7u8; 4]);
        assert!(SharedBytes::view(owner, 0..4).unwrap().into_unique().is_none());
    }

    #[test]
    fn writing_to_a_view_copies_it() {
        let owner: Owner = Arc::new(vec![7u8; 4]);
        let mut bytes = SharedBytes::view(owner.clone(), 0..4).unwrap();
        bytes.make_mut()[0] = 1;
        assert_eq!(bytes.as_ref(), &[1, 7, 7, 7]);
        assert_eq!((*owner).as_ref(), &[7; 4]);
    }
}
