//! Building an ONNX-operator graph node by node.

use super::portable::BlockForm;
use crate::source::{Coded, Weight, Weights};
use fewbit_core::codec::block::BlockType;
use fewbit_core::{
    Attr, DType, Dim, Error, Graph, Node, Result, ResultExt, Tensor, ValueId, ValueType,
};

/// Domain of the operators that ONNX has not.
pub(crate) const FEWBIT: &str = "ai.fewbit";

/// Length of dimensions that change from run to run.
pub(crate) mod dims {
    pub const BATCH: &str = "batch";
    pub const SEQUENCE: &str = "sequence";
    pub const CACHE: &str = "cache";
    pub const ROWS: &str = "rows";
}

/// A graph under construction, with the weights it takes from a checkpoint.
pub(crate) struct Builder<'w> {
    pub graph: Graph,
    /// Matrices that were multiplied with, by name, and what with.
    pub products: Vec<(String, ValueId)>,
    /// What becomes of weights in blocks.
    pub form: BlockForm,
    weights: &'w dyn Weights,
}

/// One dimension of an input: a number, or a name for what changes.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    Fixed(usize),
    Named(&'static str),
    /// Rows of the cache in layers that see a window of so many tokens.
    Window(usize),
}

impl<'w> Builder<'w> {
    pub fn new(name: &str, weights: &'w dyn Weights) -> Self {
        let form = BlockForm::default();
        Builder { graph: Graph::new(name), products: Vec::new(), form, weights }
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[Size]) -> Result<ValueId> {
        let dims = shape.iter().map(|size| match size {
            Size::Fixed(n) => Dim::Known(*n),
            Size::Named(name) => Dim::Named((*name).to_string()),
            Size::Window(length) => Dim::Named(format!("{}.{length}", dims::CACHE)),
        });
        let id = self.graph.add_value(name, ValueType::tensor(dtype, dims.collect()))?;
        self.graph.add_input(id);
        Ok(id)
    }

    /// Adds a node with one output, which has the name of the node.
    pub fn op(&mut self, node: Node) -> Result<ValueId> {
        let output = self.graph.add_value(node.name.clone(), ValueType::default())?;
        self.graph.add_node(Node { outputs: vec![Some(output)], ..node });
        Ok(output)
    }

    /// A node of the default domain without attributes.
    pub fn simple(&mut self, op: &str, name: String, inputs: &[ValueId]) -> Result<ValueId> {
        self.op(Node::new(op, name, inputs, &[]))
    }

    /// Adds a node with several outputs, named after the node.
    pub fn split(&mut self, name: &str, x: ValueId, sizes: &[usize]) -> Result<Vec<ValueId>> {
        let sizes: Vec<i64> = sizes.iter().map(|&n| n as i64).collect();
        let lengths = self.integers(&format!("{name}.lengths"), &sizes)?;
        let mut outputs = Vec::with_capacity(sizes.len());
        for index in 0..sizes.len() {
            outputs.push(self.graph.add_value(format!("{name}.{index}"), ValueType::default())?);
        }
        let node = Node::new("Split", name, &[x, lengths], &outputs);
        self.graph.add_node(node.with("axis", Attr::Int(-1)));
        Ok(outputs)
    }

