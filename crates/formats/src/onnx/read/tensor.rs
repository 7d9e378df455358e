//! `TensorProto` to [`Tensor`]: raw bytes stay where they are, typed fields are decoded.

use super::external::External;
use super::types::element_type;
use crate::limits::MAX_RANK;
use crate::mmap::{self, InputFile};
use crate::onnx::schema::TensorProto;
use bytes::Bytes;
use fewbit_core::{
    AlignedBytes, DType, Error, Result, ResultExt, SharedBytes, Tensor, element_count,
};

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// Decodes a tensor. The bytes of `raw_data` and of external files are viewed, not copied.
///
/// # Errors
/// When the message contradicts itself: unknown element type, negative or overflowing
/// dimensions, too few or too many elements, two sources of data.
pub(super) fn decode(proto: &TensorProto, external: &External) -> Result<Tensor> {
    let dtype = dtype(proto)?;
    let shape = shape(&proto.dims)?;
    let stored = stored_elements(dtype, &shape)?;
    if proto.segment.is_some() {
        return Err(Error::unsupported("`segment` is set; tensors in segments are not read")
            .code("FB-4102")
            .hint("is this a sequence or an optional rather than a tensor?"));
    }
    if proto.data_location == Some(EXTERNAL) {
        return from_external(proto, external, dtype, shape);
    }
    let typed = typed_field(proto)?;
    match (&proto.raw_data, typed) {
        (Some(raw), None) if dtype != DType::String => {
            from_raw(dtype, shape, raw.clone(), external.model())
        }
        (Some(raw), Some(field)) if !raw.is_empty() => {
            Err(damaged(format!("both `raw_data` and `{field}` are set")))
        }
        (Some(raw), None) if !raw.is_empty() => {
            Err(damaged("strings cannot stand in `raw_data`".to_string()))
        }
        _ => from_typed(proto, dtype, shape, stored),
    }
}

fn damaged(what: String) -> Error {
    Error::bad_input(what).code("FB-3220")
}

fn dtype(proto: &TensorProto) -> Result<DType> {
    match proto.data_type.unwrap_or(0) {
        0 => Err(damaged("`data_type` is UNDEFINED".into())),
        code => element_type("data_type", code),
    }
}

/// Checks dimensions: none negative, not too many.
pub(super) fn shape(dims: &[i64]) -> Result<Vec<usize>> {
    if dims.len() > MAX_RANK {
        let found = format!("{} dimensions; at most {MAX_RANK} are allowed", dims.len());
        return Err(Error::unsupported(found).code("FB-4103"));
    }
    let convert = |(axis, &dim)| {
        usize::try_from(dim).map_err(|_| damaged(format!("dims[{axis}] is {dim}, a negative size")))
    };
    dims.iter().enumerate().map(convert).collect()
}

/// Entries of a typed field: elements, bytes of packed elements, or halves of complex numbers.
fn stored_elements(dtype: DType, shape: &[usize]) -> Result<usize> {
    let overflow = || damaged(format!("a {dtype} tensor of shape {shape:?} has no size"));
    let count = element_count(shape).ok_or_else(overflow)?;
    match dtype {
        DType::C64 | DType::C128 => count.checked_mul(2).ok_or_else(overflow),
        _ if dtype.is_sub_byte() => dtype.bytes_for(count).ok_or_else(overflow),
        _ => Ok(count),
    }
}

/// The one typed field that is in use.
fn typed_field(proto: &TensorProto) -> Result<Option<&'static str>> {
    let fields = [
        ("float_data", proto.float_data.len()),
        ("int32_data", proto.int32_data.len()),
        ("string_data", proto.string_data.len()),
        ("int64_data", proto.int64_data.len()),
        ("double_data", proto.double_data.len()),
        ("uint64_data", proto.uint64_data.len()),
    ];
    let mut used = fields.into_iter().filter(|(_, len)| *len > 0).map(|(name, _)| name);
    match (used.next(), used.next()) {
        (Some(one), Some(two)) => Err(damaged(format!("both `{one}` and `{two}` are set"))),
        (first, _) => Ok(first),
    }
}

fn from_raw(
    dtype: DType,
    shape: Vec<usize>,
    raw: Bytes,
    file: Option<&InputFile>,
) -> Result<Tensor> {
    // Stored booleans other than 0 and 1 mean true; everything that runs relies on 0 and 1.
    if dtype == DType::Bool && raw.iter().any(|&b| b > 1) {
        let clean: Vec<u8> = raw.iter().map(|&b| (b != 0) as u8).collect();
        return sized(Tensor::from_bytes(dtype, shape, AlignedBytes::copy_of(&clean).into()));
    }
    let len = raw.len();
    let view = SharedBytes::view(mmap::owner(raw, file), 0..len)
        .ok_or_else(|| Error::internal("a view of all bytes left its owner"))?;
    sized(Tensor::from_bytes(dtype, shape, view))
}

