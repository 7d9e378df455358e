//! Elementwise operators in one step give what they give one by one.

use fewbit_core::{DType, Graph, Model, Node, Tensor, ValueId, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

const SHAPE: [usize; 3] = [3, 5, 700];

/// A graph under way: `x`, and what follows it.
struct Net {
    graph: Graph,
    x: ValueId,
    inside: Vec<String>,
}

impl Net {
    fn new() -> Net {
        let mut graph = Graph::new("net");
        let x = graph.add_value("x", ValueType::fixed(DType::F32, &SHAPE)).unwrap();
        graph.add_input(x);
        Net { graph, x, inside: Vec::new() }
    }

    fn constant(&mut self, shape: &[usize], value: f32) -> ValueId {
        let values = vec![value; shape.iter().product()];
        let name = format!("c{}", self.graph.value_ids().count());
        self.graph.add_constant(name, Tensor::from_slice(shape.to_vec(), &values).unwrap()).unwrap()
    }

    fn node(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let name = format!("{op}{}", self.graph.value_ids().count());
        let output = self.graph.add_value(name.clone(), ValueType::default()).unwrap();
        self.graph.add_node(Node::new(op, name.clone(), inputs, &[output]));
        self.inside.push(name);
        output
    }

    fn with(&mut self, op: &str, value: ValueId, number: f32) -> ValueId {
        let number = self.constant(&[], number);
        self.node(op, &[value, number])
    }

    /// The steps of the plan, and the output, which equals that of a session in which every value
    /// is observed.
    fn check(mut self, output: ValueId) -> (Vec<String>, Vec<f32>) {
        self.graph.add_output(output);
        let model =
            Model { graph: self.graph, opsets: vec![(String::new(), 17)], ..Default::default() };
        let len = SHAPE.iter().product::<usize>();
        let mut values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin() * 6.0).collect();
        values[..4].copy_from_slice(&[f32::NAN, f32::INFINITY, -0.0, 1e-40]);
        let x = Tensor::from_slice(SHAPE.to_vec(), &values).unwrap();
        let whole = Session::new(&model, &SessionOptions::new(Mode::Float)).unwrap();
        let mut options = SessionOptions::new(Mode::Float);
        options.taps.extend(self.inside);
        let apart = Session::new(&model, &options).unwrap();
        let found = whole.run(&[("x", x.clone())]).unwrap().remove(0).1;
        let expected = apart.run_tapped(&[("x", x)], &mut |_| Ok(())).unwrap().remove(0).1;
        assert_eq!(found.shape(), SHAPE);
        let (found, expected) = (found.to_f32().unwrap(), expected.to_f32().unwrap());
        for (a, b) in found.iter().zip(&expected) {
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{a} is not {b}");
        }
        let steps = |session: &Session| -> Vec<String> {
            let kernels = session.plan().iter().map(|node| node.kernel.clone());
            kernels.filter(|kernel| !kernel.starts_with("in ")).collect()
        };
        assert!(steps(&apart).len() > steps(&whole).len());
        (steps(&whole), found)
    }
}

#[test]
fn gelu_in_five_operators_is_one_step() {
    let mut net = Net::new();
    let x = net.x;
    let scaled = net.with("Div", x, std::f32::consts::SQRT_2);
    let erf = net.node("Erf", &[scaled]);
    let more = net.with("Add", erf, 1.0);
    let twice = net.node("Mul", &[x, more]);
    let gelu = net.with("Mul", twice, 0.5);
    let (steps, values) = net.check(gelu);
    assert_eq!(steps, ["elementwise_f32"]);
    let x = (5.0f32 * 0.37).sin() * 6.0;
    assert!((values[5] - x * 0.5 * (1.0 + libm_erf(x / std::f32::consts::SQRT_2))).abs() < 1e-5);
}

/// The error function by its series, for small arguments.
fn libm_erf(x: f32) -> f32 {
    let x = f64::from(x);
    let (mut sum, mut term) = (0.0, x);
    for n in 0..80 {
        sum += term / f64::from(2 * n + 1);
        term *= -x * x / f64::from(n + 1);
    }
    (sum * 2.0 / std::f64::consts::PI.sqrt()) as f32
}

#[test]
fn operands_keep_their_sides() {
    let mut net = Net::new();
    let x = net.x;
    let cube = net.with("Pow", x, 3.0);
    let one = net.constant(&[1, 1], 1.0);
    let less = net.node("Sub", &[one, cube]);
    let tanh = net.node("Tanh", &[less]);
    let over = net.node("Div", &[x, tanh]);
    let back = net.node("Sub", &[over, x]);
    let sigmoid = net.node("Sigmoid", &[back]);
    let (steps, _) = net.check(sigmoid);
    assert_eq!(steps, ["elementwise_f32"]);
}

#[test]
fn what_has_another_reader_or_shape_stays_apart() {
    let mut net = Net::new();
    let x = net.x;
    let scaled = net.with("Mul", x, 2.0);
    let root = net.node("Exp", &[scaled]);
    let row = net.constant(&[700], 0.5);
    let shifted = net.node("Add", &[root, row]);
    let again = net.node("Mul", &[shifted, shifted]);
    let (steps, _) = net.check(again);
    assert_eq!(steps, ["elementwise_f32", "Add", "Mul"]);
}
