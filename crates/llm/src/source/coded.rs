//! Weights that a checkpoint of Hugging Face keeps in codes of few bits: compressed-tensors, GPTQ
//! and AWQ.

use super::Weight;
use super::method::{Method, refused};
use fewbit_core::codec::pack_bits;
use fewbit_core::{AlignedBytes, DType, Error, Result, ResultExt, Tensor};
use fewbit_formats::packed::{Order, Packing};
use fewbit_formats::safetensors::SafetensorsFile;

/// What turns the codes of a matrix `[outputs, inputs]` into numbers:
/// `(code - zero) * scale`, with a scale for each group of inputs of each output.
#[derive(Clone, Debug)]
pub struct Coded {
    /// `f32[outputs, groups]`.
    pub scales: Tensor,
    /// As many as scales, of the type of the codes; `None` for zeros.
    pub zeros: Option<Tensor>,
    /// Inputs that share a scale.
    pub group: usize,
    /// What the inputs of the product are quantized to, with a scale for each token; `None` where
    /// they stay floats.
    pub activations: Option<DType>,
}

impl Method {
    /// The matrix of a layer.
    ///
    /// # Errors
    /// When its parts do not fit together.
    pub(super) fn weight(&self, tensors: &SafetensorsFile, layer: &str) -> Result<Option<Weight>> {
        let parts = Parts { tensors, layer };
        match self {
            Method::Plain => parts.plain(),
            Method::CompressedTensors { bits, activations } => {
                parts.compressed_tensors(bits, *activations)
            }
            Method::Gptq { bits, plus, ordered } => parts.gptq(*bits, *plus, *ordered),
            Method::Awq => parts.awq(),
        }
    }

    /// Whether there is such a layer; without unpacking it.
    pub(super) fn has(&self, tensors: &SafetensorsFile, layer: &str) -> bool {
        let parts: &[&str] = match self {
            Method::Plain => &["weight"],
            Method::CompressedTensors { .. } => &["weight", "weight_packed"],
            Method::Gptq { .. } | Method::Awq => &["weight", "qweight"],
        };
        parts.iter().any(|part| tensors.get(&format!("{layer}.{part}")).is_some())
    }
}

fn contradiction(what: String) -> Error {
    Error::bad_input(what).code("FB-3708").hint("the file is damaged, or of another model")
}

/// The tensors of one layer.
struct Parts<'t> {
    tensors: &'t SafetensorsFile,
    layer: &'t str,
}