fn sized(tensor: Result<Tensor>) -> Result<Tensor> {
    tensor.map_err(|e| e.code("FB-3221"))
}

fn from_external(
    proto: &TensorProto,
    external: &External,
    dtype: DType,
    shape: Vec<usize>,
) -> Result<Tensor> {
    if proto.raw_data.is_some() || typed_field(proto)?.is_some() {
        return Err(damaged("the data is declared external, but some stands here".into()));
    }
    let count = element_count(&shape).unwrap_or(usize::MAX);
    let Some(need) = dtype.bytes_for(count) else {
        return Err(damaged(format!("{dtype} elements cannot be stored externally")));
    };
    let (bytes, file) = external.bytes(&proto.external_data, need).at(|| "external_data")?;
    from_raw(dtype, shape, bytes, Some(&file))
}

fn from_typed(
    proto: &TensorProto,
    dtype: DType,
    shape: Vec<usize>,
    stored: usize,
) -> Result<Tensor> {
    use DType::*;
    match dtype {
        String => {
            expect_count("string_data", proto.string_data.len(), stored, &shape)?;
            let strings = proto.string_data.iter().map(|s| s.to_vec()).collect();
            Tensor::from_strings(shape, strings)
        }
        F32 | C64 => pod("float_data", &proto.float_data, dtype, shape, stored),
        F64 | C128 => pod("double_data", &proto.double_data, dtype, shape, stored),
        I64 => pod("int64_data", &proto.int64_data, dtype, shape, stored),
        U64 => pod("uint64_data", &proto.uint64_data, dtype, shape, stored),
        I32 => pod("int32_data", &proto.int32_data, dtype, shape, stored),
        U32 => {
            expect_count("uint64_data", proto.uint64_data.len(), stored, &shape)?;
            let narrow = |(index, &value): (usize, &u64)| {
                u32::try_from(value).map_err(|_| out_of_range("uint64_data", index, value, dtype))
            };
            let values = proto.uint64_data.iter().enumerate().map(narrow);
            Tensor::from_slice(shape, &values.collect::<Result<Vec<u32>>>()?)
        }
        _ => from_int32(&proto.int32_data, dtype, shape, stored),
    }
}

fn expect_count(field: &str, found: usize, need: usize, shape: &[usize]) -> Result<()> {
    if found == need {
        return Ok(());
    }
    let what = format!("shape {shape:?} needs {need} entries in `{field}`, found {found}");
    Err(Error::bad_input(what).code("FB-3221"))
}

fn out_of_range(field: &str, index: usize, value: impl std::fmt::Display, dtype: DType) -> Error {
    Error::bad_input(format!("{field}[{index}] is {value}, which is no {dtype}")).code("FB-3222")
}

fn pod<T: bytemuck::Pod>(
    field: &str,
    values: &[T],
    dtype: DType,
    shape: Vec<usize>,
    need: usize,
) -> Result<Tensor> {
    expect_count(field, values.len(), need, &shape)?;
    let bytes = AlignedBytes::copy_of(bytemuck::cast_slice(values));
    Tensor::from_bytes(dtype, shape, bytes.into())
}

/// Types of at most 16 bits: each entry holds one element, or one byte of packed elements.
fn from_int32(values: &[i32], dtype: DType, shape: Vec<usize>, need: usize) -> Result<Tensor> {
    expect_count("int32_data", values.len(), need, &shape)?;
    let width = dtype.size().unwrap_or(1);
    let (lo, hi) = match dtype.int_range() {
        Some((lo, hi)) if !dtype.is_sub_byte() => (lo as i32, hi as i32),
        // Floats and packed elements are bit patterns; some writers sign-extend them.
        _ => (-(1 << (8 * width - 1)), (1 << (8 * width)) - 1),
    };
    let mut bytes = AlignedBytes::zeroed(need * width);
    for (index, (&value, slot)) in
        values.iter().zip(bytes.as_mut().chunks_exact_mut(width)).enumerate()
    {
        if !(lo..=hi).contains(&value) {
            return Err(out_of_range("int32_data", index, value, dtype));
        }
        let value = if dtype == DType::Bool { (value != 0) as i32 } else { value };
        slot.copy_from_slice(&value.to_le_bytes()[..width]);
    }
    sized(Tensor::from_bytes(dtype, shape, bytes.into()))
}
