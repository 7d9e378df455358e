//! Static int8: Q/DQ pairs on activations, codes for weights and biases.

use super::bias;
use super::weight::quantize_weight;
use crate::affine::Affine;
use crate::calibrate::Statistics;
use crate::observer::Range;
use crate::placement::Placement;
use crate::plan::Plan;
use crate::target::Target;
use fewbit_core::{
    Attr, DType, Error, Granularity, Graph, Model, Node, NodeId, Patch, QuantScheme, Result,
    ResultExt, Tensor, Uses, ValueId, ValueType,
};
use fewbit_exec::{OpTable, Role};
use std::collections::{BTreeMap, HashMap};

/// Oldest operator set with `DequantizeLinear` per axis.
const LEAST_OPSET: i64 = 13;

/// Quantizes a prepared model by plan and statistics.
///
/// The result is the same graph with `QuantizeLinear`/`DequantizeLinear` pairs on the plan's
/// values, and with int8 weights and int32 biases behind `DequantizeLinear`.
///
/// # Errors
/// When the plan belongs to another model, or calibration has not seen a value.
pub fn quantize_static(
    model: &Model,
    plan: &Plan,
    target: &Target,
    statistics: &Statistics,
) -> Result<Model> {
    if model.opset() < LEAST_OPSET {
        return Err(Error::unsupported(format!(
            "operator set {} has no per-axis DequantizeLinear",
            model.opset()
        ))
        .hint("upgrade the model to operator set 13 or later"));
    }
    let placement = plan.placement(model)?;
    let mut writer = Writer::new(&model.graph, plan, target, statistics, &placement)?;
    writer.fit_ranges()?;
    for value in placement.values() {
        writer.insert_pair(value);
    }
    for &(node, scheme) in placement.weights() {
        writer.quantize_node(node, scheme).at(|| model.graph.label(node))?;
    }
    writer.quantize_constant_operands()?;
    let patch = writer.patch;
    let mut quantized = model.clone();
    patch.apply(&mut quantized.graph)?;
    Patch::remove_dead(&mut quantized.graph)?;
    Ok(quantized)
}

/// A weight, its scheme and the bits of the least scales: nodes that agree in all share the codes.
type WeightKey = (ValueId, QuantScheme, Vec<u32>);

/// A weight that has been written as codes.
#[derive(Clone)]
struct WrittenWeight {
    /// What `DequantizeLinear` makes of the codes.
    restored: ValueId,
    scheme: QuantScheme,
    scales: Vec<f32>,
    codes: Tensor,
}

struct Writer<'a> {
    graph: &'a Graph,
    uses: Uses,
    plan: &'a Plan,
    statistics: &'a Statistics,
    placement: &'a Placement,
    table: OpTable,
    activations: QuantScheme,
    int32_bias: bool,
    affines: HashMap<ValueId, Affine>,
    parameters: HashMap<ValueId, (ValueId, ValueId)>,
    weights: HashMap<WeightKey, WrittenWeight>,
    patch: Patch,
}

impl<'a> Writer<'a> {
    fn new(
        graph: &'a Graph,
        plan: &'a Plan,
        target: &Target,
        statistics: &'a Statistics,
        placement: &'a Placement,
    ) -> Result<Self> {
        Ok(Writer {
            graph,
            uses: graph.uses(),
            plan,
            statistics,
            placement,
            table: OpTable::standard(),
            activations: plan.activations(target)?,
            int32_bias: target.int32_bias,
            affines: HashMap::new(),
            parameters: HashMap::new(),
            weights: HashMap::new(),
            patch: Patch::new(graph),
        })
    }