    /// A vector of integers; an existing constant of that name is taken again.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> Result<ValueId> {
        self.constant(name, || Ok(Tensor::vector(values)))
    }

    /// One number.
    pub fn number(&mut self, name: &str, value: f32) -> Result<ValueId> {
        self.constant(name, || Tensor::from_slice(vec![], &[value]))
    }

    /// A constant, made once.
    pub fn constant(
        &mut self,
        name: &str,
        make: impl FnOnce() -> Result<Tensor>,
    ) -> Result<ValueId> {
        match self.graph.find_value(name) {
            Some(id) => Ok(id),
            None => self.graph.add_constant(name, make()?),
        }
    }

    /// `x` in another shape; 0 keeps a dimension, -1 takes what is left.
    pub fn reshape(&mut self, name: &str, x: ValueId, shape: &[i64]) -> Result<ValueId> {
        let shape = self.integers(&format!("{name}.shape"), shape)?;
        self.simple("Reshape", name.to_string(), &[x, shape])
    }

    /// Whether the checkpoint has a tensor.
    pub fn has(&self, name: &str) -> Result<bool> {
        self.weights.has(name)
    }

    /// A tensor of the checkpoint.
    ///
    /// # Errors
    /// When there is none.
    pub fn weight(&self, name: &str) -> Result<Weight> {
        self.weights.get(name)?.ok_or_else(|| {
            let stored = self.weights.stored_name(name);
            Error::bad_input(format!("the checkpoint has no tensor `{stored}`"))
                .code("FB-3701")
                .hint("check that all files of the model are there")
        })
    }

    /// The values of a small tensor.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let weight = self.weight(name)?;
        if weight.block.is_some() || weight.tensor.shape() != [len] {
            let shape = &weight.shape;
            let what = format!("a vector of shape {shape:?} where {len} numbers are expected");
            return Err(Error::bad_input(what).code("FB-3702").at(format!("tensor `{name}`")));
        }
        weight.tensor.to_f32()
    }

    /// The values of a vector as a constant, with one number added to each.
    pub fn vector_plus(&mut self, name: &str, len: usize, plus: f32) -> Result<ValueId> {
        let mut values = self.vector(name, len)?;
        values.iter_mut().for_each(|v| *v += plus);
        self.constant(name, || Ok(Tensor::vector(&values)))
    }

    /// `x W^T`, and the bias where the checkpoint has one. `inputs` is the length of the rows of
    /// `x`; the output has as many columns as the matrix says.
    pub fn linear(&mut self, name: &str, x: ValueId, inputs: usize) -> Result<(ValueId, usize)> {
        let weight = self.weight(&format!("{name}.weight"))?;
        self.products.push((format!("{name}.weight"), x));
        let place = || format!("tensor `{name}.weight`");
        let outputs = outputs(&weight, inputs).at(place)?;
        let mut y = match self.grid_product(name, x, &weight).at(place)? {
            Some(y) => y,
            None => self.plain_product(name, x, &weight, inputs).at(place)?,
        };
        let bias = format!("{name}.bias");
        if self.has(&bias)? {
            let bias = self.vector_plus(&bias, outputs, 0.0)?;
            y = self.simple("Add", format!("{name}.biased"), &[y, bias])?;
        }
        Ok((y, outputs))
    }

    /// `x W^T`, with the inputs quantized where the weights ask for it.
    fn plain_product(
        &mut self,
        name: &str,
        x: ValueId,
        weight: &Weight,
        inputs: usize,
    ) -> Result<ValueId> {
        let matrix = self.matrix(&format!("{name}.weight"), weight)?;
        let x = match weight.coded.as_ref().and_then(|coded| coded.activations) {
            Some(dtype) => self.in_codes(x, inputs, dtype)?,
            None if weight.block.is_some() && self.form == BlockForm::Stored => {
                self.in_blocks(x)?
            }
            None => x,
        };
        self.simple("MatMul", name.to_string(), &[x, matrix])
    }

    /// The right operand of a product, `[inputs, outputs]` in `f32`, from a stored matrix: the
    /// bytes stay as they are, what turns them into numbers stands in the graph.
    fn matrix(&mut self, name: &str, weight: &Weight) -> Result<ValueId> {
        if let Some(id) = self.graph.find_value(&format!("{name}.matrix")) {
            return Ok(id);
        }
        let numbers = self.numbers(name, weight)?;
        if weight.transposed {
            return Ok(numbers);
        }
        let turn = Node::new("Transpose", format!("{name}.matrix"), &[numbers], &[]);
        self.op(turn.with("perm", Attr::Ints(vec![1, 0])))
    }

    /// `x` as products with weights in blocks take it: quantized to blocks of 8 bits, and back.
    fn in_blocks(&mut self, x: ValueId) -> Result<ValueId> {
        let name = self.graph.name_of(x).to_string();
        let numbers = format!("{name}.from_blocks");
        if let Some(id) = self.graph.find_value(&numbers) {
            return Ok(id);
        }
        let blocks =
            self.blocks("QuantizeBlocks", &format!("{name}.in_blocks"), x, BlockType::Q8_0)?;
        self.blocks("DequantizeBlocks", &numbers, blocks, BlockType::Q8_0)
    }

    /// `x` as products take it whose inputs are quantized with a scale for each token: to codes of
    /// 8 bits, and back.
    fn in_codes(&mut self, x: ValueId, width: usize, dtype: DType) -> Result<ValueId> {
        let name = self.graph.name_of(x).to_string();
        let numbers = format!("{name}.from_codes");
        if let Some(id) = self.graph.find_value(&numbers) {
            return Ok(id);
        }
        // Half the range of the codes, as compressed-tensors counts it.
        let half = if dtype == DType::I8 { 127.5 } else { 448.0 };
        let part = |part: &str| format!("{name}.token_{part}");
        let sizes = self.simple("Abs", part("sizes"), &[x])?;
        let axes = self.integers("last_axis", &[-1])?;
        let largest = self.op(Node::new("ReduceMax", part("largest"), &[sizes, axes], &[]))?;
        let half = self.number(&format!("half_of_{dtype}"), half)?;
        let scale = self.simple("Div", part("quotient"), &[largest, half])?;
        let least = self.number("least_scale", f32::EPSILON)?;
        let scale = self.simple("Max", part("scale"), &[scale, least])?;
        let with = |node: Node| {
            node.with("axis", Attr::Int(-1)).with("block_size", Attr::Int(width as i64))
        };
        let quantize = with(Node::new("QuantizeLinear", part("codes"), &[x, scale], &[]));
        let dtype = Attr::Int(i64::from(dtype.to_onnx()));
        let codes = self.op(quantize.with("output_dtype", dtype))?;
        self.op(with(Node::new("DequantizeLinear", numbers, &[codes, scale], &[])))
    }

    /// Numbers of a matrix `[outputs, inputs]` in codes.
    fn decoded(&mut self, name: &str, codes: ValueId, coded: &Coded) -> Result<ValueId> {
        let mut inputs = vec![codes];
        inputs.push(self.constant(&format!("{name}.scales"), || Ok(coded.scales.clone()))?);
        if let Some(zeros) = &coded.zeros {
            inputs.push(self.constant(&format!("{name}.zeros"), || Ok(zeros.clone()))?);
        }
        let node = Node::new("DequantizeLinear", name, &inputs, &[]);
        let node = node.with("axis", Attr::Int(1));
        self.op(node.with("block_size", Attr::Int(coded.group as i64)))
    }

    pub fn blocks(
        &mut self,
        op: &str,
        name: &str,
        x: ValueId,
        block: BlockType,
    ) -> Result<ValueId> {
        let node = Node { domain: FEWBIT.to_string(), ..Node::new(op, name, &[x], &[]) };
        self.op(node.with("type", Attr::String(block.name().into())))
    }

    /// The stored values as `f32`.
    fn numbers(&mut self, name: &str, weight: &Weight) -> Result<ValueId> {
        if let Some(floats) = self.block_floats(name, weight)? {
            return Ok(floats);
        }
        let stored = self.constant(name, || Ok(weight.tensor.clone()))?;
        self.as_numbers(&format!("{name}.f32"), stored, weight)
    }

    /// Rows of a table at integer positions, `[..., width]` in `f32`.
    pub fn rows(&mut self, name: &str, ids: ValueId, width: usize) -> Result<ValueId> {
        let weight = self.weight(name)?;
        let plain = weight.coded.is_none() && !weight.transposed;
        if weight.shape.len() != 2 || weight.shape[1] != width || !plain {
            let what = format!("shape {:?} for rows of {width} numbers", weight.shape);
            return Err(Error::bad_input(what).code("FB-3702").at(format!("tensor `{name}`")));
        }
        let place = || format!("tensor `{name}`");
        if let Some(rows) = self.grid_rows(name, ids, &weight).at(place)? {
            return Ok(rows);
        }
        if let Some(table) = self.block_floats(name, &weight).at(place)? {
            return self.simple("Gather", format!("{name}.picked"), &[table, ids]);
        }
        let table = self.constant(name, || Ok(weight.tensor.clone()))?;
        let picked = self.simple("Gather", format!("{name}.rows"), &[table, ids])?;
        self.as_numbers(&format!("{name}.picked"), picked, &weight)
    }

    fn as_numbers(&mut self, name: &str, stored: ValueId, weight: &Weight) -> Result<ValueId> {
        if let Some(coded) = &weight.coded {
            return self.decoded(name, stored, coded);
        }
        match (weight.block, weight.tensor.dtype()) {
            (Some(block), _) => self.blocks("DequantizeBlocks", name, stored, block),
            (None, DType::F32) => Ok(stored),
            (None, dtype) if dtype.is_float() => self.cast(name, stored, DType::F32),
            (None, dtype) => {
                Err(Error::unsupported(format!("weights stored as {dtype}")).code("FB-4701"))
            }
        }
    }

    /// A conversion of element type.
    pub fn cast(&mut self, name: &str, x: ValueId, dtype: DType) -> Result<ValueId> {
        let node = Node::new("Cast", name, &[x], &[]);
        self.op(node.with("to", Attr::Int(i64::from(dtype.to_onnx()))))
    }
}

/// Columns of the product with a matrix.
fn outputs(weight: &Weight, inputs: usize) -> Result<usize> {
    let &[first, second] = weight.shape.as_slice() else {
        let what = format!("shape {:?} where a matrix is expected", weight.shape);
        return Err(Error::bad_input(what).code("FB-3702"));
    };
    let (rows, outputs) = if weight.transposed { (first, second) } else { (second, first) };
    if rows != inputs {
        let what = format!("shape {:?} for inputs of {inputs} numbers", weight.shape);
        return Err(Error::bad_input(what).code("FB-3702"));
    }
    Ok(outputs)
}
