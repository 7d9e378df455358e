//! Functions of one code as tables, and arithmetic of two coded tensors.

use super::codes::{Coded, Why, coded, quantizer, target};
use crate::plan::analyze::evaluate;
use crate::plan::fuse::clamp_of;
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Dim, Error, Node, NodeId, Result, Tensor, ValueId};
use fewbit_kernels::elementwise::Binary;
use fewbit_kernels::quantize::{Affine, Quantizer, binary_codes, lookup};

/// Whether a node is a function of each element of its first input alone.
pub(crate) fn is_unary(node: &Node) -> bool {
    matches!(
        node.op.as_str(),
        "Relu"
            | "Clip"
            | "LeakyRelu"
            | "Sigmoid"
            | "HardSigmoid"
            | "HardSwish"
            | "Tanh"
            | "Elu"
            | "Selu"
            | "Celu"
            | "Gelu"
            | "Softplus"
            | "Softsign"
            | "Mish"
            | "Swish"
            | "Erf"
            | "Exp"
            | "Log"
            | "Sqrt"
            | "Reciprocal"
            | "Neg"
            | "Abs"
            | "Floor"
            | "Ceil"
            | "Round"
            | "Sign"
            | "ThresholdedRelu"
            | "Sin"
            | "Cos"
            | "Identity"
    )
}