    /// One map for each group of values that share a scale: the union of their ranges.
    fn fit_ranges(&mut self) -> Result<()> {
        let mut ranges: BTreeMap<ValueId, Range> = BTreeMap::new();
        for value in self.placement.values() {
            let range = self.statistics.range(self.graph.name_of(value), &self.activations)?;
            let leader = self.placement.leader(value).unwrap_or(value);
            ranges.entry(leader).and_modify(|r| *r = r.union(range)).or_insert(range);
        }
        for value in self.placement.values() {
            let leader = self.placement.leader(value).unwrap_or(value);
            self.affines.insert(value, Affine::from_range(ranges[&leader], &self.activations));
        }
        Ok(())
    }

    /// `value -> QuantizeLinear -> DequantizeLinear -> readers`.
    fn insert_pair(&mut self, value: ValueId) {
        let name = self.graph.name_of(value).to_string();
        let (scale, zero_point) = self.scale_and_zero_point(value);
        let ty = self.graph.value(value).ty.clone();
        let codes_ty = ValueType { dtype: Some(self.activations.storage), ..ty.clone() };
        let codes = self.patch.add_value(&format!("{name}_quantized"), codes_ty);
        let restored = self.patch.add_value(&format!("{name}_dequantized"), ty);
        self.patch.add_node(Node::new(
            "QuantizeLinear",
            format!("{name}_q"),
            &[value, scale, zero_point],
            &[codes],
        ));
        self.patch.add_node(Node::new(
            "DequantizeLinear",
            format!("{name}_dq"),
            &[codes, scale, zero_point],
            &[restored],
        ));
        for &reader in self.uses.consumers(value) {
            let slots = self.graph.node(reader).inputs.iter().enumerate();
            let reads: Vec<usize> =
                slots.filter(|(_, v)| **v == Some(value)).map(|(i, _)| i).collect();
            reads.into_iter().for_each(|i| self.patch.set_input(reader, i, Some(restored)));
        }
    }

    /// The constants with a value's parameters; values that share a scale share the constants.
    fn scale_and_zero_point(&mut self, value: ValueId) -> (ValueId, ValueId) {
        let leader = self.placement.leader(value).unwrap_or(value);
        if let Some(&known) = self.parameters.get(&leader) {
            return known;
        }
        let affine = self.affines[&value];
        let ids = self.add_parameters(self.graph.name_of(leader), affine);
        self.parameters.insert(leader, ids);
        ids
    }

    fn add_parameters(&mut self, name: &str, affine: Affine) -> (ValueId, ValueId) {
        let zero_point = match self.activations.storage {
            DType::I8 => Tensor::scalar(affine.zero_point as i8),
            _ => Tensor::scalar(affine.zero_point as u8),
        };
        let scale = self.patch.add_constant(&format!("{name}_scale"), Tensor::scalar(affine.scale));
        (scale, self.patch.add_constant(&format!("{name}_zero_point"), zero_point))
    }

    /// Weight and bias of one node.
    fn quantize_node(&mut self, id: NodeId, scheme: QuantScheme) -> Result<()> {
        let node = self.graph.node(id);
        let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else {
            return Err(Error::internal("a weighted node without input or weight"));
        };
        let Some(input_scale) = self.affines.get(&input).map(|a| a.scale) else {
            return Err(Error::internal("the input of a weighted node has no scale"));
        };
        let bias = self.bias_values(node)?;
        let per_channel = bias.as_deref().filter(|_| self.int32_bias).unwrap_or(&[]);
        let groups = self.groups_of_outputs(node);
        let least = bias::least_weight_scales(per_channel, input_scale, &scheme, groups);
        let weight = self.weight(weight, scheme, &least)?;
        self.patch.set_input(id, 1, Some(weight.restored));
        let bias = self.corrected_bias(id, bias, &weight)?;
        if let Some(bias) = bias {
            let scales = match weight.scales.len() {
                1 => weight.scales,
                _ => weight.scales.repeat(groups),
            };
            self.write_bias(id, &bias, input_scale, &scales)?;
        }
        Ok(())
    }

