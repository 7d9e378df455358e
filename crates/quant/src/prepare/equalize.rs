//! Cross-layer equalization (Nagel et al. 2019, "Data-free quantization", section 4.1).
//!
//! Between two weighted layers with nothing but ReLU between them, channel `c` may be divided by
//! `s` in the first and multiplied by `s` in the second. Choosing `s` so that both weights use
//! the same range for the channel lets one scale serve all channels better. Here every `s` is a
//! power of two, so the float model computes the very same bits as before.

use fewbit_core::{DType, Graph, Model, Node, NodeId, Patch, Result, Tensor, Uses, ValueId};
use std::collections::BTreeMap;

/// Factors settle after a few sweeps; more change nothing.
const SWEEPS: usize = 20;

/// Equalizes every chain of layers it can.
///
/// # Errors
/// When a weight cannot be read.
pub fn equalize(model: &Model) -> Result<Model> {
    let graph = &model.graph;
    let pairs = find_pairs(graph)?;
    let mut constants = Constants::default();
    for pair in &pairs {
        constants.load(graph, &pair.values())?;
    }
    for _ in 0..SWEEPS {
        let changes = pairs.iter().map(|p| p.equalize(&mut constants)).filter(|&changed| changed);
        if changes.count() == 0 {
            break;
        }
    }
    let mut equalized = model.clone();
    constants.patch(graph)?.apply(&mut equalized.graph)?;
    Ok(equalized)
}

/// Weights and biases while they are being scaled.
#[derive(Default)]
struct Constants(BTreeMap<ValueId, (Vec<usize>, Vec<f32>)>);

impl Constants {
    fn load(&mut self, graph: &Graph, values: &[ValueId]) -> Result<()> {
        for &value in values {
            if let (false, Some(tensor)) = (self.0.contains_key(&value), graph.constant(value)) {
                self.0.insert(value, (tensor.shape().to_vec(), tensor.to_f32()?));
            }
        }
        Ok(())
    }

    fn data(&mut self, value: ValueId) -> &mut [f32] {
        self.0.get_mut(&value).map_or(&mut [], |(_, data)| data)
    }

    fn patch(self, graph: &Graph) -> Result<Patch> {
        let mut patch = Patch::new(graph);
        for (value, (shape, data)) in self.0 {
            patch.set_constant(value, Tensor::from_slice(shape, &data)?);
        }
        Ok(patch)
    }
}

/// Elements of one channel of a weight, as `outer` runs of `run` elements, `stride` apart.
#[derive(Clone, Copy)]
struct ChannelView {
    value: ValueId,
    channels: usize,
    outer: usize,
    run: usize,
    grouped_rows: Option<usize>,
}

impl ChannelView {
    /// Index ranges of channel `c`.
    fn runs(&self, c: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (run, outer) = (self.run, self.outer);
        let (first, step, count) = match self.grouped_rows {
            // Convolution inputs: channel c of group g is column c % per_group of the rows of g.
            Some(per_group) => {
                let rows = outer / (self.channels / per_group);
                ((c / per_group * rows * per_group + c % per_group) * run, per_group * run, rows)
            }
            None => (c * run, self.channels * run, outer),
        };
        (0..count).map(move |i| first + i * step..first + i * step + run)
    }

    fn magnitude(&self, constants: &mut Constants, c: usize) -> f32 {
        let data = constants.data(self.value);
        let values = self.runs(c).flat_map(|r| &data[r]);
        values.fold(0.0, |m, v| m.max(v.abs()))
    }

    fn scale(&self, constants: &mut Constants, c: usize, factor: f32) {
        let data = constants.data(self.value);
        for run in self.runs(c) {
            data[run].iter_mut().for_each(|v| *v *= factor);
        }
    }
}

/// Two layers that share the channels between them.
struct Pair {
    first: ChannelView,
    bias: Option<ValueId>,
    second: ChannelView,
}

impl Pair {
    fn values(&self) -> Vec<ValueId> {
        [Some(self.first.value), self.bias, Some(self.second.value)].into_iter().flatten().collect()
    }

    /// Brings both ranges of every channel to their geometric mean; whether anything changed.
    fn equalize(&self, constants: &mut Constants) -> bool {
        let mut changed = false;
        for c in 0..self.first.channels {
            let (r1, r2) =
                (self.first.magnitude(constants, c), self.second.magnitude(constants, c));
            let factor = power_of_two((r1 / r2).sqrt());
            if !(r1 > 0.0 && r2 > 0.0) || factor == 1.0 {
                continue;
            }
            self.first.scale(constants, c, 1.0 / factor);
            self.second.scale(constants, c, factor);
            if let Some(bias) = self.bias {
                constants.data(bias)[c] /= factor;
            }
            changed = true;
        }
        changed
    }
}

