//! Batch normalization moved into the weights and bias before it.
//!
//! `y = (W x + b - mean) * gamma / sqrt(var + epsilon) + beta` is again a weighted operator, with
//! `W' = W * factor` and `b' = (b - mean) * factor + beta` for each output channel.

use fewbit_core::{DType, Graph, Node, NodeId, Patch, Result, Tensor, Uses, ValueId};

/// Folds every `BatchNormalization` that directly follows a `Conv`, `ConvTranspose` or `Gemm`
/// with constant weights.
pub(super) fn fold(graph: &Graph) -> Result<Patch> {
    let mut patch = Patch::new(graph);
    let uses = graph.uses();
    for (id, node) in graph.nodes().filter(|(_, n)| n.is("BatchNormalization")) {
        if let Some(site) = Site::find(graph, &uses, node)? {
            site.rewrite(graph, &mut patch, id, node)?;
        }
    }
    Ok(patch)
}

/// A weighted node with constant weights and the per-channel map behind it.
struct Site<'a> {
    producer: NodeId,
    weight: &'a Tensor,
    bias: Option<&'a Tensor>,
    channels: ChannelLayout,
    factor: Vec<f64>,
    offset: Vec<f64>,
}

/// How to find the output channel of a weight element: `index / inner % channels`, plus the
/// group's first channel for transposed convolution.
struct ChannelLayout {
    inner: usize,
    channels: usize,
    group_rows: usize,
}

impl ChannelLayout {
    fn of(node: &Node, weight: &Tensor) -> Result<Option<Self>> {
        let shape = weight.shape();
        let spatial: usize = shape.iter().skip(2).product();
        Ok(match node.op.as_str() {
            "Conv" if shape.len() >= 3 => Some(ChannelLayout {
                inner: spatial * shape[1],
                channels: shape[0],
                group_rows: usize::MAX,
            }),
            "ConvTranspose" if shape.len() >= 3 => {
                let groups = node.int("group")?.unwrap_or(1).max(1) as usize;
                Some(ChannelLayout {
                    inner: spatial,
                    channels: shape[1],
                    group_rows: (shape[0] / groups).max(1) * shape[1],
                })
            }
            "Gemm"
                if shape.len() == 2
                    && node.float("alpha")?.unwrap_or(1.0) == 1.0
                    && node.float("beta")?.unwrap_or(1.0) == 1.0 =>
            {
                let transposed = node.int("transB")?.unwrap_or(0) != 0;
                let (inner, channels) =
                    if transposed { (shape[1], shape[0]) } else { (1, shape[1]) };
                Some(ChannelLayout { inner, channels, group_rows: usize::MAX })
            }
            _ => None,
        })
    }

    fn channel(&self, index: usize) -> usize {
        let row = index / self.inner.max(1);
        row / self.group_rows * self.channels + row % self.channels.max(1)
    }
}

impl<'a> Site<'a> {
    fn find(graph: &'a Graph, uses: &Uses, norm: &Node) -> Result<Option<Self>> {
        let Some(producer) = norm
            .input(0)
            .and_then(|x| uses.producer(x).filter(|_| uses.sole_consumer(x).is_some()))
        else {
            return Ok(None);
        };
        let node = graph.node(producer);
        let trains = norm.int("training_mode")?.unwrap_or(0) != 0
            || norm.outputs.iter().skip(1).any(Option::is_some);
        let constant = |n: &Node, i: usize| n.input(i).and_then(|v| graph.constant(v));
        let Some(weight) = constant(node, 1)
            .filter(|_| !trains && (node.domain.is_empty() || node.domain == "ai.onnx"))
        else {
            return Ok(None);
        };
        if node.input(2).is_some() && constant(node, 2).is_none() {
            return Ok(None);
        }
        let Some(channels) = ChannelLayout::of(node, weight)? else {
            return Ok(None);
        };
        let Some((factor, offset)) = affine(graph, norm)? else {
            return Ok(None);
        };
        let last = weight.len().checked_sub(1).map_or(0, |i| channels.channel(i) + 1);
        let bias = constant(node, 2);
        // A Gemm's C may broadcast in other ways; only one value for each channel folds here.
        let fits = last == factor.len() && bias.is_none_or(|b| b.len() == factor.len());
        Ok(fits.then_some(Site { producer, weight, bias, channels, factor, offset }))
    }

