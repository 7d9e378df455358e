//! Half-precision storage: float16 throughout, or bfloat16 weights.

use crate::upgrade::upgrade;
use fewbit_core::{
    Attr, DType, Error, Graph, Model, Node, NodeId, Patch, Result, Tensor, ValueId, ValueType,
};
use std::collections::HashMap;

/// Largest finite float16; larger weights are cut off there instead of turning infinite.
const F16_MAX: f64 = 65504.0;

/// Constants smaller than this gain nothing from a cast of their own.
const LEAST_ELEMENTS: usize = 32;

/// Turns every float32 tensor of a prepared model into float16; inputs and outputs keep their type.
///
/// # Errors
/// When the model has subgraphs, whose types this does not follow.
pub fn to_fp16(model: &Model) -> Result<Model> {
    refuse_subgraphs(model)?;
    let mut half = model.clone();
    let patch = Halving::new(&model.graph).run()?;
    patch.apply(&mut half.graph)?;
    Patch::remove_dead(&mut half.graph)?;
    Ok(half)
}

fn refuse_subgraphs(model: &Model) -> Result<()> {
    for (id, node) in model.graph.nodes() {
        if node.attrs.iter().any(|(_, a)| !a.graphs().is_empty()) {
            return Err(Error::unsupported("float16 conversion does not follow subgraphs")
                .code("FB-4303")
                .at(model.graph.label(id))
                .hint("use `--recipe bf16` or `int8-weights`, which only change weights"));
        }
    }
    Ok(())
}

struct Halving<'a> {
    graph: &'a Graph,
    patch: Patch,
    /// float32 copies of float16 values, for inputs that must be float32.
    widened: HashMap<ValueId, ValueId>,
}

impl<'a> Halving<'a> {
    fn new(graph: &'a Graph) -> Self {
        Halving { graph, patch: Patch::new(graph), widened: HashMap::new() }
    }

    fn run(mut self) -> Result<Patch> {
        let keep = self.float_only_constants();
        for value in self.graph.value_ids() {
            self.halve_value(value, &keep)?;
        }
        for &input in self.graph.inputs() {
            self.narrow_input(input);
        }
        for (id, node) in self.graph.nodes() {
            self.convert_node(id, node)?;
        }
        for &output in self.graph.outputs() {
            self.widen_output(output);
        }
        Ok(self.patch)
    }

    /// Constants read by an input that must stay float32 in every operator set.
    fn float_only_constants(&self) -> Vec<ValueId> {
        let reads = self.graph.nodes().flat_map(|(_, node)| {
            node.inputs
                .iter()
                .enumerate()
                .filter(|(i, _)| must_be_f32(node, *i))
                .filter_map(|(_, v)| *v)
        });
        reads.filter(|&v| self.graph.constant(v).is_some()).collect()
    }

    fn halve_value(&mut self, value: ValueId, keep: &[ValueId]) -> Result<()> {
        let entry = self.graph.value(value);
        if entry.ty.dtype != Some(DType::F32) || keep.contains(&value) || self.is_port(value) {
            return Ok(());
        }
        match &entry.constant {
            Some(tensor) => {
                let half = to_half(tensor)?;
                self.patch.set_constant(value, half);
            }
            None => self
                .patch
                .set_type(value, ValueType { dtype: Some(DType::F16), ..entry.ty.clone() }),
        }
        Ok(())
    }

    fn is_port(&self, value: ValueId) -> bool {
        self.graph.inputs().contains(&value) || self.graph.outputs().contains(&value)
    }

    fn narrow_input(&mut self, input: ValueId) {
        let ty = &self.graph.value(input).ty;
        if ty.dtype != Some(DType::F32) {
            return;
        }
        let name = self.graph.name_of(input).to_string();
        let half = self
            .patch
            .add_value(&format!("{name}_f16"), ValueType { dtype: Some(DType::F16), ..ty.clone() });
        self.patch.replace_reads(input, half);
        self.patch.add_node(cast(&format!("{name}_to_f16"), input, half, DType::F16));
    }

