//! `Einsum`: sums of products along named axes.

mod equation;
mod product;

use super::broadcast::advance;
use super::half::through_f32;
use super::number::{Number, for_number};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, broadcast_dims};
use crate::ops::movement::common_dtype;
use crate::ops::params::like_input;
use crate::ops::strided::strides;
use equation::{Equation, Label};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use product::Product;

pub(super) const DEFS: &[OpDef] = &[OpDef::new("Einsum", infer, eval).since(12)];

/// The loops of an equation: one for each axis of the output, then one for each summed axis.
struct Loops {
    sizes: Vec<usize>,
    /// How many of them belong to the output.
    outer: usize,
    /// For each operand its step along each loop.
    steps: Vec<Vec<usize>>,
}

impl Loops {
    fn new(equation: &Equation, shapes: &[&[usize]]) -> Result<Loops> {
        let mut labels = equation.output.clone();
        for &label in equation.inputs.iter().flatten() {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        let mut sizes = vec![1; labels.len()];
        let mut steps = vec![vec![0; labels.len()]; shapes.len()];
        let at = |label: Label| labels.iter().position(|&other| other == label).unwrap_or(0);
        for ((term, shape), steps) in equation.inputs.iter().zip(shapes).zip(&mut steps) {
            let own = strides(shape);
            for ((&label, &size), step) in term.iter().zip(*shape).zip(own) {
                let index = at(label);
                if size != 1 && sizes[index] != 1 && sizes[index] != size {
                    return Err(Error::bad_input(format!(
                        "one axis has {} elements and {size}",
                        sizes[index]
                    )));
                }
                if size != 1 {
                    sizes[index] = size;
                    steps[index] += step as usize;
                }
            }
        }
        Ok(Loops { sizes, outer: equation.output.len(), steps })
    }

    /// Adds up rows of the output's last axis, one for each index of the summed axes.
    fn sum<T: Number>(&self, operands: &[&[T]], out: &mut [T]) {
        let (outer, inner) = self.sizes.split_at(self.outer);
        let (len, outer) = outer.split_last().map_or((1, outer), |(&len, outer)| (len, outer));
        out.fill(T::ZERO);
        if out.is_empty() || inner.contains(&0) {
            return;
        }
        let mut product = vec![T::ONE; len];
        let (mut index, mut inner_index) = (vec![0; outer.len()], vec![0; inner.len()]);
        let mut bases = vec![0; operands.len()];
        for row in out.chunks_exact_mut(len) {
            // Behind its last step, the walk over the summed axes stands where it began.
            for _ in 0..inner.iter().product::<usize>() {
                self.multiply(operands, &bases, &mut product);
                row.iter_mut().zip(&product).for_each(|(sum, &value)| *sum = sum.add(value));
                self.step(&mut inner_index, inner, self.outer, &mut bases);
            }
            self.step(&mut index, outer, 0, &mut bases);
        }
    }

    /// The products of a row, whose operands begin at `bases`.
    fn multiply<T: Number>(&self, operands: &[&[T]], bases: &[usize], product: &mut [T]) {
        product.fill(T::ONE);
        let steps = |k: usize| self.outer.checked_sub(1).map_or(0, |last| self.steps[k][last]);
        for (k, (operand, &base)) in operands.iter().zip(bases).enumerate() {
            let operand = &operand[base..];
            match steps(k) {
                0 => product.iter_mut().for_each(|p| *p = p.mul(operand[0])),
                1 => product.iter_mut().zip(operand).for_each(|(p, &v)| *p = p.mul(v)),
                step => {
                    let values = operand.iter().step_by(step);
                    product.iter_mut().zip(values).for_each(|(p, &v)| *p = p.mul(v));
                }
            }
        }
    }

    /// Moves on along the loops from `first`; each operand's place moves with them.
    fn step(&self, index: &mut [usize], sizes: &[usize], first: usize, at: &mut [usize]) {
        advance(index, sizes, |axis, forward| {
            for (at, steps) in at.iter_mut().zip(&self.steps) {
                match forward {
                    true => *at += steps[first + axis],
                    false => *at -= steps[first + axis] * (sizes[axis] - 1),
                }
            }
        });
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(outputs) = through_f32(ctx, eval)? {
        return Ok(outputs);
    }
    let operands = (0..ctx.input_count()).map(|i| ctx.input(i)).collect::<Result<Vec<_>>>()?;
    let shapes: Vec<&[usize]> = operands.iter().map(|t| t.shape()).collect();
    let ranks: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    let equation = Equation::parse(ctx.string("equation", "")?, &ranks)?;
    let loops = Loops::new(&equation, &shapes)?;
    let shape = loops.sizes[..loops.outer].to_vec();
    if let [a, b] = operands[..]
        && common_dtype(&operands)? == DType::F32
        && let Some(product) = Product::of(&equation, [a.shape(), b.shape()])
    {
        return Ok(vec![product.eval(ctx, [a, b])?.reshape(shape)?]);
    }
    let out = for_number!(common_dtype(&operands)?, T => {
        let values = operands.iter().map(|t| t.cow::<T>()).collect::<Result<Vec<_>>>()?;
        let values: Vec<&[T]> = values.iter().map(|v| &**v).collect();
        ctx.output(shape, |out: &mut [T]| {
            loops.sum(&values, out);
            Ok(())
        })
    })?;
    Ok(vec![out])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shapes: Option<Vec<&[Dim]>> = (0..ctx.inputs.len()).map(|i| ctx.shape(i)).collect();
    let Some(shapes) = shapes else { return Ok(like_input(ctx, None)) };
    let ranks: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    let equation = Equation::parse(ctx.node.string("equation")?.unwrap_or_default(), &ranks)?;
    let mut output = Vec::new();
    for label in &equation.output {
        let mut dim = vec![Dim::Known(1)];
        for (term, shape) in equation.inputs.iter().zip(&shapes) {
            for (_, size) in term.iter().zip(*shape).filter(|(other, _)| *other == label) {
                dim = broadcast_dims(&dim, std::slice::from_ref(size))?;
            }
        }
        output.append(&mut dim);
    }
    Ok(like_input(ctx, Some(output)))
}

#[cfg(test)]
mod tests;
