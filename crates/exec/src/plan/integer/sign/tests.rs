//! Which codes of a network become unsigned.

use super::*;
use crate::def::OpTable;
use crate::memory::Arena;
use crate::plan::analyze::{Fold, analyze};
use crate::session::Mode;
use fewbit_kernels::{Ctx, Isa, Pool};

const ZERO: i8 = -7;

/// A graph of values that are called as what makes them.
struct Net {
    graph: Graph,
    step: ValueId,
    zero: ValueId,
}

impl Net {
    fn new() -> Net {
        let mut graph = Graph::new("net");
        let step = graph.add_constant("step", Tensor::scalar(0.1f32)).unwrap();
        let zero = graph.add_constant("zero", Tensor::scalar(ZERO)).unwrap();
        Net { graph, step, zero }
    }

    fn input(&mut self, name: &str, dtype: DType) -> ValueId {
        let value = self.value(name);
        self.graph.set_type(value, ValueType::fixed(dtype, &[4, 4]));
        self.graph.add_input(value);
        value
    }

    fn value(&mut self, name: &str) -> ValueId {
        self.graph.add_value(name, ValueType::default()).unwrap()
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], name: &str) -> ValueId {
        let value = self.value(name);
        self.graph.add_node(Node::new(op, name, inputs, &[value]));
        value
    }

    fn quantized(&mut self, value: ValueId, name: &str) -> ValueId {
        let node = [value, self.step, self.zero];
        self.node("QuantizeLinear", &node, name)
    }

    fn numbers(&mut self, codes: ValueId) -> ValueId {
        let name = format!("numbers {}", self.graph.node_count());
        self.node("DequantizeLinear", &[codes, self.step, self.zero], &name)
    }

    /// An operator on the numbers behind `codes`, and the codes of its result.
    fn coded(&mut self, op: &str, codes: &[ValueId], name: &str) -> ValueId {
        let inputs: Vec<ValueId> = codes.iter().map(|&codes| self.numbers(codes)).collect();
        let result = self.node(op, &inputs, &format!("{name}.result"));
        self.quantized(result, name)
    }

    /// The zero points of the codes of these names after the pass.
    fn zeros(mut self, isa: Isa, names: &[&str]) -> Vec<Tensor> {
        let (pool, table, arena) = (Pool::single(), OpTable::standard(), Arena::new());
        let scope = Scope {
            table: &table,
            opsets: &[(String::new(), 21)],
            mode: Mode::Integer,
            kernels: &Ctx { isa, pool: &pool },
            arena: &arena,
        };
        let types = analyze(&self.graph, &scope, Fold::KeepDequantize).types;
        make_unsigned(&mut self.graph, &types, &scope).unwrap();
        self.graph.verify(None).unwrap();
        names.iter().map(|name| self.zero_of(name)).collect()
    }

    /// The zero point of codes, which all nodes around them agree on.
    fn zero_of(&self, name: &str) -> Tensor {
        let value = self.graph.find_value(name).unwrap();
        let uses = self.graph.uses();
        let nodes = uses.consumers(value).iter().copied().chain(uses.producer(value));
        let zero = |id| self.graph.constant(self.graph.node(id).input(2).unwrap()).unwrap();
        let mut zeros = nodes.map(zero);
        let first = zeros.next().unwrap();
        assert!(zeros.all(|zero| zero == first), "{name}");
        first.clone()
    }
}

/// Instruction sets of this machine that multiply unsigned bytes.
fn unsigned_levels() -> impl Iterator<Item = Isa> {
    Isa::available().into_iter().filter(|isa| isa.wants_unsigned())
}

fn signed_zero() -> Tensor {
    Tensor::scalar(ZERO)
}

fn unsigned_zero() -> Tensor {
    Tensor::scalar((i32::from(ZERO) + 128) as u8)
}

#[test]
fn codes_that_only_the_graph_sees_become_unsigned() {
    for isa in unsigned_levels() {
        let mut net = Net::new();
        let x = net.input("x", DType::F32);
        let first = net.quantized(x, "first");
        let sum = net.coded("Add", &[first, first], "sum");
        let moved = net.coded("Transpose", &[sum], "moved");
        let result = net.numbers(moved);
        net.graph.add_output(result);
        assert_eq!(net.zeros(isa, &["first", "sum", "moved"]), vec![unsigned_zero(); 3]);
    }
}

#[test]
fn codes_that_others_see_stay_with_all_that_share_their_type() {
    for isa in unsigned_levels() {
        let mut net = Net::new();
        let codes = net.input("codes", DType::I8);
        let sum = net.coded("Add", &[codes, codes], "sum");
        let product = net.coded("MatMul", &[sum, codes], "product");
        let root = net.coded("Transpose", &[product], "root");
        net.graph.add_output(root);
        let other = net.coded("MatMul", &[sum, sum], "other");
        let result = net.numbers(other);
        net.graph.add_output(result);
        let [stays, changes] = [signed_zero(), unsigned_zero()];
        // `sum` is added from an input, `product` becomes an output, `other` is alone.
        let expected = [&stays, &stays, &stays, &changes].map(Tensor::clone);
        assert_eq!(net.zeros(isa, &["sum", "product", "root", "other"]), expected);
    }
}

#[test]
fn the_right_side_of_a_product_stays_signed() {
    for isa in unsigned_levels() {
        let mut net = Net::new();
        let x = net.input("x", DType::F32);
        let [left, right] = ["left", "right"].map(|name| net.quantized(x, name));
        let turned = net.coded("Transpose", &[right], "turned");
        let product = net.coded("MatMul", &[left, turned], "product");
        let result = net.numbers(product);
        net.graph.add_output(result);
        let [stays, changes] = [signed_zero(), unsigned_zero()];
        let expected = [&changes, &stays, &stays, &changes].map(Tensor::clone);
        assert_eq!(net.zeros(isa, &["left", "right", "turned", "product"]), expected);
    }
}

#[test]
fn the_type_in_an_attribute_follows() {
    for isa in unsigned_levels() {
        let mut net = Net::new();
        let x = net.input("x", DType::F32);
        let first = net.value("first");
        let node = Node::new("QuantizeLinear", "", &[x, net.step], &[first]);
        let dtype = Attr::Int(i64::from(DType::I8.to_onnx()));
        net.graph.add_node(node.with("output_dtype", dtype));
        let result = net.node("DequantizeLinear", &[first, net.step], "result");
        net.graph.add_output(result);
        assert_eq!(net.zeros(isa, &["first"]), [Tensor::scalar(128u8)]);
    }
}

#[test]
fn instructions_for_signed_bytes_keep_them() {
    let mut net = Net::new();
    let x = net.input("x", DType::F32);
    let first = net.quantized(x, "first");
    let result = net.numbers(first);
    net.graph.add_output(result);
    assert_eq!(net.zeros(Isa::scalar(), &["first"]), [signed_zero()]);
}