    /// Nodes that name a type in an attribute, or that must read float32.
    fn convert_node(&mut self, id: NodeId, node: &Node) -> Result<()> {
        for name in ["to", "dtype"] {
            if matches!(node.attr(name), Some(Attr::Int(1))) && !node.is("Shape") {
                self.patch.set_attr(id, name, Attr::Int(DType::F16.to_onnx() as i64));
            }
        }
        if let Some(Attr::Tensor(tensor)) =
            node.attr("value").filter(|_| node.is("ConstantOfShape"))
            && tensor.dtype() == DType::F32
        {
            self.patch.set_attr(id, "value", Attr::Tensor(to_half(tensor)?));
        }
        if node.is("ConstantOfShape") && node.attr("value").is_none() {
            self.patch.set_attr(
                id,
                "value",
                Attr::Tensor(Tensor::from_f64(DType::F16, vec![1], &[0.0])?),
            );
        }
        for (index, value) in node.inputs.iter().enumerate().filter(|(i, _)| must_be_f32(node, *i))
        {
            if let Some(value) = value.filter(|&v| self.graph.constant(v).is_none()) {
                let wide = self.widen(value);
                self.patch.set_input(id, index, Some(wide));
            }
        }
        Ok(())
    }

    fn widen(&mut self, value: ValueId) -> ValueId {
        if let Some(&wide) = self.widened.get(&value) {
            return wide;
        }
        let name = self.graph.name_of(value).to_string();
        let ty = ValueType { dtype: Some(DType::F32), ..self.graph.value(value).ty.clone() };
        let wide = self.patch.add_value(&format!("{name}_f32"), ty);
        self.patch.add_node(cast(&format!("{name}_to_f32"), value, wide, DType::F32));
        self.widened.insert(value, wide);
        wide
    }

    fn widen_output(&mut self, output: ValueId) {
        let ty = self.graph.value(output).ty.clone();
        let producer = self.graph.uses().producer(output);
        let (Some(producer), Some(DType::F32)) = (producer, ty.dtype) else {
            return;
        };
        let name = self.graph.name_of(output).to_string();
        let half = self
            .patch
            .add_value(&format!("{name}_f16"), ValueType { dtype: Some(DType::F16), ..ty });
        self.patch.replace_reads(output, half);
        let slot = self.graph.node(producer).outputs.iter().position(|v| *v == Some(output));
        self.patch.set_output(producer, slot.unwrap_or(0), Some(half));
        self.patch.add_node(cast(&format!("{name}_to_f32"), half, output, DType::F32));
    }
}

fn cast(name: &str, from: ValueId, to: ValueId, dtype: DType) -> Node {
    Node::new("Cast", name, &[from], &[to]).with("to", Attr::Int(dtype.to_onnx() as i64))
}

/// Inputs that are float32 whatever the data type (sizes and boxes of resampling).
fn must_be_f32(node: &Node, index: usize) -> bool {
    match node.op.as_str() {
        "Resize" => matches!(index, 1 | 2),
        "Upsample" => index == 1,
        "NonMaxSuppression" => matches!(index, 0 | 1 | 3 | 4),
        "QuantizeLinear" | "DequantizeLinear" => index == 1,
        _ => false,
    }
}

fn to_half(tensor: &Tensor) -> Result<Tensor> {
    let clipped = |v: f64| if v.is_finite() { v.clamp(-F16_MAX, F16_MAX) } else { v };
    let values: Vec<f64> = tensor.to_f64()?.into_iter().map(clipped).collect();
    Tensor::from_f64(DType::F16, tensor.shape().to_vec(), &values)
}

/// Stores float32 weights as bfloat16 behind a cast; computation stays in float32.
///
/// # Errors
/// When the model cannot be brought to operator set 13, which has the cast.
pub fn to_bf16_weights(model: &Model) -> Result<Model> {
    let mut stored = upgrade(model, 13)?;
    let graph = &stored.graph;
    let uses = graph.uses();
    let mut patch = Patch::new(graph);
    for value in graph.value_ids() {
        let Some(tensor) = graph.constant(value) else {
            continue;
        };
        let read = !uses.consumers(value).is_empty() && !graph.inputs().contains(&value);
        if tensor.dtype() != DType::F32
            || tensor.len() < LEAST_ELEMENTS
            || !read
            || uses.is_output(value)
        {
            continue;
        }
        let name = graph.name_of(value);
        let codes = patch.add_constant(&format!("{name}_bf16"), tensor.cast(DType::BF16)?);
        let wide = patch.add_value(&format!("{name}_f32"), ValueType::of(tensor));
        patch.replace_reads(value, wide);
        patch.add_node(cast(&format!("{name}_to_f32"), codes, wide, DType::F32));
    }
    patch.apply(&mut stored.graph)?;
    Patch::remove_dead(&mut stored.graph)?;
    Ok(stored)
}
