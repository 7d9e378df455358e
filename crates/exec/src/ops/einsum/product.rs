//! Equations of two operands as matrix products, `[batch, m, k] @ [batch, k, n]`.

use super::equation::{Equation, Label};
use crate::eval::EvalCtx;
use crate::ops::matmul::float::matmul_f32;
use fewbit_core::{DType, Result, Tensor};
use fewbit_kernels::transpose::transpose;

/// Multiplications that are worth a product for each index of the batch.
const LEAST: usize = 512;

/// The axes of a matrix product. One of a single element is none: where the other operand has
/// more of it, it repeats.
pub(super) struct Product {
    /// Whether the second operand is the left one.
    swapped: bool,
    left: Term,
    right: Term,
    output: Vec<Label>,
    /// Axes of both operands and the output.
    batch: Vec<Label>,
    /// Axes of the left operand and the output.
    rows: Vec<Label>,
    /// Axes of both operands that are summed over.
    inner: Vec<Label>,
    /// Axes of the right operand and the output.
    columns: Vec<Label>,
}

impl Product {
    /// `None` where the equation is no matrix product, or one of many tiny matrices.
    pub fn of(equation: &Equation, shapes: [&[usize]; 2]) -> Option<Product> {
        let [first, second] = &equation.inputs[..] else { return None };
        let (first, second) = (Term::new(first, shapes[0])?, Term::new(second, shapes[1])?);
        let has = |labels: &[Label], label: &Label| labels.contains(label);
        let used = |label: &Label| has(&first.labels, label) || has(&second.labels, label);
        let output: Vec<Label> = equation.output.iter().copied().filter(used).collect();
        // The right operand has the last axis of the output, so that few outputs are turned.
        let swapped = output.last().is_some_and(|last| !has(&second.labels, last));
        let (left, right) = if swapped { (second, first) } else { (first, second) };
        let of = |labels: &[Label], in_right: bool, in_output: bool| -> Vec<Label> {
            let fits = |label: &Label| {
                has(&right.labels, label) == in_right && has(&output, label) == in_output
            };
            labels.iter().copied().filter(fits).collect()
        };
        let summed_alone = |label: &Label| !has(&left.labels, label) && !has(&output, label);
        if !of(&left.labels, false, false).is_empty() || right.labels.iter().any(summed_alone) {
            return None;
        }
        let batch = of(&output, true, true);
        let (batch, columns) = batch.into_iter().partition(|label| has(&left.labels, label));
        let rows = of(&output, false, true);
        let inner = of(&left.labels, true, false);
        let product = Product { swapped, left, right, output, batch, rows, inner, columns };
        let [_, m, k, n] = product.sizes();
        (m.saturating_mul(k).saturating_mul(n) >= LEAST).then_some(product)
    }

    /// Elements of the batch, rows, summed axes and columns.
    fn sizes(&self) -> [usize; 4] {
        let groups = [&self.batch, &self.rows, &self.inner, &self.columns];
        groups.map(|labels| labels.iter().map(|&label| self.size(label)).product())
    }

    fn size(&self, label: Label) -> usize {
        self.left.size(label).or(self.right.size(label)).unwrap_or(1)
    }

    /// The product, without axes of one element.
    ///
    /// # Errors
    /// When a buffer would be too large.
    pub fn eval(&self, ctx: &EvalCtx, [first, second]: [&Tensor; 2]) -> Result<Tensor> {
        let (a, b) = if self.swapped { (second, first) } else { (first, second) };
        let [batch, m, k, n] = self.sizes();
        let a_order = [&self.batch[..], &self.rows, &self.inner].concat();
        let b_order = [&self.batch[..], &self.inner, &self.columns].concat();
        let a = self.left.turned(ctx, a, &a_order)?.reshape(vec![batch, m, k])?;
        let b = self.right.turned(ctx, b, &b_order)?.reshape(vec![batch, k, n])?;
        let product = matmul_f32(ctx.kernels, ctx.arena, &a, &b)?;
        [a, b].into_iter().for_each(|t| ctx.arena.recycle(t));
        let labels = [&self.batch[..], &self.rows, &self.columns].concat();
        let sizes: Vec<usize> = labels.iter().map(|&label| self.size(label)).collect();
        let product = product.reshape(sizes.clone())?;
        Term { labels, sizes }.turned(ctx, &product, &self.output)
    }
}

/// The axes of a value that have other than one element.
struct Term {
    labels: Vec<Label>,
    sizes: Vec<usize>,
}

impl Term {
    /// `None` where an axis stands twice.
    fn new(labels: &[Label], shape: &[usize]) -> Option<Term> {
        let axes = labels.iter().zip(shape).filter(|(_, size)| **size != 1);
        let (labels, sizes): (Vec<Label>, Vec<usize>) = axes.unzip();
        let twice = (1..labels.len()).any(|i| labels[..i].contains(&labels[i]));
        (!twice).then_some(Term { labels, sizes })
    }

    fn size(&self, label: Label) -> Option<usize> {
        self.labels.iter().zip(&self.sizes).find(|(own, _)| **own == label).map(|(_, size)| *size)
    }

    /// The elements of `tensor`, whose axes these are, with the axes in another order.
    fn turned(&self, ctx: &EvalCtx, tensor: &Tensor, order: &[Label]) -> Result<Tensor> {
        if self.labels == order {
            return Ok(tensor.clone());
        }
        let place = |label: &Label| self.labels.iter().position(|own| own == label);
        let order: Vec<usize> = order.iter().filter_map(place).collect();
        let shape = order.iter().map(|&axis| self.sizes[axis]).collect();
        let mut out = ctx.alloc(DType::F32, shape)?;
        transpose(*ctx.kernels, 4, tensor.bytes(), &self.sizes, &order, out.bytes_mut());
        Ok(out)
    }
}
