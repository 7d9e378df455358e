//! Dense, contiguous, row-major tensors with a run-time element type.

use crate::bytes::{AlignedBytes, SharedBytes, UniqueBytes};
use crate::codec;
use crate::dtype::DType;
use crate::error::{Error, Result};
use bytemuck::Pod;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Rust types that hold one element of a whole-byte [`DType`].
pub trait Element: Pod {
    /// The element type this Rust type stores.
    const DTYPE: DType;
}

macro_rules! elements { ($($t:ty => $d:ident),* $(,)?) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* } }
elements! {
    f32 => F32, f64 => F64, u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32,
    u64 => U64, i64 => I64, half::f16 => F16, half::bf16 => BF16,
}

/// A dense row-major tensor. Cloning shares the bytes.
///
/// Sub-byte elements are packed without row padding, first element in the low bits.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Bytes(SharedBytes),
    Strings(Arc<Vec<Vec<u8>>>),
}

/// Number of elements of a shape; `None` when the product overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the tensor empty, whatever the other dimensions say.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

impl Tensor {
    /// A tensor over existing bytes.
    ///
    /// # Errors
    /// When the shape overflows, or the byte length is not what dtype and shape need.
    pub fn from_bytes(dtype: DType, shape: Vec<usize>, bytes: SharedBytes) -> Result<Self> {
        let need = byte_len(dtype, &shape)?;
        let have = bytes.as_ref().len();
        if need != have {
            return Err(Error::bad_input(format!(
                "a {dtype} tensor of shape {shape:?} needs {need} bytes, found {have}"
            )));
        }
        Ok(Tensor { dtype, shape, data: Data::Bytes(bytes) })
    }

    /// A tensor of zeros (empty strings for `String`).
    ///
    /// # Errors
    /// When the byte size overflows or exceeds the limit for one tensor.
    pub fn zeros(dtype: DType, shape: Vec<usize>) -> Result<Self> {
        if dtype == DType::String {
            let count = element_count(&shape).ok_or_else(|| overflow(dtype, &shape))?;
            if count > crate::bytes::max_tensor_bytes() / size_of::<Vec<u8>>() {
                return Err(overflow(dtype, &shape));
            }
            return Tensor::from_strings(shape, vec![Vec::new(); count]);
        }
        let bytes = AlignedBytes::try_zeroed(byte_len(dtype, &shape)?)?;
        Self::from_bytes(dtype, shape, bytes.into())
    }

    /// Copies a slice of elements.
    ///
    /// # Errors
    /// When the shape does not hold exactly `data.len()` elements.
    pub fn from_slice<T: Element>(shape: Vec<usize>, data: &[T]) -> Result<Self> {
        let bytes = AlignedBytes::copy_of(bytemuck::cast_slice(data));
        Self::from_bytes(T::DTYPE, shape, bytes.into())
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        let bytes = AlignedBytes::copy_of(bytemuck::bytes_of(&value));
        Tensor { dtype: T::DTYPE, shape: Vec::new(), data: Data::Bytes(bytes.into()) }
    }

    /// A rank-1 tensor that copies `data`.
    pub fn vector<T: Element>(data: &[T]) -> Self {
        let bytes = AlignedBytes::copy_of(bytemuck::cast_slice(data));
        Tensor { dtype: T::DTYPE, shape: vec![data.len()], data: Data::Bytes(bytes.into()) }
    }

    /// Booleans, one byte each.
    ///
    /// # Errors
    /// When the shape does not hold exactly `data.len()` elements.
    pub fn from_bools(shape: Vec<usize>, data: &[bool]) -> Result<Self> {
        let raw: Vec<u8> = data.iter().map(|&b| b as u8).collect();
        Self::from_bytes(DType::Bool, shape, AlignedBytes::copy_of(&raw).into())
    }

    /// A tensor of byte strings.
    ///
    /// # Errors
    /// When the shape does not hold exactly `data.len()` elements.
    pub fn from_strings(shape: Vec<usize>, data: Vec<Vec<u8>>) -> Result<Self> {
        let dtype = DType::String;
        let need = element_count(&shape).ok_or_else(|| overflow(dtype, &shape))?;
        if need != data.len() {
            return Err(Error::bad_input(format!(
                "a string tensor of shape {shape:?} needs {need} strings, found {}",
                data.len()
            )));
        }
        Ok(Tensor { dtype, shape, data: Data::Strings(Arc::new(data)) })
    }

