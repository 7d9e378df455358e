//! What a node on codes reads: constants, types, scales.

use fewbit_core::{DType, Graph, Node, Tensor, ValueId, ValueType};

/// Codes that are read. Several scales run along `axis`.
pub(super) struct Operand {
    pub codes: ValueId,
    pub coding: Coding,
    pub axis: usize,
}

/// One scale and zero point, or one for each channel.
pub(super) struct Coding {
    pub scale: Tensor,
    pub zero_point: Option<Tensor>,
}

/// A node and what is known around it.
pub(super) struct Site<'a> {
    pub graph: &'a Graph,
    pub types: &'a [ValueType],
    pub node: &'a Node,
}

impl Site<'_> {
    /// The constant at an input.
    pub fn constant(&self, index: usize) -> Option<&Tensor> {
        self.graph.constant(self.node.input(index)?)
    }

    /// What is known of an input.
    pub fn ty(&self, index: usize) -> Option<&ValueType> {
        Some(&self.types[self.node.input(index)?.index()])
    }

    /// Type of the codes at an input.
    pub fn dtype(&self, index: usize) -> Option<DType> {
        self.ty(index)?.dtype.filter(|dtype| matches!(dtype, DType::U8 | DType::I8))
    }

    /// Whether an attribute is there and not 0; `None` where it is no number.
    pub fn is_set(&self, name: &str) -> Option<bool> {
        Some(self.node.int(name).ok()?.unwrap_or(0) != 0)
    }

    /// The constant scales and zero points at two inputs, of which each has one or `channels`.
    pub fn coding(
        &self,
        scale: usize,
        zero: usize,
        dtype: DType,
        channels: usize,
    ) -> Option<Coding> {
        let scales = self.constant(scale).filter(|scale| scale.dtype() == DType::F32)?;
        let zeros = match self.node.input(zero) {
            None => vec![0.0],
            Some(_) => self.constant(zero).filter(|zero| zero.dtype() == dtype)?.to_f64().ok()?,
        };
        let rank = scales.rank();
        let scales = scales.to_f32().ok()?;
        let count = scales.len().max(zeros.len());
        let fits = |len: usize| len == count || len == 1;
        let sound = scales.iter().all(|&scale| scale.is_normal() && scale > 0.0);
        let known = count == 1 || (count == channels && rank <= 1);
        if !(known && sound && fits(scales.len()) && fits(zeros.len())) {
            return None;
        }
        let zeros: Vec<f64> = zeros.iter().cycle().take(count).copied().collect();
        let zero_point = Tensor::from_f64(dtype, shape_of(count), &zeros).ok()?;
        let scales: Vec<f32> = scales.iter().cycle().take(count).copied().collect();
        Some(Coding { scale: one_or_each(&scales)?, zero_point: Some(zero_point) })
    }

    /// Codes from input `first` on, with their scale and zero point behind them.
    pub fn operand(&self, first: usize) -> Option<Operand> {
        self.per_channel(first, 0, 1)
    }

    /// Codes from input `first` on, with scales for all or for each of the `channels` along `axis`.
    pub fn per_channel(&self, first: usize, axis: usize, channels: usize) -> Option<Operand> {
        let codes = self.node.input(first)?;
        let coding = self.coding(first + 1, first + 2, self.dtype(first)?, channels)?;
        Some(Operand { codes, coding, axis })
    }

    /// The codes of the output, of the type of their zero point; `own` without one.
    pub fn result(&self, scale: usize, zero: usize, own: DType) -> Option<Coding> {
        let dtype = match self.node.input(zero) {
            None => own,
            Some(_) => self.dtype(zero)?,
        };
        self.coding(scale, zero, dtype, 1)
    }

    /// The bias of a product: codes in units of its sums.
    pub fn bias(&self, index: usize, x: &Operand, w: &Operand, channels: usize) -> Option<Operand> {
        let codes = self.constant(index)?;
        let row = codes.shape().iter().rev().skip(1).all(|&n| n == 1);
        if codes.dtype() != DType::I32 || codes.len() != channels || !row || codes.rank() == 0 {
            return None;
        }
        let unit = x.coding.scale.to_f32().ok()?.first().copied()?;
        let scales: Vec<f32> = w.coding.scale.to_f32().ok()?.iter().map(|w| unit * w).collect();
        let sound = scales.iter().all(|scale| scale.is_normal());
        let coding = Coding { scale: one_or_each(&scales).filter(|_| sound)?, zero_point: None };
        Some(Operand { codes: self.node.input(index)?, coding, axis: codes.rank() - 1 })
    }
}

fn shape_of(count: usize) -> Vec<usize> {
    if count == 1 { vec![] } else { vec![count] }
}

fn one_or_each(scales: &[f32]) -> Option<Tensor> {
    Tensor::from_slice(shape_of(scales.len()), scales).ok()
}