impl Parts<'_> {
    fn find(&self, part: &str) -> Result<Option<Tensor>> {
        let name = format!("{}.{part}", self.layer);
        self.tensors.get(&name).map(|t| t.to_tensor().at(|| format!("tensor `{name}`"))).transpose()
    }

    fn require(&self, part: &str) -> Result<Tensor> {
        self.find(part)?.ok_or_else(|| {
            let name = format!("{}.{part}", self.layer);
            Error::bad_input(format!("the checkpoint has no tensor `{name}`")).code("FB-3701")
        })
    }

    fn compressed_tensors(
        &self,
        bits: &[usize],
        activations: Option<DType>,
    ) -> Result<Option<Weight>> {
        if let Some(words) = self.find("weight_packed")? {
            return self.packed(&words, bits, activations).map(Some);
        }
        let Some(codes) = self.find("weight")? else { return Ok(None) };
        let dtype = codes.dtype();
        if dtype != DType::I8 && !is_float8(dtype) {
            return Ok(Some(Weight::plain(codes)));
        }
        if !matches!(dtype, DType::I8 | DType::F8E4M3FN) {
            return Err(refused(&format!("weights stored as {dtype} with scales")));
        }
        let scales = self.require("weight_scale")?;
        let &[rows, columns] = codes.shape() else {
            return Err(contradiction(format!("codes of shape {:?}", codes.shape())));
        };
        if self.find("weight_zero_point")?.is_some_and(|zeros| {
            zeros.to_f32().is_ok_and(|values| values.iter().any(|value| *value != 0.0))
        }) {
            return Err(refused("8-bit weights with zero points"));
        }
        let scales = scales_of(&scales, rows, columns)?;
        Ok(Some(coded(codes, scales, None, activations)))
    }

    fn packed(&self, words: &Tensor, bits: &[usize], activations: Option<DType>) -> Result<Weight> {
        let shape = self.require("weight_shape")?.to_i64()?;
        let size = |n: &i64| usize::try_from(*n).ok();
        let sizes: Option<Vec<usize>> = shape.iter().map(size).collect();
        let Some([rows, columns]) = sizes.as_deref() else {
            return Err(contradiction(format!("`weight_shape` is {shape:?}")));
        };
        let packing =
            |bits: usize| Packing { rows: *rows, columns: *columns, bits, order: Order::Rows };
        let fits =
            |bits: &&usize| packing(**bits).shape().is_ok_and(|shape| words.shape() == shape);
        let Some(&bits) = bits.iter().find(fits) else {
            let what = format!("words of shape {:?} for {rows} x {columns} codes", words.shape());
            return Err(contradiction(what));
        };
        let scales = scales_of(&self.require("weight_scale")?, *rows, *columns)?;
        let groups = scales.shape()[1];
        if let Some(order) = self.find("weight_g_idx")? {
            check_groups(&order.to_i64()?, groups, *columns)?;
        }
        let codes = signed(&packing(bits).unpack(words.bytes())?, bits);
        let zeros = match self.find("weight_zero_point")? {
            None => None,
            Some(words) => {
                // Along the outputs, as GPTQ packs codes along the inputs.
                let packing = Packing { rows: groups, columns: *rows, bits, order: Order::Columns };
                let zeros = packing.unpack(words.bytes())?;
                Some(integers(&signed(&turned(&zeros, *rows), bits), [*rows, groups], bits, true)?)
            }
        };
        let codes = integers(&codes, [*rows, *columns], bits, true)?;
        Ok(coded(codes, scales, zeros, activations))
    }

    fn gptq(&self, bits: usize, plus: u8, ordered: bool) -> Result<Option<Weight>> {
        let Some(words) = self.find("qweight")? else { return self.plain() };
        let &[height, rows] = words.shape() else {
            return Err(contradiction(format!("`qweight` of shape {:?}", words.shape())));
        };
        let per_word = 32usize.checked_div(bits).unwrap_or(0);
        let columns = height.saturating_mul(per_word);
        let packing = Packing { rows, columns, bits, order: Order::Columns };
        let codes = packing.unpack(words.bytes())?;
        let stored = self.require("scales")?;
        let groups = groups_of(&stored, rows, columns)?;
        let padded = rows.next_multiple_of(per_word.max(1));
        let packing = Packing { rows: groups, columns: padded, bits, order: Order::Rows };
        let zeros = packing.unpack(self.require("qzeros")?.bytes())?;
        let mask = ((1u32 << bits) - 1) as u8;
        let zero = |row: usize, group: usize| zeros[group * padded + row].wrapping_add(plus) & mask;
        let all = (0..rows).flat_map(|row| (0..groups).map(move |group| (row, group)));
        let zeros: Vec<u8> = all.map(|(row, group)| zero(row, group)).collect();
        let scales = turned(&numbers(&stored)?, rows);
        let scales = Tensor::from_slice(vec![rows, groups], &scales)?;
        // One group has every input, whatever their order.
        let order = match ordered && groups > 1 {
            true => Some(self.require("g_idx")?),
            false => self.find("g_idx")?,
        };
        if let Some(order) = order {
            let order = order.to_i64()?;
            if check_groups(&order, groups, columns).is_err() {
                return reordered(&codes, &zeros, &scales, &order, [rows, columns]).map(Some);
            }
        }
        let zeros = integers(&zeros, [rows, groups], bits, false)?;
        let codes = integers(&codes, [rows, columns], bits, false)?;
        Ok(Some(coded(codes, scales, Some(zeros), None)))
    }

    fn awq(&self) -> Result<Option<Weight>> {
        let Some(words) = self.find("qweight")? else { return self.plain() };
        let &[columns, width] = words.shape() else {
            return Err(contradiction(format!("`qweight` of shape {:?}", words.shape())));
        };
        let rows = width.saturating_mul(8);
        let packing = Packing { rows, columns, bits: 4, order: Order::Awq };
        let codes = packing.unpack(words.bytes())?;
        let stored = self.require("scales")?;
        let groups = groups_of(&stored, rows, columns)?;
        let zeros = Packing { columns: groups, ..packing };
        let zeros = zeros.unpack(self.require("qzeros")?.bytes())?;
        let scales = Tensor::from_slice(vec![rows, groups], &turned(&numbers(&stored)?, rows))?;
        let zeros = integers(&zeros, [rows, groups], 4, false)?;
        let codes = integers(&codes, [rows, columns], 4, false)?;
        Ok(Some(coded(codes, scales, Some(zeros), None)))
    }

    fn plain(&self) -> Result<Option<Weight>> {
        let Some(weight) = self.find("weight")? else { return Ok(None) };
        if is_float8(weight.dtype()) {
            self.check_alone()?;
        }
        Ok(Some(Weight::plain(weight)))
    }

    /// Floats of 8 bits are the weights themselves only where no scale lies beside them.
    fn check_alone(&self) -> Result<()> {
        let scale = |name: &str| {
            let part = name.strip_prefix(self.layer).and_then(|rest| rest.strip_prefix('.'));
            part.is_some_and(|part| part.contains("scale"))
        };
        match self.tensors.tensors().iter().find(|tensor| scale(&tensor.name)) {
            None => Ok(()),
            Some(tensor) => Err(refused(&format!(
                "weights in FP8 with `{}`, of which the settings say nothing",
                tensor.name
            ))),
        }
    }
}