    /// Encodes numbers into any numeric dtype: floats round to nearest even, integers
    /// must be exact and in range (they saturate otherwise).
    ///
    /// # Errors
    /// When the shape does not fit the number of values.
    pub fn from_f64(dtype: DType, shape: Vec<usize>, values: &[f64]) -> Result<Self> {
        let mut tensor = Self::zeros(dtype, shape)?;
        if values.len() != tensor.len() {
            return Err(Error::bad_input(format!(
                "shape {:?} needs {} values, found {}",
                tensor.shape,
                tensor.len(),
                values.len()
            )));
        }
        codec::encode_f64(dtype, values, tensor.bytes_mut());
        Ok(tensor)
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        element_count(&self.shape).unwrap_or(usize::MAX)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stored bytes; empty for string tensors.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Bytes(bytes) => bytes.as_ref(),
            Data::Strings(_) => &[],
        }
    }

    /// Mutable bytes; copied first when shared or mapped. Empty for string tensors.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.data {
            Data::Bytes(bytes) => bytes.make_mut(),
            Data::Strings(_) => &mut [],
        }
    }

    /// The shared storage, `None` for string tensors.
    pub fn shared_bytes(&self) -> Option<&SharedBytes> {
        match &self.data {
            Data::Bytes(bytes) => Some(bytes),
            Data::Strings(_) => None,
        }
    }

    /// Says that the elements will not be read soon: those of a mapped file may leave the memory of
    /// this process, and come back when they are read again.
    pub fn release(&self) {
        if let Data::Bytes(bytes) = &self.data {
            bytes.release();
        }
    }

    /// Takes the allocation back for reuse, if nobody else holds it.
    pub fn into_unique_bytes(self) -> Option<UniqueBytes> {
        match self.data {
            Data::Bytes(bytes) => bytes.into_unique(),
            Data::Strings(_) => None,
        }
    }

    /// The strings of a `String` tensor.
    pub fn strings(&self) -> Option<&[Vec<u8>]> {
        match &self.data {
            Data::Strings(strings) => Some(strings),
            Data::Bytes(_) => None,
        }
    }

    /// A typed view without copying.
    ///
    /// # Errors
    /// When the dtype differs, or mapped bytes are not aligned for `T`
    /// (use [`to_vec`](Tensor::to_vec) or [`cow`](Tensor::cow) there).
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.expect_dtype(T::DTYPE)?;
        bytemuck::try_cast_slice(self.bytes()).map_err(|_| {
            Error::internal(format!("{} bytes are not aligned for their type", self.dtype))
        })
    }

    /// A typed view, copied only when the bytes are misaligned.
    ///
    /// # Errors
    /// When the dtype differs.
    pub fn cow<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        self.expect_dtype(T::DTYPE)?;
        Ok(match bytemuck::try_cast_slice(self.bytes()) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(self.bytes())),
        })
    }

    /// A typed copy.
    ///
    /// # Errors
    /// When the dtype differs.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        Ok(self.cow::<T>()?.into_owned())
    }

    /// A mutable typed view; shared, mapped or misaligned bytes are copied first.
    ///
    /// # Errors
    /// When the dtype differs.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.expect_dtype(T::DTYPE)?;
        Ok(bytemuck::cast_slice_mut(self.bytes_mut()))
    }

    /// Every element as `f64`; exact for all types but the 64-bit integers.
    ///
    /// # Errors
    /// For strings and complex numbers.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        codec::decode_f64(self.dtype, self.bytes(), self.len())
    }

    /// Every element as `f32`, rounded to nearest even where needed.
    ///
    /// # Errors
    /// For strings and complex numbers.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        if self.dtype == DType::F32 {
            return self.to_vec();
        }
        codec::decode_f32(self.dtype, self.bytes(), self.len())
    }

    /// Every element of an integer or boolean tensor as `i64` (`u64` wraps).
    ///
    /// # Errors
    /// For other element types.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        codec::decode_i64(self.dtype, self.bytes(), self.len())
    }

    /// Converts to another numeric type by value, saturating into integers.
    ///
    /// # Errors
    /// For strings and complex numbers.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        if dtype == DType::F32 && matches!(self.dtype, DType::F16 | DType::BF16) {
            return Tensor::from_slice(self.shape.clone(), &self.to_f32()?);
        }
        Tensor::from_f64(dtype, self.shape.clone(), &self.to_f64()?)
    }

    /// The same bytes under another shape.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(&self, shape: Vec<usize>) -> Result<Tensor> {
        if element_count(&shape) != Some(self.len()) {
            return Err(Error::bad_input(format!(
                "cannot reshape {:?} ({} elements) to {shape:?}",
                self.shape,
                self.len()
            )));
        }
        Ok(Tensor { dtype: self.dtype, shape, data: self.data.clone() })
    }

    /// The same bytes read as another type of the same width (for example `U8` as `I8`).
    ///
    /// # Errors
    /// When the widths differ.
    pub fn reinterpret(&self, dtype: DType) -> Result<Tensor> {
        if dtype.bits() != self.dtype.bits() || dtype == DType::String {
            return Err(Error::internal(format!("{} bits cannot be read as {dtype}", self.dtype)));
        }
        Ok(Tensor { dtype, shape: self.shape.clone(), data: self.data.clone() })
    }

    fn expect_dtype(&self, dtype: DType) -> Result<()> {
        // Booleans are bytes of 0 and 1, so a byte view of them is sound.
        if self.dtype == dtype || (self.dtype == DType::Bool && dtype == DType::U8) {
            return Ok(());
        }
        Err(Error::bad_input(format!("expected a {dtype} tensor, found {}", self.dtype)))
    }
}

