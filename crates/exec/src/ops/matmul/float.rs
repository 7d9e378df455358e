//! Float matrix products over the kernels.

use crate::memory::Arena;
use crate::ops::matmul::shape::{Product, product};
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use fewbit_core::{DType, Element, Error, Result, Tensor};
use fewbit_kernels::Ctx;
use fewbit_kernels::gemm::{Clamp, Epilogue, Matrix, PackedF32, gemm_f32};

/// `a @ b` for f32.
pub(crate) fn matmul_f32(ctx: &Ctx, arena: &Arena, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let shape = product(a.shape(), b.shape())?;
    let Product { m, k, n, .. } = shape;
    let (x, w) = (a.cow::<f32>()?, b.cow::<f32>()?);
    let mut output = arena.tensor(DType::F32, shape.output.clone())?;
    let y = output.as_mut_slice::<f32>()?;
    if k == 0 || y.is_empty() {
        y.fill(0.0);
        return Ok(output);
    }
    let pack = |j: usize| PackedF32::new(k, n, &w[j * k * n..][..k * n]);
    let multiply = |i: usize, b: &PackedF32, y: &mut [f32]| {
        let a = Matrix { data: &x[i * m * k..][..m * k], stride: k };
        gemm_f32(*ctx, m, a, b, Epilogue::default(), Matrix { data: y, stride: n });
    };
    let batches: Vec<(usize, usize)> = shape.batches().collect();
    let each_its_own = batches.windows(2).all(|pair| pair[0].1 != pair[1].1);
    if each_its_own && batches.len() >= ctx.pool.threads() {
        ctx.pool.for_each_chunk(y, m * n, |index, y| {
            let (i, j) = batches[index];
            multiply(i, &pack(j), y);
        });
        return Ok(output);
    }
    let mut packed: Option<(usize, PackedF32)> = None;
    for ((i, j), y) in batches.into_iter().zip(y.chunks_exact_mut(m * n)) {
        if packed.as_ref().is_none_or(|(at, _)| *at != j) {
            packed = Some((j, pack(j)));
        }
        if let Some((_, b)) = &packed {
            multiply(i, b, y);
        }
    }
    Ok(output)
}

/// `a @ b` for types without a kernel of their own: `multiply_add(sum, a, b)` over k in order.
pub(crate) fn matmul_plain<T: Element + Default>(
    arena: &Arena,
    a: &Tensor,
    b: &Tensor,
    multiply_add: impl Fn(T, T, T) -> T,
) -> Result<Tensor> {
    let shape = product(a.shape(), b.shape())?;
    let Product { m, k, n, .. } = shape;
    let (x, w) = (a.cow::<T>()?, b.cow::<T>()?);
    let mut output = arena.tensor(T::DTYPE, shape.output.clone())?;
    let y = output.as_mut_slice::<T>()?;
    y.fill(T::default());
    if y.is_empty() {
        return Ok(output);
    }
    for ((i, j), y) in shape.batches().zip(y.chunks_exact_mut(m * n)) {
        for (row, y) in y.chunks_exact_mut(n).enumerate() {
            for inner in 0..k {
                let a = x[(i * m + row) * k + inner];
                let b = &w[(j * k + inner) * n..][..n];
                y.iter_mut().zip(b).for_each(|(y, &b)| *y = multiply_add(*y, a, b));
            }
        }
    }
    Ok(output)
}

/// A product with a constant right operand, packed once, and what follows it.
pub(crate) struct FloatMatMulKernel {
    pub weights: PackedF32,
    pub bias: Option<Vec<f32>>,
    pub clamp: Option<Clamp>,
    /// Whether the left operand must be a matrix (`Gemm`).
    pub matrix_only: bool,
}

impl Kernel for FloatMatMulKernel {
    fn name(&self) -> String {
        "gemm_f32".to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let a = required(inputs, 0)?;
        let residual = inputs.get(1).and_then(Option::as_ref);
        let (k, n) = (self.weights.k(), self.weights.n());
        let shape = output_shape(a.shape(), k, n, self.matrix_only)?;
        let mut output = ctx.arena.tensor(DType::F32, shape)?;
        if residual.is_some_and(|r| r.shape() != output.shape()) {
            return Err(Error::internal("a residual has another shape than the output"));
        }
        let residual = residual.map(|r| r.as_slice::<f32>()).transpose()?;
        let epilogue = Epilogue { bias: self.bias.as_deref(), residual, clamp: self.clamp };
        let x = a.cow::<f32>()?;
        let c = Matrix { data: output.as_mut_slice::<f32>()?, stride: n };
        gemm_f32(
            *ctx.kernels,
            x.len() / k,
            Matrix { data: &x, stride: k },
            &self.weights,
            epilogue,
            c,
        );
        Ok(vec![output])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        let outputs = outputs.first().map_or(0, Tensor::len);
        (outputs as u64).saturating_mul(self.weights.k() as u64)
    }
}

/// Shape of `a @ b` for a `[k, n]` matrix `b`.
///
/// # Errors
/// When the last dimension of `a` is not `k`.
pub(crate) fn output_shape(a: &[usize], k: usize, n: usize, matrix: bool) -> Result<Vec<usize>> {
    if a.last() != Some(&k) || (matrix && a.len() != 2) {
        return Err(Error::bad_input(format!(
            "a left operand of shape {a:?} for a weight of {k} rows and {n} columns"
        ))
        .code("FB-3214"));
    }
    let mut shape = a.to_vec();
    shape[a.len() - 1] = n;
    Ok(shape)
}
