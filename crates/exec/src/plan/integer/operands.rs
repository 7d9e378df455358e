//! What `ConvInteger` and `MatMulInteger` read where they are one step: codes of a run with one zero
//! point, and a constant weight.

use super::scaled::is_number;
use crate::plan::lower::Lowering;
use fewbit_core::{DType, Node, Result, Tensor};

/// The type of the codes that `node` reads as its first input, where their zero point is one number.
pub(crate) fn codes_of_a_run(lowering: &Lowering, node: &Node) -> Option<DType> {
    let is_one = |zero| lowering.ty(zero).fixed_shape().is_some_and(|shape| is_number(&shape));
    let dtype = lowering.ty(node.input(0)?).dtype.filter(|dtype| is_byte(*dtype))?;
    node.input(2).is_none_or(is_one).then_some(dtype)
}

/// The second input, and its zero points.
pub(crate) struct Weight {
    pub codes: Tensor,
    /// One for each output channel.
    pub zeros: Vec<i32>,
}

impl Weight {
    /// Those of `node`, where they are constants that hold anything; `channels` says how many output
    /// channels a weight of some shape has, if it may have it.
    ///
    /// # Errors
    /// When the zero points cannot be read.
    pub fn of(
        lowering: &Lowering,
        node: &Node,
        channels: impl Fn(&[usize]) -> Option<usize>,
    ) -> Result<Option<Weight>> {
        let constant = |index: usize| node.input(index).and_then(|v| lowering.constant(v));
        let codes = constant(1).filter(|codes| is_byte(codes.dtype()) && !codes.is_empty());
        let Some((codes, channels)) = codes.and_then(|codes| {
            let channels = channels(codes.shape())?;
            Some((codes, channels))
        }) else {
            return Ok(None);
        };
        let zeros = match node.input(3) {
            None => vec![0],
            Some(_) => match constant(3).filter(|zeros| zeros.dtype() == codes.dtype()) {
                None => return Ok(None),
                Some(zeros) => zeros.to_i64()?,
            },
        };
        let zeros: Vec<i32> = match zeros[..] {
            [zero] => vec![zero as i32; channels],
            _ => zeros.into_iter().map(|zero| zero as i32).collect(),
        };
        Ok((zeros.len() == channels).then_some(Weight { codes, zeros }))
    }
}

fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8)
}