fn byte_len(dtype: DType, shape: &[usize]) -> Result<usize> {
    let count = element_count(shape).ok_or_else(|| overflow(dtype, shape))?;
    let len = dtype.bytes_for(count).ok_or_else(|| overflow(dtype, shape))?;
    // The allocator refuses more than isize::MAX; say so instead of aborting.
    if isize::try_from(len).is_err() {
        return Err(overflow(dtype, shape));
    }
    Ok(len)
}

fn overflow(dtype: DType, shape: &[usize]) -> Error {
    Error::bad_input(format!("a {dtype} tensor of shape {shape:?} has no representable size"))
}

impl PartialEq for Tensor {
    /// Bitwise equality: NaN equals the same NaN, `-0.0` differs from `0.0`.
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && self.bytes() == other.bytes()
            && self.strings() == other.strings()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        assert!(Tensor::from_slice(vec![2, 2], &[1f32, 2.0]).is_err());
        assert!(Tensor::zeros(DType::F32, vec![usize::MAX, 2]).is_err());
        assert!(Tensor::zeros(DType::F32, vec![usize::MAX / 8]).is_err());
        assert_eq!(Tensor::zeros(DType::F32, vec![usize::MAX, 0]).unwrap().len(), 0);
        assert_eq!(Tensor::zeros(DType::F32, vec![usize::MAX, usize::MAX, 0]).unwrap().len(), 0);
    }

    #[test]
    fn misaligned_views_are_copied_on_demand() {
        let owner: crate::Owner = Arc::new(bytemuck::cast_slice::<f32, u8>(&[0.0, 1.5]).to_vec());
        let base = (*owner).as_ref().as_ptr() as usize;
        let start = if base.is_multiple_of(4) { 1 } else { 0 };
        let bytes = SharedBytes::view(owner, start..start + 4).unwrap();
        let t = Tensor::from_bytes(DType::F32, vec![1], bytes).unwrap();
        assert_eq!(t.to_vec::<f32>().unwrap().len(), 1);
    }

    #[test]
    fn values_convert_between_types() {
        let t = Tensor::vector(&[-3i8, 7]);
        assert_eq!(t.cast(DType::I4).unwrap().to_i64().unwrap(), [-3, 7]);
        assert_eq!(t.cast(DType::F16).unwrap().to_f32().unwrap(), [-3.0, 7.0]);
    }
}
