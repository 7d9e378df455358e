//! `Einsum`: sums of products along named axes.

mod equation;

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
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

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

    fn sum<T: Number>(&self, operands: &[&[T]], out: &mut [T]) {
        let (outer, inner) = self.sizes.split_at(self.outer);
        let mut index = vec![0; outer.len()];
        let mut bases = vec![0; operands.len()];
        for slot in out {
            *slot = self.inner_sum(operands, bases.clone(), inner);
            self.step(&mut index, outer, 0, &mut bases);
        }
    }

    fn inner_sum<T: Number>(&self, operands: &[&[T]], mut at: Vec<usize>, inner: &[usize]) -> T {
        let mut total = T::ZERO;
        if inner.contains(&0) {
            return total;
        }
        let mut index = vec![0; inner.len()];
        loop {
            let factors = operands.iter().zip(&at).map(|(operand, &at)| operand[at]);
            total = total.add(factors.fold(T::ONE, T::mul));
            self.step(&mut index, inner, self.outer, &mut at);
            if index.iter().all(|&i| i == 0) {
                return total;
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
