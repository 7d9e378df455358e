//! `FusedMatMul` and `TransposeMatMul`: transpositions, a product and a factor.

use super::Writer;
use fewbit_core::{Attr, Node, NodeId, ValueId};

impl Writer<'_> {
    pub(super) fn matrices(&mut self, id: NodeId, node: &Node) -> Option<()> {
        let alpha = node.float("alpha").ok()?.unwrap_or(1.0);
        let (a, b) = (node.input(0)?, node.input(1)?);
        let orders = [self.order(node, a, 'A')?, self.order(node, b, 'B')?];
        let factor = match alpha {
            1.0 => None,
            _ => Some(self.number("alpha", self.dtype(node), alpha)?),
        };
        let [a, b] = [(a, &orders[0]), (b, &orders[1])].map(|(value, order)| match order {
            None => value,
            Some(order) => self.value(
                Node::new("Transpose", "", &[value], &[]).with("perm", Attr::Ints(order.clone())),
            ),
        });
        self.patch.remove_node(id);
        let product = Node::new("MatMul", &node.name, &[a, b], &[]);
        match factor {
            None => self.last(product, node),
            Some(factor) => {
                let product = self.value(product);
                self.last(Node::new("Mul", "", &[product, factor], &[]), node);
            }
        }
        Some(())
    }

    /// The order of the axes in which an operand is read, `Some(None)` for its own; `None` where
    /// it depends on a rank that is not known.
    fn order(&self, node: &Node, value: ValueId, side: char) -> Option<Option<Vec<i64>>> {
        let flag = |name: &str| Some(node.int(&format!("{name}{side}")).ok()?.unwrap_or(0) != 0);
        let (swapped, batched) = (flag("trans")?, flag("transBatch")?);
        if !swapped && !batched {
            return Some(None);
        }
        Some(read_order(self.ty(value).rank()?, swapped, batched))
    }
}

/// The axes of an operand as a product reads them: with `batched` the first one stands behind the
/// batch, then the last two may change places. A vector stays what it is.
pub(crate) fn read_order(rank: usize, swapped: bool, batched: bool) -> Option<Vec<i64>> {
    if rank < 2 {
        return None;
    }
    let mut order: Vec<i64> = (0..rank as i64).collect();
    if batched {
        order[..rank - 1].rotate_left(1);
    }
    if swapped {
        order.swap(rank - 2, rank - 1);
    }
    (!order.is_sorted()).then_some(order)
}