    /// The constant bias of a node, one value for each output channel.
    fn bias_values(&self, node: &Node) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = node.input(2).and_then(|v| self.graph.constant(v)) else {
            return Ok(None);
        };
        let values = tensor.to_f32()?;
        // A Gemm's C may be a matrix or a broadcast scalar; those stay as they are.
        Ok((tensor.rank() == 1 && tensor.len() == self.output_channels(node)).then_some(values))
    }

    fn output_channels(&self, node: &Node) -> usize {
        let weight = node.input(1).and_then(|v| self.graph.constant(v));
        let channels = weight.and_then(|w| w.shape().get(self.channel_axis(node)).copied());
        channels.unwrap_or(0) * self.groups_of_outputs(node)
    }

    /// How many output channels share each channel of the weight: the weight of a `ConvTranspose`
    /// has only those of one group.
    fn groups_of_outputs(&self, node: &Node) -> usize {
        match node.op.as_str() {
            "ConvTranspose" => node.int("group").ok().flatten().unwrap_or(1).max(1) as usize,
            _ => 1,
        }
    }

    fn channel_axis(&self, node: &Node) -> usize {
        let rank = node.input(1).and_then(|v| self.graph.constant(v)).map_or(2, Tensor::rank);
        match self.table.of(node).map(|d| d.role) {
            Some(Role::Weighted(axis)) => axis(node).rem_euclid(rank as i32) as usize,
            _ => 0,
        }
    }

    /// Writes a weight as codes, or finds it written.
    fn weight(
        &mut self,
        value: ValueId,
        scheme: QuantScheme,
        least: &[f32],
    ) -> Result<WrittenWeight> {
        let key = (value, scheme, least.iter().map(|f| f.to_bits()).collect());
        if let Some(known) = self.weights.get(&key) {
            return Ok(known.clone());
        }
        let tensor = self
            .graph
            .constant(value)
            .ok_or_else(|| Error::internal("the weight is not constant"))?;
        let quantized = quantize_weight(tensor, &scheme, self.plan.recipe.rounding, least)?;
        let name = self.graph.name_of(value).to_string();
        let scales = quantized.scales.to_f32()?;
        let codes = self.patch.add_constant(&format!("{name}_quantized"), quantized.codes.clone());
        let scale = self.patch.add_constant(&format!("{name}_scale"), quantized.scales);
        let zero_point =
            self.patch.add_constant(&format!("{name}_zero_point"), quantized.zero_points);
        let restored = self.patch.add_value(&format!("{name}_dequantized"), ValueType::of(tensor));
        let mut node = Node::new(
            "DequantizeLinear",
            format!("{name}_dq"),
            &[codes, scale, zero_point],
            &[restored],
        );
        if let Granularity::Axis(axis) = scheme.granularity {
            node.set_attr("axis", Attr::Int(axis as i64));
        }
        self.patch.add_node(node);
        let written = WrittenWeight { restored, scheme, scales, codes: quantized.codes };
        self.weights.insert(key, written.clone());
        Ok(written)
    }

    /// The bias less the mean error of the quantized weights, where the recipe asks for it.
    fn corrected_bias(
        &self,
        id: NodeId,
        bias: Option<Vec<f32>>,
        written: &WrittenWeight,
    ) -> Result<Option<Vec<f32>>> {
        let node = self.graph.node(id);
        let corrects =
            self.plan.recipe.bias_correction && matches!(node.op.as_str(), "Conv" | "Gemm");
        // Without a constant bias there may still be one that is computed, or a matrix.
        if !corrects || (bias.is_none() && node.input(2).is_some()) {
            return Ok(bias);
        }
        let (Some(input), Some(weight)) =
            (node.input(0), node.input(1).and_then(|v| self.graph.constant(v)))
        else {
            return Ok(bias);
        };
        let statistics = self.statistics.of(self.graph.name_of(input))?;
        let Some(channels) = &statistics.channels else {
            return Ok(bias);
        };
        let means = channels.means();
        if means.is_empty() {
            return Ok(bias);
        }
        let restored = written.values()?;
        let error = bias::mean_error(weight, &restored, &means, self.channel_axis(node))?;
        let old = bias.unwrap_or_else(|| vec![0.0; error.len()]);
        Ok(Some(old.iter().zip(&error).map(|(b, e)| (*b as f64 - e) as f32).collect()))
    }

    fn write_bias(
        &mut self,
        id: NodeId,
        bias: &[f32],
        input_scale: f32,
        weight_scales: &[f32],
    ) -> Result<()> {
        let node = self.graph.node(id);
        let name = match node.input(2) {
            Some(v) => self.graph.name_of(v).to_string(),
            None => format!("{}.bias", node.name),
        };
        if !self.int32_bias {
            let value = self.patch.add_constant(&name, Tensor::vector(bias));
            self.patch.set_input(id, 2, Some(value));
            return Ok(());
        }
        let (codes, scales) = bias::quantize_bias(bias, input_scale, weight_scales)?;
        let zero_points = Tensor::zeros(DType::I32, scales.shape().to_vec())?;
        let per_axis = scales.rank() == 1;
        let codes = self.patch.add_constant(&format!("{name}_quantized"), codes);
        let scale = self.patch.add_constant(&format!("{name}_scale"), scales);
        let zero_point = self.patch.add_constant(&format!("{name}_zero_point"), zero_points);
        let restored = self
            .patch
            .add_value(&format!("{name}_dequantized"), ValueType::fixed(DType::F32, &[bias.len()]));
        let mut dequantize = Node::new(
            "DequantizeLinear",
            format!("{name}_dq"),
            &[codes, scale, zero_point],
            &[restored],
        );
        if per_axis {
            dequantize.set_attr("axis", Attr::Int(0));
        }
        self.patch.add_node(dequantize);
        self.patch.set_input(id, 2, Some(restored));
        Ok(())
    }

    /// Constant operands of integer elementwise operators and joins get codes, too.
    fn quantize_constant_operands(&mut self) -> Result<()> {
        for (id, node) in self.graph.nodes() {
            let role = self.table.of(node).map_or(Role::FloatOnly, |d| d.role);
            let takes_codes = matches!(role, Role::Elementwise | Role::JointScale);
            let reads_codes = node.inputs.iter().flatten().any(|v| self.affines.contains_key(v));
            if !self.placement.is_active(id) || !takes_codes || !reads_codes {
                continue;
            }
            // Inputs behind the first two are parameters (bounds, sizes), not operands.
            let operands = if matches!(role, Role::JointScale) { node.inputs.len() } else { 2 };
            let parametric = matches!(node.op.as_str(), "Resize" | "PRelu" | "Upsample");
            for index in (0..operands.min(node.inputs.len())).filter(|_| !parametric) {
                self.quantize_operand(id, node, index, matches!(role, Role::JointScale))?;
            }
        }
        Ok(())
    }

    fn quantize_operand(
        &mut self,
        id: NodeId,
        node: &Node,
        index: usize,
        joint: bool,
    ) -> Result<()> {
        let Some((value, tensor)) =
            node.input(index).and_then(|v| Some((v, self.graph.constant(v)?)))
        else {
            return Ok(());
        };
        if tensor.dtype() != DType::F32 || tensor.is_empty() {
            return Ok(());
        }
        let values = tensor.cow::<f32>()?;
        let full = Range::around(
            values.iter().fold(0.0, |a, &v| a.min(v)),
            values.iter().fold(0.0, |a, &v| a.max(v)),
        );
        let shared = node.output(0).filter(|_| joint).and_then(|v| self.affines.get(&v).copied());
        let affine = shared.unwrap_or_else(|| Affine::from_range(full, &self.activations));
        let codes: Vec<f64> = values.iter().map(|&v| affine.code(v) as f64).collect();
        let codes = Tensor::from_f64(self.activations.storage, tensor.shape().to_vec(), &codes)?;
        let name = self.graph.name_of(value).to_string();
        let (scale, zero_point) = self.add_parameters(&name, affine);
        let codes = self.patch.add_constant(&format!("{name}_quantized"), codes);
        let restored = self.patch.add_value(&format!("{name}_dequantized"), ValueType::of(tensor));
        self.patch.add_node(Node::new(
            "DequantizeLinear",
            format!("{name}_dq"),
            &[codes, scale, zero_point],
            &[restored],
        ));
        self.patch.set_input(id, index, Some(restored));
        Ok(())
    }
}

