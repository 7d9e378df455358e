//! What becomes of the exact sums of an int8 product, ready for the kernels.

use crate::ops::conv::Part;
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::gemm::{
    Addition, Clamp, Dequantize, FusedAdd, Output, OwnCodes, Requantize, Residual,
};
use fewbit_kernels::{Int8, Int8Mut, Isa};

/// The last part of an integer step.
pub(crate) enum Finish {
    /// 8-bit codes.
    Codes(Codes),
    /// Numbers: `clamp(sum * scale + bias)`.
    Float { scale: Vec<f32>, bias: Option<Vec<f32>>, clamp: Option<Clamp> },
}

/// Codes that are added; the fields are those of [`Residual`].
#[derive(Clone, Copy)]
pub(crate) struct Addend {
    pub dtype: DType,
    pub is_row: bool,
    pub zero_point: i32,
    pub multiplier: f32,
}

/// How sums become codes; the fields are those of [`Requantize`].
pub(crate) struct Codes {
    pub dtype: DType,
    pub bias: Option<Vec<i32>>,
    pub multiplier: Vec<f32>,
    pub zero_point: i32,
    pub lo: i32,
    pub hi: i32,
    pub residual: Option<Addend>,
    /// Where the sums become codes before that is added.
    pub own: Option<OwnCodes>,
}

impl Finish {
    /// Ready for the kernels of an instruction set.
    pub fn prepared(self, isa: Isa) -> Finish {
        match self {
            Finish::Codes(codes) => Finish::Codes(codes.quickened(isa)),
            float => float,
        }
    }

    /// For the channels that a part of a transposed convolution has.
    pub fn for_part(&self, part: &Part) -> Finish {
        match self {
            Finish::Codes(codes) => Finish::Codes(Codes {
                bias: codes.bias.as_deref().map(|bias| part.channels(bias)),
                multiplier: part.channels(&codes.multiplier),
                ..*codes
            }),
            Finish::Float { scale, bias, clamp } => Finish::Float {
                scale: part.channels(scale),
                bias: bias.as_deref().map(|bias| part.channels(bias)),
                clamp: *clamp,
            },
        }
    }

    /// Element type of the output.
    pub fn dtype(&self) -> DType {
        match self {
            Finish::Codes(codes) => codes.dtype,
            Finish::Float { .. } => DType::F32,
        }
    }

    /// Ending of the kernel's name.
    pub fn suffix(&self) -> &'static str {
        match self {
            Finish::Codes(codes) if codes.residual.is_some() => "i8_add",
            Finish::Codes(_) => "i8",
            Finish::Float { .. } => "i8_f32",
        }
    }

    /// How sums become codes to which nothing is added.
    pub fn plain_codes(&self) -> Option<Requantize<'_>> {
        match self {
            Finish::Codes(codes) if codes.residual.is_none() => Some(codes.requantize(None)),
            _ => None,
        }
    }

    /// How sums become codes to which nothing is added but a tensor of their shape.
    pub fn codes(&self) -> Option<&Codes> {
        match self {
            Finish::Codes(codes) => codes.residual.is_none_or(|r| !r.is_row).then_some(codes),
            Finish::Float { .. } => None,
        }
    }

    /// The kernels' view, writing to `out`.
    ///
    /// # Errors
    /// When a tensor has another type than the step was prepared for.
    pub fn output<'a>(
        &'a self,
        out: &'a mut Tensor,
        residual: Option<&'a Tensor>,
    ) -> Result<Output<'a>> {
        Ok(match self {
            Finish::Codes(codes) => {
                let to = codes.requantize(codes.residual(residual, out.shape())?);
                Output::Int8(int8_mut(out)?, to)
            }
            Finish::Float { scale, bias, clamp } => {
                let to = Dequantize { scale, bias: bias.as_deref(), clamp: *clamp };
                Output::F32(out.as_mut_slice()?, to)
            }
        })
    }
}

impl Codes {
    /// With the quicker way to add, where there is one.
    fn quickened(mut self, isa: Isa) -> Codes {
        if let (Some(own), Some(added)) = (&mut self.own, &self.residual) {
            own.fused = FusedAdd::find(
                isa,
                &Addition {
                    own: *own,
                    signed: added.dtype == DType::I8,
                    zero_point: added.zero_point,
                    multiplier: added.multiplier,
                    limits: [self.lo - self.zero_point, self.hi - self.zero_point],
                },
            );
        }
        self
    }

    /// What is added to an output of shape `shape`.
    fn residual<'a>(
        &self,
        tensor: Option<&'a Tensor>,
        shape: &[usize],
    ) -> Result<Option<Residual<'a>>> {
        let Some(added) = self.residual else { return Ok(None) };
        let tensor = tensor.ok_or_else(|| Error::internal("the residual is missing"))?;
        let fits = match added.is_row {
            true => tensor.len() == self.multiplier.len(),
            false => tensor.shape() == shape,
        };
        if !fits {
            return Err(Error::internal("a residual has another shape than the output"));
        }
        Ok(Some(self.added(added, int8(tensor, added.dtype)?)))
    }

    fn added<'a>(&self, added: Addend, values: Int8<'a>) -> Residual<'a> {
        let Addend { is_row, zero_point, multiplier, .. } = added;
        Residual { values, is_row, zero_point, multiplier, own: self.own }
    }

    fn requantize<'a>(&'a self, residual: Option<Residual<'a>>) -> Requantize<'a> {
        Requantize {
            bias: self.bias.as_deref(),
            multiplier: &self.multiplier,
            residual,
            zero_point: self.zero_point,
            lo: self.lo,
            hi: self.hi,
        }
    }

    /// The kernels' view, with a residual whose values are missing.
    pub fn without_values(&self) -> Requantize<'_> {
        self.requantize(self.residual.map(|added| self.added(added, no_values(added.dtype))))
    }
}

/// The 8-bit values of a tensor that must be of type `dtype`.
///
/// # Errors
/// When it is of another type.
pub(crate) fn int8(tensor: &Tensor, dtype: DType) -> Result<Int8<'_>> {
    match dtype {
        DType::U8 => Ok(Int8::U8(tensor.as_slice()?)),
        DType::I8 => Ok(Int8::I8(tensor.as_slice()?)),
        other => Err(Error::internal(format!("{other} is no 8-bit type"))),
    }
}

/// No values of an 8-bit type.
pub(crate) fn no_values(dtype: DType) -> Int8<'static> {
    match dtype {
        DType::I8 => Int8::I8(&[]),
        _ => Int8::U8(&[]),
    }
}

fn int8_mut(tensor: &mut Tensor) -> Result<Int8Mut<'_>> {
    match tensor.dtype() {
        DType::U8 => Ok(Int8Mut::U8(tensor.as_mut_slice()?)),
        DType::I8 => Ok(Int8Mut::I8(tensor.as_mut_slice()?)),
        other => Err(Error::internal(format!("{other} is no 8-bit type"))),
    }
}