/// A chain of unary operators between a dequantization and a quantization.
///
/// # Errors
/// Why it cannot be a table.
pub(crate) fn lower_unary(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Lowered, Why> {
    let input = coded(lowering, node.input(0).ok_or("an input is missing")?)?;
    let mut nodes = vec![id];
    let mut last = node;
    while !is_quantize(lowering, last) {
        let (id, next) = lowering.sole_reader(last).ok_or("the output is not quantized")?;
        nodes.push(id);
        last = next;
        if !is_unary(next) && !next.is("QuantizeLinear") {
            return Err("the output is not quantized".to_string());
        }
    }
    chain(lowering, input, nodes)
}

fn is_quantize(_lowering: &Lowering, node: &Node) -> bool {
    node.is("QuantizeLinear")
}

/// A quantization of dequantized codes: a table without a function.
///
/// # Errors
/// Why it cannot be a table.
pub(crate) fn lower_requantize(
    lowering: &Lowering,
    id: NodeId,
    node: &Node,
) -> Result<Lowered, Why> {
    let input = coded(lowering, node.input(0).ok_or("an input is missing")?)?;
    chain(lowering, input, vec![id])
}

/// The step for nodes of which the last one quantizes and the others are unary.
fn chain(lowering: &Lowering, input: Coded, nodes: Vec<NodeId>) -> Result<Lowered, Why> {
    let Some((last, functions)) = nodes.split_last() else { return Err("nothing".to_string()) };
    let quantize = lowering.graph.node(*last);
    let (dtype, quantizer) = quantizer(lowering, quantize)?;
    let values = apply(lowering, all_values(input), functions)?;
    let table = Table::new(&values, dtype, quantizer);
    let output = quantize.output(0).ok_or("no output")?;
    Ok(table_step(input, nodes, output, table))
}

/// The step that looks up the codes `input` and gives `output`.
pub(super) fn table_step(
    input: Coded,
    nodes: Vec<NodeId>,
    output: ValueId,
    table: Table,
) -> Lowered {
    let kernel = TableKernel { input: input.dtype, table };
    let inputs = vec![Some(input.value)];
    let mut step = Lowered::new(nodes, Box::new(kernel), inputs, output, Rule::AnyOfFirst);
    step.integer = true;
    step
}

/// The numbers that the 256 codes stand for, by the codes' bits.
pub(super) fn all_values(input: Coded) -> Tensor {
    let value = |byte: u8| {
        let code = if input.dtype == DType::I8 { i32::from(byte as i8) } else { i32::from(byte) };
        input.affine.dequantize(code)
    };
    Tensor::vector(&(0..=255).map(value).collect::<Vec<f32>>())
}

/// Runs the operators themselves, so that a table is what `Simulate` computes, bit for bit.
fn apply(lowering: &Lowering, mut values: Tensor, functions: &[NodeId]) -> Result<Tensor, Why> {
    for &id in functions {
        let node = lowering.graph.node(id);
        let mut inputs = vec![Some(values)];
        for input in &node.inputs[1..] {
            inputs.push(match input {
                None => None,
                Some(v) => Some(lowering.constant(*v).ok_or("a parameter is not constant")?),
            });
        }
        let outputs = evaluate(node, lowering.scope, inputs).map_err(|e| e.to_string())?;
        values = outputs.into_iter().next().ok_or("no output")?;
    }
    let sound = values.dtype() == DType::F32 && values.len() == 256;
    sound.then_some(values).ok_or_else(|| "the operator is no function of one number".to_string())
}

/// A function from codes to codes, by the bits of the code.
#[derive(Clone)]
pub(crate) struct Table {
    dtype: DType,
    bytes: Box<[u8; 256]>,
}

impl Table {
    fn new(values: &Tensor, dtype: DType, quantizer: Quantizer) -> Table {
        let mut bytes = Box::new([0; 256]);
        // The low byte of a code is its form as u8 and as i8.
        let codes = values.to_f32().unwrap_or_default().into_iter().map(|v| quantizer.code(v));
        bytes.iter_mut().zip(codes).for_each(|(byte, code)| *byte = code as u8);
        Table { dtype, bytes }
    }

    /// From what the 256 codes become, as 8-bit codes.
    pub(super) fn of_codes(codes: &Tensor) -> Option<Table> {
        let dtype = codes.dtype();
        let bytes = Box::new(<[u8; 256]>::try_from(codes.bytes()).ok()?);
        matches!(dtype, DType::U8 | DType::I8).then_some(Table { dtype, bytes })
    }

    /// From codes of one meaning to codes of another; `None` when nothing changes.
    pub fn requantize(input: Coded, dtype: DType, quantizer: Quantizer) -> Option<Table> {
        let table = Table::new(&all_values(input), dtype, quantizer);
        let identity = table.bytes.iter().enumerate().all(|(i, &b)| i == usize::from(b));
        (!identity || dtype != input.dtype).then_some(table)
    }

    /// Looks all codes up.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn apply(&self, ctx: &RunCtx, codes: Tensor) -> Result<Tensor> {
        let mut output = ctx.arena.tensor(self.dtype, codes.shape().to_vec())?;
        lookup(*ctx.kernels, &self.bytes, codes.bytes(), output.bytes_mut());
        ctx.arena.recycle(codes);
        Ok(output)
    }
}

struct TableKernel {
    input: DType,
    table: Table,
}

impl Kernel for TableKernel {
    fn name(&self) -> String {
        "table_i8".to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let codes = take(inputs, 0, self.input)?;
        Ok(vec![self.table.apply(ctx, codes)?])
    }
}

/// Takes input `index`, which must be of type `dtype`.
///
/// # Errors
/// When it is missing or of another type.
pub(crate) fn take(inputs: &mut Inputs, index: usize, dtype: DType) -> Result<Tensor> {
    let found = required(inputs, index)?.dtype();
    if found != dtype {
        return Err(Error::bad_input(format!(
            "input {index} is {found}, its scale is for {dtype}"
        )));
    }
    inputs[index].take().ok_or_else(|| Error::internal("an input vanished"))
}