impl WrittenWeight {
    /// The weight as its codes mean it.
    fn values(&self) -> Result<Vec<f32>> {
        let shape = self.codes.shape();
        let (inner, count) = match self.scheme.granularity {
            Granularity::Axis(axis) => {
                let axis = axis.rem_euclid(shape.len() as i32) as usize;
                (shape[axis + 1..].iter().product::<usize>(), shape[axis])
            }
            _ => (self.codes.len().max(1), 1),
        };
        let scale = |i: usize| self.scales[i / inner.max(1) % count];
        let codes = self.codes.to_i64()?;
        Ok(codes.iter().enumerate().map(|(i, &q)| q as f32 * scale(i)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recipe, Sample, Samples, Silent, Task, calibrate};
    use fewbit_exec::{Mode, Session, SessionOptions};

    struct One(Tensor);

    impl Samples for One {
        fn len(&self) -> usize {
            1
        }

        fn task(&self) -> Task {
            Task::None
        }

        fn sample(&self, _: usize) -> Result<Sample> {
            Ok(Sample { inputs: vec![(None, self.0.clone())], label: None })
        }

        fn name(&self) -> String {
            "one".to_string()
        }

        fn fingerprint(&self) -> Result<String> {
            Ok(String::new())
        }
    }

    fn waves(shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 1.7).sin()).collect();
        Tensor::from_slice(shape.to_vec(), &values).unwrap()
    }