    fn rewrite(
        &self,
        graph: &Graph,
        patch: &mut Patch,
        norm_id: NodeId,
        norm: &Node,
    ) -> Result<()> {
        let node = graph.node(self.producer);
        let weight =
            self.new_constant(graph, patch, node.input(1), "weight", self.folded_weight()?);
        let bias = self.new_constant(graph, patch, node.input(2), "bias", self.folded_bias()?);
        patch.set_input(self.producer, 1, Some(weight));
        patch.set_input(self.producer, 2, Some(bias));
        // The convolution now makes the normalized value itself, so that its name survives.
        patch.remove_node(norm_id);
        patch.set_output(self.producer, 0, norm.output(0));
        Ok(())
    }

    fn new_constant(
        &self,
        graph: &Graph,
        patch: &mut Patch,
        old: Option<ValueId>,
        what: &str,
        tensor: Tensor,
    ) -> ValueId {
        let node = graph.node(self.producer);
        let name =
            old.map_or_else(|| format!("{}.{what}", node.name), |v| graph.name_of(v).to_string());
        patch.add_constant(&format!("{name}_folded"), tensor)
    }

    fn folded_weight(&self) -> Result<Tensor> {
        if self.weight.dtype() == DType::F32 {
            return self.folded_f32();
        }
        let values = self.weight.to_f64()?;
        let scaled =
            values.iter().enumerate().map(|(i, v)| v * self.factor[self.channels.channel(i)]);
        Tensor::from_f64(
            self.weight.dtype(),
            self.weight.shape().to_vec(),
            &scaled.collect::<Vec<_>>(),
        )
    }

    /// The usual type, without the weight in `f64` in between.
    fn folded_f32(&self) -> Result<Tensor> {
        let mut folded = Tensor::zeros(DType::F32, self.weight.shape().to_vec())?;
        let (old, new) = (self.weight.cow::<f32>()?, folded.as_mut_slice::<f32>()?);
        for (index, (new, &old)) in new.iter_mut().zip(old.iter()).enumerate() {
            *new = (f64::from(old) * self.factor[self.channels.channel(index)]) as f32;
        }
        Ok(folded)
    }

    fn folded_bias(&self) -> Result<Tensor> {
        let old = match self.bias {
            Some(bias) => bias.to_f64()?,
            None => vec![0.0; self.factor.len()],
        };
        let new: Vec<f64> =
            (0..old.len()).map(|c| old[c] * self.factor[c] + self.offset[c]).collect();
        Tensor::from_f64(self.weight.dtype(), vec![new.len()], &new)
    }
}

/// The normalization as `y = x * factor + offset` for each channel, if its parameters are constant.
fn affine(graph: &Graph, norm: &Node) -> Result<Option<(Vec<f64>, Vec<f64>)>> {
    let mut parameters = Vec::new();
    for index in 1..5 {
        match norm.input(index).and_then(|v| graph.constant(v)) {
            Some(tensor) => parameters.push(tensor.to_f64()?),
            None => return Ok(None),
        }
    }
    let [gamma, beta, mean, var] = &parameters[..] else {
        return Ok(None);
    };
    if [beta, mean, var].iter().any(|p| p.len() != gamma.len()) {
        return Ok(None);
    }
    let epsilon = norm.float("epsilon")?.unwrap_or(1e-5) as f64;
    let factor: Vec<f64> = gamma.iter().zip(var).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
    let offset = (0..factor.len()).map(|c| beta[c] - mean[c] * factor[c]).collect();
    Ok(Some((factor, offset)))
}