/// Arithmetic of two coded operands, or of one with a constant number.
///
/// # Errors
/// Why it cannot be computed on codes.
pub(crate) fn lower_binary(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Lowered, Why> {
    if node.inputs.len() != 2 {
        return Err(format!("{} inputs", node.inputs.len()));
    }
    let number = |index: usize| {
        let tensor = lowering.constant(node.input(index)?)?;
        (tensor.len() == 1 && tensor.dtype() == DType::F32).then_some(())
    };
    if number(1).is_some() {
        return with_number(lowering, id, node);
    }
    let operands = [0, 1].map(|index| operand(lowering, node.input(index)));
    let [a, b] = operands;
    let (a, b) = (a?, b?);
    let target = target(lowering, node)?;
    if a.dtype != b.dtype || a.dtype != target.dtype {
        return Err("operands and result have different 8-bit types".to_string());
    }
    let op = binary(node).ok_or_else(|| format!("{} has no integer kernel", node.op))?;
    let kernel = BinaryKernel {
        op,
        dtype: a.dtype,
        affines: [a.affine, b.affine],
        quantizer: target.quantizer,
    };
    let mut nodes = vec![id];
    nodes.extend(&target.nodes);
    let inputs = vec![Some(a.value), Some(b.value)];
    let mut step = Lowered::new(nodes, Box::new(kernel), inputs, target.output, Rule::AnyOfAll);
    step.integer = true;
    Ok(step)
}

fn operand(lowering: &Lowering, value: Option<ValueId>) -> Result<Coded, Why> {
    coded(lowering, value.ok_or("an input is missing")?)
}

/// An operation with a constant number is a function of one code.
fn with_number(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Lowered, Why> {
    let input = operand(lowering, node.input(0))?;
    let mut nodes = vec![id];
    let (mut next_id, mut next) =
        lowering.sole_reader(node).ok_or("the output is not quantized")?;
    if clamp_of(lowering, next).is_some() {
        nodes.push(next_id);
        (next_id, next) = lowering.sole_reader(next).ok_or("the output is not quantized")?;
    }
    if !next.is("QuantizeLinear") {
        return Err("the output is not quantized".to_string());
    }
    nodes.push(next_id);
    // A number of higher rank than the tensor would change its shape.
    let rank = |v: ValueId| lowering.ty(v).rank();
    if node.input(1).and_then(rank) > node.input(0).and_then(rank) {
        return Err("the constant has a higher rank".to_string());
    }
    chain(lowering, input, nodes)
}

fn binary(node: &Node) -> Option<Binary> {
    Some(match node.op.as_str() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        _ => return None,
    })
}

struct BinaryKernel {
    op: Binary,
    dtype: DType,
    affines: [Affine; 2],
    quantizer: Quantizer,
}

impl Kernel for BinaryKernel {
    fn name(&self) -> String {
        format!("{:?}_i8", self.op).to_lowercase()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let a = take(inputs, 0, self.dtype)?;
        let b = take(inputs, 1, self.dtype)?;
        let mut output = ctx.arena.tensor(self.dtype, common_shape(a.shape(), b.shape())?)?;
        match self.dtype {
            DType::I8 => self.fill::<i8>(ctx, &a, &b, &mut output)?,
            _ => self.fill::<u8>(ctx, &a, &b, &mut output)?,
        }
        [a, b].into_iter().for_each(|t| ctx.arena.recycle(t));
        Ok(vec![output])
    }
}

impl BinaryKernel {
    fn fill<T: fewbit_core::Element + fewbit_kernels::quantize::Code>(
        &self,
        ctx: &RunCtx,
        a: &Tensor,
        b: &Tensor,
        output: &mut Tensor,
    ) -> Result<()> {
        let shape = output.shape().to_vec();
        let left = ((a.as_slice::<T>()?, a.shape()), self.affines[0]);
        let right = ((b.as_slice::<T>()?, b.shape()), self.affines[1]);
        let out = ((output.as_mut_slice::<T>()?, shape.as_slice()), self.quantizer);
        binary_codes(*ctx.kernels, self.op, left, right, out);
        Ok(())
    }
}

fn common_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let known = |s: &[usize]| s.iter().map(|&d| Dim::Known(d)).collect::<Vec<_>>();
    let dims = crate::infer::broadcast_dims(&known(a), &known(b))?;
    Ok(dims.iter().filter_map(Dim::known).collect())
}