    /// Channels of a `ConvTranspose` are those of one group in its weight, and of all in its bias.
    #[test]
    fn a_transposed_convolution_in_groups_keeps_its_bias() {
        for groups in [1, 2, 4] {
            let mut graph = Graph::new("up");
            let x = graph.add_value("x", ValueType::fixed(DType::F32, &[1, 4, 5, 5])).unwrap();
            let w = graph.add_constant("w", waves(&[4, 3, 2, 2])).unwrap();
            let b = graph.add_constant("b", waves(&[3 * groups])).unwrap();
            let y = graph.add_value("y", ValueType::default()).unwrap();
            graph.add_input(x);
            let node = Node::new("ConvTranspose", "up", &[x, w, b], &[y]);
            graph.add_node(node.with("group", Attr::Int(groups as i64)));
            graph.add_output(y);
            let model = Model { graph, opsets: vec![(String::new(), 13)], ..Default::default() };
            let model = crate::prepare(&model).unwrap();
            let recipe = Recipe::built_in("int8").unwrap();
            let target = Target::built_in("fewbit").unwrap();
            let plan = Plan::resolve(&model, &recipe, &target).unwrap();
            let placement = plan.placement(&model).unwrap();
            let input = waves(&[1, 4, 5, 5]);
            let samples = One(input.clone());
            let statistics = calibrate(&model, &placement, &recipe, &samples, 1, &Silent).unwrap();
            let quantized = quantize_static(&model, &plan, &target, &statistics).unwrap();
            let run = |model: &Model, mode| {
                let session = Session::new(model, &SessionOptions::new(mode).threads(1)).unwrap();
                session.run(&[("x", input.clone())]).unwrap().remove(0).1.to_f32().unwrap()
            };
            let float = run(&model, Mode::Float);
            let integer = run(&quantized, Mode::Integer);
            assert_eq!(integer, run(&quantized, Mode::Simulate), "{groups} groups");
            assert!(
                float.iter().zip(&integer).all(|(a, b)| (a - b).abs() < 0.1),
                "{groups} groups: {float:?} {integer:?}"
            );
        }
    }
}
