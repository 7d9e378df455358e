//! `Scan`: a subgraph over the slices of its inputs.

use super::branch::{declared, subgraphs};
use super::iterate::Stack;
use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::InferCtx;
use fewbit_core::{AlignedBytes, DType, Error, Node, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("Scan", infer, eval);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(body) = ctx.node.graph("body")? else {
        return Err(Error::bad_input("Scan needs a body"));
    };
    let dtype = |index| ValueType { dtype: declared(body, index).dtype, ..Default::default() };
    Ok((0..ctx.node.outputs.len()).map(dtype).collect())
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if ctx.opset >= 9 {
        let inputs: Vec<Tensor> =
            (0..ctx.input_count()).map(|i| ctx.take(i)).collect::<Result<_>>()?;
        return scan(ctx, inputs);
    }
    batched(ctx)
}

/// Operator set 8: every value has a batch axis in front, and sequence lengths come first.
fn batched(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if ctx.opt(0).is_some() {
        return Err(Error::unsupported("Scan with sequence lengths (operator set 8)"));
    }
    let inputs: Vec<Tensor> = (1..ctx.input_count()).map(|i| ctx.take(i)).collect::<Result<_>>()?;
    let batch = inputs.first().and_then(|t| t.shape().first().copied()).unwrap_or(0);
    let mut stacks: Vec<Stack> = ctx.node.outputs.iter().map(|_| Stack::default()).collect();
    for item in 0..batch {
        let slices = inputs.iter().map(|t| slice(t, 0, item)).collect::<Result<Vec<_>>>()?;
        let outputs = scan(ctx, slices)?;
        stacks.iter_mut().zip(&outputs).try_for_each(|(stack, t)| stack.push(t))?;
    }
    stacks.into_iter().map(|stack| stack.finish(&ValueType::default())).collect()
}

fn scan(ctx: &EvalCtx, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let body = subgraphs(ctx)?;
    let scans = usize::try_from(ctx.int("num_scan_inputs", 1)?).ok().filter(|&n| n > 0);
    let states = scans.and_then(|n| inputs.len().checked_sub(n));
    let Some(states) = states else {
        return Err(Error::bad_input("num_scan_inputs does not fit the number of inputs"));
    };
    let mut carried = inputs;
    let scanned = carried.split_off(states);
    let reads = Directions::new(ctx.node, "scan_input", scanned.len())?;
    let outputs = ctx.node.outputs.len().saturating_sub(states);
    let writes = Directions::new(ctx.node, "scan_output", outputs)?;
    let length = length(&scanned, &reads)?;
    let mut collected: Vec<Vec<Tensor>> = vec![Vec::new(); outputs];
    for step in 0..length {
        let mut inputs = std::mem::take(&mut carried);
        for (index, tensor) in scanned.iter().enumerate() {
            let at = if reads.backward[index] { length - 1 - step } else { step };
            inputs.push(slice(tensor, axis_index(reads.axes[index], tensor.rank())?, at)?);
        }
        let mut found = body.run("body", inputs)?;
        if found.len() < states + outputs {
            return Err(Error::bad_input(format!("the body gives {} outputs", found.len())));
        }
        for (list, tensor) in collected.iter_mut().zip(found.split_off(states)) {
            list.push(tensor);
        }
        carried = found;
    }
    for (index, mut list) in collected.into_iter().enumerate() {
        if writes.backward[index] {
            list.reverse();
        }
        let ty = ctx.node.graph("body")?.map(|g| declared(g, states + index)).unwrap_or_default();
        carried.push(stack(&list, writes.axes[index], &ty)?);
    }
    Ok(carried)
}

/// Axis and direction of each scanned value.
struct Directions {
    axes: Vec<i64>,
    backward: Vec<bool>,
}

impl Directions {
    fn new(node: &Node, prefix: &str, count: usize) -> Result<Directions> {
        let list = |suffix: &str| -> Result<Vec<i64>> {
            let name = format!("{prefix}_{suffix}");
            let values = node.ints(&name)?.map_or_else(|| vec![0; count], <[i64]>::to_vec);
            if values.len() != count {
                return Err(Error::bad_input(format!("attribute `{name}` needs {count} numbers")));
            }
            Ok(values)
        };
        let backward = list("directions")?.into_iter().map(|d| d != 0).collect();
        Ok(Directions { axes: list("axes")?, backward })
    }
}

fn length(scanned: &[Tensor], reads: &Directions) -> Result<usize> {
    let mut length = None;
    for (tensor, &axis) in scanned.iter().zip(&reads.axes) {
        let size = tensor.shape()[axis_index(axis, tensor.rank())?];
        if length.is_some_and(|length| length != size) {
            return Err(Error::bad_input("scan inputs differ in length"));
        }
        length = Some(size);
    }
    Ok(length.unwrap_or(0))
}

/// Element `index` along `axis`.
fn slice(tensor: &Tensor, axis: usize, index: usize) -> Result<Tensor> {
    let size = element_size(tensor.dtype())?;
    if axis >= tensor.rank() {
        return Err(Error::bad_input(format!("a scalar is scanned: {tensor:?}")));
    }
    let mut shape = tensor.shape().to_vec();
    let along = shape.remove(axis);
    let inner = size * shape[axis..].iter().product::<usize>();
    let outer: usize = shape[..axis].iter().product();
    let mut bytes = Vec::with_capacity(outer * inner);
    for block in 0..outer {
        bytes.extend_from_slice(&tensor.bytes()[(block * along + index) * inner..][..inner]);
    }
    Tensor::from_bytes(tensor.dtype(), shape, AlignedBytes::copy_of(&bytes).into())
}

/// Joins values along a new axis.
fn stack(list: &[Tensor], axis: i64, declared: &ValueType) -> Result<Tensor> {
    let mut all = Stack::default();
    list.iter().try_for_each(|tensor| all.push(tensor))?;
    let joined = all.finish(declared)?;
    let axis = axis_index(axis, joined.rank())?;
    if axis == 0 {
        return Ok(joined);
    }
    let size = element_size(joined.dtype())?;
    let (count, item) = (joined.shape()[0], joined.shape()[1..].to_vec());
    let inner = size * item[axis..].iter().product::<usize>();
    let outer: usize = item[..axis].iter().product();
    let mut bytes = Vec::with_capacity(joined.bytes().len());
    for block in 0..outer {
        for index in 0..count {
            bytes.extend_from_slice(&joined.bytes()[(index * outer + block) * inner..][..inner]);
        }
    }
    let mut shape = item;
    shape.insert(axis, count);
    Tensor::from_bytes(joined.dtype(), shape, AlignedBytes::copy_of(&bytes).into())
}

fn element_size(dtype: DType) -> Result<usize> {
    dtype.size().ok_or_else(|| Error::unsupported(format!("Scan over {dtype} values")))
}
