//! `Col2Im`: columns of patches summed back into an image.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::params::{Known, known_ints, size};
use fewbit_core::{Dim, Error, Node, Result, Tensor, ValueType, element_count};

pub(super) const COL2IM: OpDef = OpDef::new("Col2Im", infer, eval);

/// One spatial axis of the image.
struct Fold {
    image: usize,
    kernel: usize,
    dilation: usize,
    stride: usize,
    pad: usize,
    blocks: usize,
}

fn folds(node: &Node, image: &[i64], kernel: &[i64]) -> Result<Vec<Fold>> {
    let rank = image.len();
    let dilations = numbers(node, "dilations", rank, 1)?;
    let strides = numbers(node, "strides", rank, 1)?;
    let pads = numbers(node, "pads", 2 * rank, 0)?;
    if kernel.len() != rank || strides.contains(&0) {
        return Err(Error::bad_input("image, block and strides do not fit together"));
    }
    let fold = |i: usize| {
        let (image, kernel) = (size(image[i], "an image size")?, size(kernel[i], "a block size")?);
        let reach = (kernel as i128 - 1) * dilations[i] as i128 + 1;
        let room = image as i128 + pads[i] as i128 + pads[i + rank] as i128 - reach;
        let blocks = if room < 0 { 0 } else { room / strides[i] as i128 + 1 };
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
        let (dilation, stride, pad) = (dilations[i], strides[i], pads[i]);
        Ok(Fold { image, kernel, dilation, stride, pad, blocks })
    };
    (0..rank).map(fold).collect()
}

fn numbers(node: &Node, name: &str, count: usize, default: i64) -> Result<Vec<usize>> {
    let values = node.ints(name)?.map_or_else(|| vec![default; count], <[i64]>::to_vec);
    if values.len() != count {
        return Err(Error::bad_input(format!("expected {count} numbers, found {}", values.len()))
            .at(format!("attribute `{name}`")));
    }
    values.into_iter().map(|v| size(v, name)).collect()
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let folds = folds(ctx.node, &ctx.input(1)?.to_i64()?, &ctx.input(2)?.to_i64()?)?;
    let product = |f: fn(&Fold) -> usize| element_count(&folds.iter().map(f).collect::<Vec<_>>());
    let (kernel, blocks) = (product(|f| f.kernel), product(|f| f.blocks));
    let &[n, rows, columns] = input.shape() else {
        return Err(Error::bad_input(format!("Col2Im needs rank 3, found {:?}", input.shape())));
    };
    let (Some(kernel @ 1..), Some(blocks)) = (kernel, blocks) else {
        return Err(Error::bad_input("the block has no elements, or too many"));
    };
    if rows % kernel != 0 || columns != blocks {
        return Err(Error::bad_input(format!(
            "columns of shape {:?} do not hold blocks of {kernel} elements at {blocks} places",
            input.shape()
        )));
    }
    let mut shape = vec![n, rows / kernel];
    shape.extend(folds.iter().map(|f| f.image));
    let columns = input.to_f32()?;
    let sum = ctx.output::<f32>(shape, |out| {
        out.fill(0.0);
        scatter(&columns, out, &folds, kernel, blocks);
        Ok(())
    })?;
    Ok(vec![sum.cast(input.dtype())?])
}

/// Adds every row of `blocks` values (one kernel position of one channel) into its image.
fn scatter(columns: &[f32], out: &mut [f32], folds: &[Fold], kernel: usize, blocks: usize) {
    let image: usize = folds.iter().map(|f| f.image).product();
    if image == 0 || blocks == 0 {
        return;
    }
    for (row, values) in columns.chunks_exact(blocks).enumerate() {
        let plane = &mut out[row / kernel * image..][..image];
        for (block, value) in values.iter().enumerate() {
            if let Some(at) = position(folds, row % kernel, block) {
                plane[at] += value;
            }
        }
    }
}

/// Where kernel element `tap` of block `block` lies in the image, unless in its padding.
fn position(folds: &[Fold], mut tap: usize, mut block: usize) -> Option<usize> {
    let (mut at, mut stride) = (0, 1);
    for fold in folds.iter().rev() {
        let inner = (tap % fold.kernel) * fold.dilation;
        let place = (block % fold.blocks) * fold.stride + inner;
        let place = place.checked_sub(fold.pad).filter(|&p| p < fold.image)?;
        at += place * stride;
        stride *= fold.image;
        tap /= fold.kernel;
        block /= fold.blocks;
    }
    Some(at)
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (Known::Value(image), Known::Value(kernel)) =
        (known_ints(ctx, "", 1)?, known_ints(ctx, "", 2)?)
    else {
        return Ok(vec![typed(ctx.dtype(0), None)]);
    };
    let folds = folds(ctx.node, &image, &kernel)?;
    let (batch, rows) = match ctx.shape(0) {
        Some([batch, rows, _]) => (batch.clone(), rows.known()),
        _ => (Dim::Unknown, None),
    };
    let taps = element_count(&folds.iter().map(|f| f.kernel).collect::<Vec<_>>());
    let channels = rows.and_then(|r| r.checked_div(taps?));
    let mut shape = vec![batch, channels.map_or(Dim::Unknown, Dim::Known)];
    shape.extend(folds.iter().map(|f| Dim::Known(f.image)));
    Ok(vec![typed(ctx.dtype(0), Some(shape))])
}
