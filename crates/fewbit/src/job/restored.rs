//! What the codes of quantized weights mean in real numbers, for comparing with the originals.

use fewbit_core::{Graph, Node, NodeId, Tensor, Uses};
use std::collections::HashMap;

/// The weights of a quantized graph, by the names of the nodes that had them.
pub(super) struct RestoredWeights<'a> {
    graph: &'a Graph,
    uses: Uses,
    nodes: HashMap<&'a str, NodeId>,
}

impl<'a> RestoredWeights<'a> {
    pub fn of(graph: &'a Graph) -> Self {
        let nodes = graph.nodes().map(|(id, node)| (node.name.as_str(), id)).collect();
        RestoredWeights { graph, uses: graph.uses(), nodes }
    }

    /// The real values in the order of the original weight; `None` where it is not quantized.
    pub fn weight(&self, original: &Node) -> Option<Vec<f32>> {
        match self.node(&original.name) {
            Some(node) => self.behind_dequantize(node),
            None => self.behind_integer_product(original),
        }
    }

    fn node(&self, name: &str) -> Option<&'a Node> {
        self.nodes.get(name).map(|&id| self.graph.node(id))
    }

    fn behind_dequantize(&self, node: &Node) -> Option<Vec<f32>> {
        let dequantize = self.graph.node(self.uses.producer(node.input(1)?)?);
        if !dequantize.is("DequantizeLinear") {
            return None;
        }
        let [codes, scales] = [0, 1].map(|i| self.constant(dequantize, i));
        let block = usize::try_from(dequantize.int("block_size").ok()?.unwrap_or(0)).ok()?;
        let axis = dequantize.int("axis").ok()?.unwrap_or(1);
        real_values(codes?, scales?, self.constant(dequantize, 2), axis, block)
    }

    /// Dynamic quantization makes a node NAME into several, among them NAME.matmul for the codes
    /// and NAME.scales for both scales; columns become the last axis.
    fn behind_integer_product(&self, original: &Node) -> Option<Vec<f32>> {
        let product = self.node(&format!("{}.matmul", original.name))?;
        let scales = self.node(&format!("{}.scales", original.name))?;
        let codes = self.constant(product, 1)?;
        let real = real_values(codes, self.constant(scales, 1)?, self.constant(product, 3), 1, 0)?;
        let transposed = original.is("Gemm") && original.int("transB").ok()?.unwrap_or(0) != 0;
        let &[rows, columns] = codes.shape() else { return None };
        match transposed {
            true => {
                (0..real.len()).map(|i| real.get(i % rows * columns + i / rows).copied()).collect()
            }
            false => Some(real),
        }
    }

    fn constant(&self, node: &Node, input: usize) -> Option<&'a Tensor> {
        self.graph.constant(node.input(input)?)
    }
}

/// `(code - zero point) * scale`, with one scale, or one for each index of `axis`, or one for
/// each `block` indices of it; a block of 0 stands for none.
fn real_values(
    codes: &Tensor,
    scales: &Tensor,
    zeros: Option<&Tensor>,
    axis: i64,
    block: usize,
) -> Option<Vec<f32>> {
    let scales = scales.to_f64().ok()?;
    let zeros = match zeros {
        Some(zeros) => zeros.to_f64().ok()?,
        None => vec![0.0; scales.len()],
    };
    let axis = usize::try_from(if axis < 0 { axis + codes.rank() as i64 } else { axis }).ok()?;
    let inner = codes.shape().iter().skip(axis + 1).product::<usize>().max(1);
    let extent = codes.shape().get(axis).copied().unwrap_or(1).max(1);
    let scale_of = |i: usize| {
        let (outer, along) = (i / inner / extent, i / inner % extent);
        match block {
            _ if scales.len() == 1 => 0,
            0 => along,
            block => (outer * extent.div_ceil(block) + along / block) * inner + i % inner,
        }
    };
    let real = |(i, code): (usize, f64)| {
        let at = scale_of(i);
        Some(((code - zeros.get(at)?) * scales.get(at)?) as f32)
    };
    codes.to_f64().ok()?.into_iter().enumerate().map(real).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, values: &[f32]) -> Tensor {
        Tensor::from_slice(vec![rows, values.len() / rows], values).unwrap()
    }

    #[test]
    fn scales_belong_to_an_axis_or_to_blocks_of_it() {
        let codes = matrix(2, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let real = |scales: &[f32], axis, block| {
            real_values(&codes, &matrix(1, scales), None, axis, block).unwrap()
        };
        assert_eq!(real(&[10.0], 1, 0), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(real(&[1.0, 10.0], 0, 0), [1.0, 2.0, 3.0, 40.0, 50.0, 60.0]);
        assert_eq!(real(&[1.0, 2.0, 3.0], -1, 0), [1.0, 4.0, 9.0, 4.0, 10.0, 18.0]);
        // Along the rows in blocks of two, the last one of one.
        assert_eq!(real(&[1.0, 2.0, 3.0, 4.0], 1, 2), [1.0, 2.0, 6.0, 12.0, 15.0, 24.0]);
        // Both rows in one block.
        assert_eq!(real(&[1.0, 2.0, 3.0], 0, 2), [1.0, 4.0, 9.0, 4.0, 10.0, 18.0]);
    }

    #[test]
    fn zero_points_are_taken_off_and_missing_scales_are_no_answer() {
        let codes = matrix(1, &[1.0, 2.0]);
        let zeros = matrix(1, &[1.0, 4.0]);
        let scales = matrix(1, &[2.0, 3.0]);
        assert_eq!(real_values(&codes, &scales, Some(&zeros), 1, 0), Some(vec![0.0, -6.0]));
        assert_eq!(real_values(&codes, &matrix(2, &[1.0, 2.0]), None, 0, 1), Some(vec![1.0, 4.0]));
        assert_eq!(real_values(&matrix(3, &[1.0; 3]), &scales, None, 0, 0), None);
    }
}
