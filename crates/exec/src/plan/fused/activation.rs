//! `FusedConv` and `FusedGemm`: a product, for a convolution with an addition, and an activation.

use super::Writer;
use fewbit_core::{Attr, Node, NodeId, ValueId};

/// Activations that a `FusedGemm` names, with attributes of their own behind `activation_`.
const OF_GEMM: [&str; 10] = [
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
];

impl Writer<'_> {
    pub(super) fn convolution(&mut self, id: NodeId, node: &Node) -> Option<()> {
        let activation = of_convolution(node)?;
        let inputs = node.inputs.iter().take(3).copied().collect();
        let product = Node { inputs, ..plain("Conv", node) };
        let addend = node.input(3);
        let mut chain = vec![product];
        chain.extend(addend.map(|addend| Node::new("Add", "", &[addend], &[])));
        if let Some((op, parameters)) = activation {
            chain.push(self.function(node, op, &parameters)?);
        }
        self.chain(id, node, chain);
        Some(())
    }

    pub(super) fn gemm(&mut self, id: NodeId, node: &Node) -> Option<()> {
        let product = Node { inputs: node.inputs.clone(), ..plain("Gemm", node) };
        let op = node.string("activation").ok()?.unwrap_or("");
        let mut chain = vec![product];
        let own = |(name, attr): &(String, Attr)| {
            Some((name.strip_prefix("activation_")?.to_string(), attr.clone()))
        };
        match op {
            "" => {}
            _ if OF_GEMM.contains(&op) => {
                let attrs = node.attrs.iter().filter_map(own).collect();
                chain.push(Node { attrs, ..Node::new(op, "", &[], &[]) });
            }
            _ => return None,
        }
        self.chain(id, node, chain);
        Some(())
    }

    /// An activation with its parameters; `Clip` has them as inputs.
    fn function(&mut self, node: &Node, op: &str, parameters: &[(&str, f32)]) -> Option<Node> {
        let mut function = Node::new(op, "", &[], &[]);
        for &(name, number) in parameters {
            if op == "Clip" {
                let number = self.number(name, self.dtype(node), number)?;
                function.inputs.push(Some(number));
            } else {
                function.set_attr(name, Attr::Float(number));
            }
        }
        Some(function)
    }

    /// Writes a node as several, each of which reads what the one before it computes, before
    /// other inputs.
    fn chain(&mut self, id: NodeId, of: &Node, chain: Vec<Node>) {
        self.patch.remove_node(id);
        let mut before: Option<ValueId> = None;
        let count = chain.len();
        for (at, mut node) in chain.into_iter().enumerate() {
            if let Some(value) = before {
                node.inputs.insert(0, Some(value));
            }
            if at + 1 == count {
                self.last(node, of);
            } else {
                before = Some(self.value(node));
            }
        }
    }
}

/// The product in a node, without inputs.
fn plain(op: &str, node: &Node) -> Node {
    let own = |(name, _): &&(String, Attr)| !name.starts_with("activation");
    Node {
        attrs: node.attrs.iter().filter(own).cloned().collect(),
        ..Node::new(op, &node.name, &[], &[])
    }
}

/// Operator and parameters.
type Activation = Option<(&'static str, Vec<(&'static str, f32)>)>;

/// The activation of a convolution; `None` where it is not known.
fn of_convolution(node: &Node) -> Option<Activation> {
    let given = node.floats("activation_params").ok()?.unwrap_or(&[]);
    let (op, names): (_, &[&str]) = match node.string("activation").ok()?.unwrap_or("") {
        "" => return Some(None),
        "Relu" => ("Relu", &[]),
        "Sigmoid" => ("Sigmoid", &[]),
        "Tanh" => ("Tanh", &[]),
        "LeakyRelu" => ("LeakyRelu", &["alpha"]),
        "HardSigmoid" => ("HardSigmoid", &["alpha", "beta"]),
        "Clip" => ("Clip", &["min", "max"]),
        _ => return None,
    };
    let parameters = names.iter().copied().zip(given.iter().copied()).collect();
    (given.len() == names.len()).then_some(Some((op, parameters)))
}
