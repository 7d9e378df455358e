//! `Attention` and `QAttention` of ONNX Runtime: one product for queries, keys and values, then attention.

use super::Writer;
use fewbit_core::{Attr, Node, NodeId, ValueId, ValueType};

/// What keeps a node from being written as product and attention: where it says it, and what.
pub(crate) fn obstacle(node: &Node) -> Option<(&'static str, &'static str)> {
    let set = |name: &str| !matches!(node.int(name), Ok(None | Some(0)));
    if set("do_rotary") {
        Some(("attribute `do_rotary`", "rotary positions without angles"))
    } else if set("past_present_share_buffer") {
        Some(("attribute `past_present_share_buffer`", "a past that grows in its own buffer"))
    } else {
        None
    }
}

impl Writer<'_> {
    pub(super) fn attention(&mut self, id: NodeId, node: &Node) -> Option<()> {
        if obstacle(node).is_some() {
            return None;
        }
        let (x, weight) = (node.input(0)?, node.input(1)?);
        let widths = self.widths(node, weight)?;
        self.patch.remove_node(id);
        let [mask, past, bias] = [3, 4, 5].map(|index| node.input(index));
        self.attend(node, [x, weight], widths, [mask, past, bias]);
        Some(())
    }

    /// `QAttention`: the same on codes.
    pub(super) fn attention_on_codes(&mut self, id: NodeId, node: &Node) -> Option<()> {
        if obstacle(node).is_some() {
            return None;
        }
        let (x, weight) = (node.input(0)?, node.input(1)?);
        let (of_x, of_weight) = (node.input(3)?, node.input(4)?);
        let widths = self.widths(node, weight)?;
        self.patch.remove_node(id);
        let x = self.decoded(x, of_x, node.input(6));
        let weight = self.decoded(weight, of_weight, node.input(7));
        let [mask, past] = [5, 8].map(|index| node.input(index));
        self.attend(node, [x, weight], widths, [mask, past, None]);
        Some(())
    }

    /// The numbers that codes stand for, with a scale for all or for each column.
    fn decoded(&mut self, codes: ValueId, scale: ValueId, zero: Option<ValueId>) -> ValueId {
        let mut node = Node::new("DequantizeLinear", "", &[codes, scale], &[]);
        node.inputs.extend(zero.map(Some));
        self.value(node.with("axis", Attr::Int(-1)))
    }

    fn attend(
        &mut self,
        node: &Node,
        [x, weight]: [ValueId; 2],
        widths: [i64; 3],
        [mask, past, bias]: [Option<ValueId>; 3],
    ) {
        let mut all = self.value(Node::new("MatMul", &node.name, &[x, weight], &[]));
        if let Some(bias) = node.input(2) {
            all = self.value(Node::new("Add", "", &[all, bias], &[]));
        }
        let [q, k, v] = self.split(all, -1, widths).map(Some);
        let [keys, values] = match past {
            Some(past) => self.split(past, 0, [1, 1]).map(|part| Some(self.squeezed(part))),
            None => [None, None],
        };
        let kept = |(name, _): &&(String, Attr)| name != "qkv_hidden_sizes";
        let mut outputs = vec![node.output(0)];
        if let Some(present) = node.output(1) {
            outputs.extend(self.joined(present).map(Some));
        }
        self.patch.add_node(Node {
            domain: node.domain.clone(),
            attrs: node.attrs.iter().filter(kept).cloned().collect(),
            inputs: vec![q, k, v, None, mask, bias, keys, values],
            outputs,
            ..Node::new("MultiHeadAttention", &node.name, &[], &[])
        });
    }

    /// Keys and values that one value holds, one behind the other.
    fn joined(&mut self, present: ValueId) -> [ValueId; 2] {
        let parts = ["keys", "values"].map(|name| self.patch.add_value(name, ValueType::default()));
        let rows = parts.map(|part| {
            let node = Node::new("Unsqueeze", "", &[part], &[]);
            self.value(node.with("axes", Attr::Ints(vec![0])))
        });
        let join = Node::new("Concat", "", &rows, &[present]);
        self.patch.add_node(join.with("axis", Attr::Int(0)));
        parts
    }

    /// Columns of the weight for queries, keys and values.
    fn widths(&self, node: &Node, weight: ValueId) -> Option<[i64; 3]> {
        match node.ints("qkv_hidden_sizes").ok()? {
            Some(sizes) => sizes.try_into().ok(),
            None => {
                let all = self.ty(weight).shape.as_ref()?.last()?.known()?;
                all.is_multiple_of(3).then_some([i64::try_from(all / 3).ok()?; 3])
            }
        }
    }

    /// Attributes say the sizes, whatever the operator set of the file: the nodes are not kept.
    fn split<const N: usize>(
        &mut self,
        value: ValueId,
        axis: i64,
        sizes: [i64; N],
    ) -> [ValueId; N] {
        let parts = sizes.map(|_| self.patch.add_value("part", ValueType::default()));
        let node = Node::new("Split", "", &[value], &parts);
        let node = node.with("axis", Attr::Int(axis)).with("split", Attr::Ints(sizes.to_vec()));
        self.patch.add_node(node);
        parts
    }

    fn squeezed(&mut self, value: ValueId) -> ValueId {
        self.value(Node::new("Squeeze", "", &[value], &[]).with("axes", Attr::Ints(vec![0])))
    }
}
