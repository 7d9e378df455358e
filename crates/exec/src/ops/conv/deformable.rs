//! `DeformConv`: a convolution whose samples are moved by offsets that the network computes
//! (Dai et al. 2017), and weighed by a mask (Zhu et al. 2018).

use super::geometry::groups;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::half::through_f32;
use crate::ops::params::size;
use crate::ops::window::Window;
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};

pub(super) const DEF: OpDef = OpDef::new("DeformConv", infer, eval).since(19);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (Some([n, ..]), Some([out, ..]), Some([_, _, size @ ..])) =
        (ctx.shape(0), ctx.shape(1), ctx.shape(2))
    else {
        return Ok(vec![only_dtype(ctx.dtype(0))]);
    };
    let dims: Vec<Dim> = [n, out].into_iter().chain(size).cloned().collect();
    Ok(vec![typed(ctx.dtype(0), Some(dims))])
}

/// The sizes of one node; all tensors have been checked against them.
struct Deformable {
    window: Window,
    batch: usize,
    channels: usize,
    groups: usize,
    offset_groups: usize,
    /// Height and width of input, kernel and output.
    input: [usize; 2],
    kernel: [usize; 2],
    output: [usize; 2],
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let sizes = Deformable::new(ctx)?;
    let outputs = ctx.input(1)?.shape()[0];
    let bias = match ctx.opt(3) {
        Some(bias) if bias.shape() == [outputs] => bias.to_vec::<f32>()?,
        Some(bias) => return Err(misfit("bias", bias, &[outputs])),
        None => vec![0.0; outputs],
    };
    let [height, width] = sizes.output;
    let mut y = ctx.alloc(DType::F32, vec![sizes.batch, outputs, height, width])?;
    sizes.run(ctx, outputs, &bias, y.as_mut_slice()?)?;
    Ok(vec![y])
}

impl Deformable {
    fn new(ctx: &EvalCtx) -> Result<Deformable> {
        let (x, w, offset) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
        let (&[batch, channels, ih, iw], &[outputs, each, kh, kw]) = (x.shape(), w.shape()) else {
            return Err(Error::unsupported("DeformConv other than over two dimensions"));
        };
        let window = Window::new(ctx.node, &[kh, kw])?;
        let &[height, width] = window.output_sizes(&[ih, iw])?.as_slice() else {
            return Err(Error::internal("a window of other than two dimensions"));
        };
        let groups = groups(ctx.node)?;
        let offset_groups = size(ctx.int("offset_group", 1)?, "offset_group")?.max(1);
        let fits = each.checked_mul(groups) == Some(channels)
            && outputs.is_multiple_of(groups)
            && channels.is_multiple_of(offset_groups);
        if !fits {
            return Err(Error::bad_input(format!(
                "{channels} channels in {groups} groups and {offset_groups} offset groups with \
                 weights {:?}",
                w.shape()
            )));
        }
        let points = offset_groups.saturating_mul(kh).saturating_mul(kw);
        expect("offset", offset, &[batch, points.saturating_mul(2), height, width])?;
        if let Some(mask) = ctx.opt(4) {
            expect("mask", mask, &[batch, points, height, width])?;
        }
        Ok(Deformable {
            window,
            batch,
            channels,
            groups,
            offset_groups,
            input: [ih, iw],
            kernel: [kh, kw],
            output: [height, width],
        })
    }

