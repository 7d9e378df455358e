//! Dynamic int8: weights in int8, activations quantized anew in every run.
//!
//! `MatMul(x, W)` becomes `DynamicQuantizeLinear(x)`, `MatMulInteger`, and a multiplication by
//! both scales; `Gemm` the same with its bias added.

use super::weight::{QuantizedWeight, quantize_weight};
use crate::plan::Plan;
use crate::upgrade::upgrade;
use fewbit_core::{
    Attr, DType, Granularity, Graph, Model, Node, NodeId, Patch, QuantScheme, Result, ResultExt,
    Tensor, ValueId, ValueType,
};
use std::collections::HashMap;

/// Oldest operator set with `DynamicQuantizeLinear`.
const LEAST_OPSET: i64 = 11;

/// Quantizes the matrix multiplications of a prepared model by plan.
///
/// # Errors
/// When the plan belongs to another model.
pub fn quantize_dynamic(model: &Model, plan: &Plan) -> Result<Model> {
    let placement = plan.placement(model)?;
    let schemes: HashMap<&str, QuantScheme> = placement
        .weights()
        .iter()
        .map(|&(id, s)| (model.graph.node(id).name.as_str(), s))
        .collect();
    let mut quantized = upgrade(model, LEAST_OPSET)?;
    let mut writer = Writer {
        graph: &quantized.graph,
        plan,
        patch: Patch::new(&quantized.graph),
        inputs: HashMap::new(),
    };
    for (id, node) in quantized.graph.nodes() {
        if let Some(&scheme) = schemes.get(node.name.as_str()) {
            writer.quantize_node(id, node, scheme).at(|| quantized.graph.label(id))?;
        }
    }
    let patch = writer.patch;
    patch.apply(&mut quantized.graph)?;
    Patch::remove_dead(&mut quantized.graph)?;
    Ok(quantized)
}

struct Writer<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    patch: Patch,
    /// Codes, scale and zero point of activations that several multiplications read.
    inputs: HashMap<ValueId, [ValueId; 3]>,
}

impl Writer<'_> {
    fn quantize_node(&mut self, id: NodeId, node: &Node, scheme: QuantScheme) -> Result<()> {
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
            return Ok(());
        };
        let Some((value, weight)) = node.input(1).and_then(|v| Some((v, self.graph.constant(v)?)))
        else {
            return Ok(());
        };
        // MatMulInteger has no transposition of its first operand and wants a matrix behind it.
        if node.int("transA")?.unwrap_or(0) != 0 || weight.rank() != 2 {
            return Ok(());
        }
        let name = self.graph.name_of(value).to_string();
        let weight = self.quantized(node, weight, scheme)?;
        let [codes, input_scale, input_zero] = self.dynamic_input(input);
        let weight_codes = self.patch.add_constant(&format!("{name}_quantized"), weight.codes);
        let weight_scale = self.patch.add_constant(&format!("{name}_scale"), weight.scales);
        let weight_zero =
            self.patch.add_constant(&format!("{name}_zero_point"), weight.zero_points);
        self.patch.remove_node(id);
        let sum = self.value(node, "accumulated", Some(DType::I32));
        self.push(
            "MatMulInteger",
            node,
            "matmul",
            &[codes, weight_codes, input_zero, weight_zero],
            sum,
        );
        let float = self.value(node, "float", Some(DType::F32));
        let cast = Node::new("Cast", format!("{}.cast", node.name), &[sum], &[float]);
        self.patch.add_node(cast.with("to", Attr::Int(DType::F32.to_onnx() as i64)));
        let scale = self.value(node, "scale", Some(DType::F32));
        self.push("Mul", node, "scales", &[input_scale, weight_scale], scale);
        match node.input(2) {
            Some(bias) => {
                let scaled = self.value(node, "scaled", Some(DType::F32));
                self.push("Mul", node, "rescale", &[float, scale], scaled);
                self.push("Add", node, "bias", &[scaled, bias], output);
            }
            None => self.push("Mul", node, "rescale", &[float, scale], output),
        }
        Ok(())
    }

    fn quantized(
        &self,
        node: &Node,
        weight: &Tensor,
        scheme: QuantScheme,
    ) -> Result<QuantizedWeight> {
        let transposed = node.is("Gemm") && node.int("transB")?.unwrap_or(0) != 0;
        let per_column = match scheme.granularity {
            Granularity::Axis(_) => Granularity::Axis(1),
            other => other,
        };
        let scheme = QuantScheme { granularity: per_column, ..scheme };
        let weight = if transposed { transpose(weight)? } else { weight.clone() };
        quantize_weight(&weight, &scheme, self.plan.recipe.rounding, &[])
    }

    fn dynamic_input(&mut self, input: ValueId) -> [ValueId; 3] {
        if let Some(&known) = self.inputs.get(&input) {
            return known;
        }
        let name = self.graph.name_of(input).to_string();
        let ty = |dtype| ValueType { dtype: Some(dtype), ..Default::default() };
        let codes = self.patch.add_value(&format!("{name}_quantized"), ty(DType::U8));
        let scale =
            self.patch.add_value(&format!("{name}_scale"), ValueType::fixed(DType::F32, &[]));
        let zero =
            self.patch.add_value(&format!("{name}_zero_point"), ValueType::fixed(DType::U8, &[]));
        self.patch.add_node(Node::new(
            "DynamicQuantizeLinear",
            format!("{name}_q"),
            &[input],
            &[codes, scale, zero],
        ));
        self.inputs.insert(input, [codes, scale, zero]);
        [codes, scale, zero]
    }

    fn value(&mut self, node: &Node, what: &str, dtype: Option<DType>) -> ValueId {
        self.patch
            .add_value(&format!("{}.{what}", node.name), ValueType { dtype, ..Default::default() })
    }

    fn push(&mut self, op: &str, node: &Node, what: &str, inputs: &[ValueId], output: ValueId) {
        self.patch.add_node(Node::new(op, format!("{}.{what}", node.name), inputs, &[output]));
    }
}

fn transpose(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = (matrix.shape()[0], matrix.shape()[1]);
    let values = matrix.to_f32()?;
    let transposed: Vec<f32> =
        (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
    Tensor::from_slice(vec![columns, rows], &transposed)
}