fn is_float8(dtype: DType) -> bool {
    use DType::{F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ};
    matches!(dtype, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ)
}

/// The values of scales. (Exponents stored as integers are no floats.)
fn numbers(scales: &Tensor) -> Result<Vec<f32>> {
    match scales.dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => scales.to_f32(),
        other => Err(refused(&format!("scales stored as {other}"))),
    }
}

fn coded(
    codes: Tensor,
    scales: Tensor,
    zeros: Option<Tensor>,
    activations: Option<DType>,
) -> Weight {
    let groups = scales.shape().get(1).copied().unwrap_or(1).max(1);
    let group = codes.shape().get(1).copied().unwrap_or(1) / groups;
    let coded = Coded { scales, zeros, group, activations };
    Weight { coded: Some(Box::new(coded)), ..Weight::plain(codes) }
}

/// Scales as `f32[rows, groups]`, from one for all, one for each row, or one for each group.
fn scales_of(stored: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let values = numbers(stored)?;
    let groups = match stored.shape() {
        _ if rows == 0 || columns == 0 => {
            return Err(contradiction(format!("a matrix of {rows} x {columns} codes")));
        }
        [] | [1] => return Tensor::from_slice(vec![rows, 1], &vec![values[0]; rows]),
        &[found] if found == rows => 1,
        &[found, groups] if found == rows && groups > 0 && columns.is_multiple_of(groups) => groups,
        &[blocks, _] if blocks > 0 && blocks < rows => {
            return Err(refused("weights with a scale for each block of several rows"));
        }
        other => {
            let what = format!("scales of shape {other:?} for {rows} x {columns} codes");
            return Err(contradiction(what));
        }
    };
    Tensor::from_slice(vec![rows, groups], &values)
}

/// Groups of scales `[groups, rows]`.
fn groups_of(scales: &Tensor, rows: usize, columns: usize) -> Result<usize> {
    match scales.shape() {
        &[groups, found] if found == rows && groups > 0 && columns.is_multiple_of(groups) => {
            Ok(groups)
        }
        other => {
            Err(contradiction(format!("scales of shape {other:?} for {rows} x {columns} codes")))
        }
    }
}

/// Whether every input is of the group that its place says.
fn check_groups(order: &[i64], groups: usize, columns: usize) -> Result<()> {
    let group = columns / groups.max(1);
    let usual = |(column, &index): (usize, &i64)| {
        usize::try_from(index).is_ok_and(|index| index == column / group.max(1))
    };
    match order.len() == columns && order.iter().enumerate().all(usual) {
        true => Ok(()),
        false => Err(refused("groups of inputs that are no neighbours")),
    }
}

/// Numbers of a matrix whose groups are no neighbours: no operator says that, so they are
/// computed here.
fn reordered(
    codes: &[u8],
    zeros: &[u8],
    scales: &Tensor,
    order: &[i64],
    [rows, columns]: [usize; 2],
) -> Result<Weight> {
    let groups = scales.shape()[1];
    let group = |index: &i64| usize::try_from(*index).ok().filter(|group| *group < groups);
    let order: Option<Vec<usize>> = order.iter().map(group).collect();
    let order = order.filter(|order| order.len() == columns);
    let order = order.ok_or_else(|| contradiction("`g_idx` names groups that are not".into()))?;
    let scales = scales.to_f32()?;
    let value = |at: usize| {
        let group = at / columns * groups + order[at % columns];
        (f32::from(codes[at]) - f32::from(zeros[group])) * scales[group]
    };
    let values: Vec<f32> = (0..rows * columns).map(value).collect();
    Ok(Weight::plain(Tensor::from_slice(vec![rows, columns], &values)?))
}

/// The transposition of a matrix with rows of `width`.
fn turned<T: Copy>(values: &[T], width: usize) -> Vec<T> {
    let height = values.len() / width.max(1);
    (0..width).flat_map(|column| (0..height).map(move |row| values[row * width + column])).collect()
}

/// Codes from 0 on as codes around 0, in two's complement.
fn signed(codes: &[u8], bits: usize) -> Vec<u8> {
    codes.iter().map(|code| code.wrapping_sub(1 << (bits - 1))).collect()
}

/// Integers as a tensor of 4 or 8 bits.
fn integers(codes: &[u8], shape: [usize; 2], bits: usize, signed: bool) -> Result<Tensor> {
    let dtype = match (bits, signed) {
        (4, true) => DType::I4,
        (4, false) => DType::U4,
        (_, true) => DType::I8,
        (_, false) => DType::U8,
    };
    if bits != 4 {
        let bytes = AlignedBytes::copy_of(codes);
        return Tensor::from_bytes(dtype, shape.into(), bytes.into());
    }
    let mut packed = vec![0; codes.len().div_ceil(2)];
    pack_bits(codes.iter().map(|code| i64::from(*code)), 4, &mut packed);
    Tensor::from_bytes(dtype, shape.into(), AlignedBytes::copy_of(&packed).into())
}