    /// Gathers the moved samples of each group into columns and multiplies them by its weights.
    fn run(&self, ctx: &EvalCtx, outputs: usize, bias: &[f32], y: &mut [f32]) -> Result<()> {
        let positions = self.output[0] * self.output[1];
        let each = self.channels / self.groups;
        let points = self.kernel[0] * self.kernel[1];
        let (k, m) = (each.saturating_mul(points), outputs / self.groups);
        for (plane, bias) in y.chunks_exact_mut(positions.max(1)).zip(bias.iter().cycle()) {
            plane.fill(*bias);
        }
        if k == 0 || m == 0 || positions == 0 {
            return Ok(());
        }
        let w = ctx.input(1)?.cow::<f32>()?;
        let mut columns = ctx.alloc(DType::F32, vec![k, positions])?;
        for (at, y) in y.chunks_exact_mut(m * positions).enumerate() {
            let (batch, group) = (at / self.groups, at % self.groups);
            let rows = columns.as_mut_slice::<f32>()?.chunks_exact_mut(positions);
            for (row, samples) in rows.enumerate() {
                self.gather(ctx, batch, group * each + row / points, row % points, samples)?;
            }
            let packed = PackedF32::new(k, positions, columns.as_slice()?);
            let a = Matrix { data: &w[group * m * k..][..m * k], stride: k };
            let mut product = vec![0.0; m * positions];
            let c = Matrix { data: &mut product[..], stride: positions };
            gemm_f32(*ctx.kernels, m, a, &packed, Epilogue::default(), c);
            y.iter_mut().zip(&product).for_each(|(y, p)| *y += p);
        }
        Ok(())
    }

    /// The samples of one channel at one point of the kernel, for every output.
    fn gather(
        &self,
        ctx: &EvalCtx,
        batch: usize,
        channel: usize,
        point: usize,
        samples: &mut [f32],
    ) -> Result<()> {
        let positions = samples.len();
        let (x, offset) = (ctx.input(0)?.cow::<f32>()?, ctx.input(2)?.cow::<f32>()?);
        let mask = ctx.opt(4).map(|mask| mask.cow::<f32>()).transpose()?;
        let area = self.input[0] * self.input[1];
        let plane = &x[(batch * self.channels + channel) * area..][..area];
        let points = self.kernel[0] * self.kernel[1];
        let group = channel / (self.channels / self.offset_groups);
        let slot = (batch * self.offset_groups + group) * points + point;
        let moves = &offset[2 * slot * positions..][..2 * positions];
        for (i, sample) in samples.iter_mut().enumerate() {
            let base = self.base(point, i);
            let at = [base[0] + moves[i], base[1] + moves[positions + i]];
            *sample = self.bilinear(plane, at);
            if let Some(mask) = &mask {
                *sample *= mask[slot * positions + i];
            }
        }
        Ok(())
    }

    /// Where the sample would lie without an offset.
    fn base(&self, point: usize, position: usize) -> [f32; 2] {
        let point = [point / self.kernel[1], point % self.kernel[1]];
        let position = [position / self.output[1], position % self.output[1]];
        std::array::from_fn(|axis| {
            let (pad, _) = self.window.pads(axis, self.input[axis]);
            let step = position[axis] * self.window.strides[axis];
            (step + point[axis] * self.window.dilations[axis]) as f32 - pad as f32
        })
    }

    /// Interpolates between four pixels; those outside are 0.
    fn bilinear(&self, plane: &[f32], [y, x]: [f32; 2]) -> f32 {
        let (top, left) = (y.floor(), x.floor());
        let (dy, dx) = (y - top, x - left);
        let pixel = |y: f32, x: f32| {
            let inside = |v: f32, len: usize| v >= 0.0 && v < len as f32;
            match inside(y, self.input[0]) && inside(x, self.input[1]) {
                true => plane[y as usize * self.input[1] + x as usize],
                false => 0.0,
            }
        };
        let upper = pixel(top, left) * (1.0 - dx) + pixel(top, left + 1.0) * dx;
        let lower = pixel(top + 1.0, left) * (1.0 - dx) + pixel(top + 1.0, left + 1.0) * dx;
        upper * (1.0 - dy) + lower * dy
    }
}

fn expect(name: &str, tensor: &Tensor, shape: &[usize]) -> Result<()> {
    if tensor.shape() == shape { Ok(()) } else { Err(misfit(name, tensor, shape)) }
}

fn misfit(name: &str, tensor: &Tensor, shape: &[usize]) -> Error {
    Error::bad_input(format!("{name} has shape {:?}, expected {shape:?}", tensor.shape()))
}