/// The nearest power of two (on a logarithmic scale), within 2^-10..2^10.
fn power_of_two(factor: f32) -> f32 {
    2f32.powf(factor.log2().round().clamp(-10.0, 10.0))
}

fn find_pairs(graph: &Graph) -> Result<Vec<Pair>> {
    let uses = graph.uses();
    let mut pairs = Vec::new();
    for (id, node) in graph.nodes() {
        let Some(next) = next_layer(graph, &uses, id) else {
            continue;
        };
        let (first, second) =
            (outputs_view(graph, &uses, node)?, inputs_view(graph, &uses, graph.node(next))?);
        let bias = own_constant(graph, &uses, node, 2);
        let bias_fits = node.input(2).is_none() || bias.is_some();
        if let (Some(first), Some(second), true) = (first, second, bias_fits)
            && first.channels == second.channels
            && bias.and_then(|b| graph.constant(b)).is_none_or(|b| b.len() == first.channels)
        {
            pairs.push(Pair { first, bias, second });
        }
    }
    Ok(pairs)
}

/// The one layer that reads a node's result, through ReLUs only.
fn next_layer(graph: &Graph, uses: &Uses, id: NodeId) -> Option<NodeId> {
    let consumer = uses.sole_consumer(graph.node(id).output(0)?)?;
    let node = graph.node(consumer);
    match node.op.as_str() {
        // Only functions with f(s x) = s f(x) let a factor pass.
        "Relu" | "LeakyRelu" => next_layer(graph, uses, consumer),
        "Conv" | "Gemm" => Some(consumer),
        _ => None,
    }
}

/// A float constant that nobody else reads.
fn own_constant(graph: &Graph, uses: &Uses, node: &Node, index: usize) -> Option<ValueId> {
    let value = node.input(index)?;
    let tensor = graph.constant(value)?;
    (tensor.dtype() == DType::F32 && uses.consumers(value).len() == 1).then_some(value)
}

fn outputs_view(graph: &Graph, uses: &Uses, node: &Node) -> Result<Option<ChannelView>> {
    let Some((value, shape)) = weight_of(graph, uses, node) else {
        return Ok(None);
    };
    let whole: usize = shape.iter().product();
    Ok(match node.op.as_str() {
        "Conv" => Some(ChannelView {
            value,
            channels: shape[0],
            outer: 1,
            run: whole / shape[0],
            grouped_rows: None,
        }),
        "Gemm" if shape.len() == 2 => {
            let transposed = node.int("transB")?.unwrap_or(0) != 0;
            let (channels, outer, run) =
                if transposed { (shape[0], 1, shape[1]) } else { (shape[1], shape[0], 1) };
            Some(ChannelView { value, channels, outer, run, grouped_rows: None })
        }
        _ => None,
    })
}

fn inputs_view(graph: &Graph, uses: &Uses, node: &Node) -> Result<Option<ChannelView>> {
    let Some((value, shape)) = weight_of(graph, uses, node) else {
        return Ok(None);
    };
    Ok(match node.op.as_str() {
        "Conv" => {
            let groups = node.int("group")?.unwrap_or(1).max(1) as usize;
            let run = shape.iter().skip(2).product();
            let fits = shape[0] % groups == 0;
            let view = ChannelView {
                value,
                channels: shape[1] * groups,
                outer: shape[0],
                run,
                grouped_rows: Some(shape[1]),
            };
            fits.then_some(view)
        }
        "Gemm" if shape.len() == 2 && node.int("transA")?.unwrap_or(0) == 0 => {
            let transposed = node.int("transB")?.unwrap_or(0) != 0;
            let (channels, outer, run) =
                if transposed { (shape[1], shape[0], 1) } else { (shape[0], 1, shape[1]) };
            Some(ChannelView { value, channels, outer, run, grouped_rows: None })
        }
        _ => None,
    })
}

/// The node's own weight, without empty dimensions.
fn weight_of<'g>(graph: &'g Graph, uses: &Uses, node: &Node) -> Option<(ValueId, &'g [usize])> {
    let value = own_constant(graph, uses, node, 1)?;
    let shape = graph.constant(value)?.shape();
    (shape.len() >= 2 && !shape.contains(&0)).then_some((value, shape))
}
