//! Transposed convolutions give what their definition says, whatever taps their outputs meet.

use fewbit_core::{Attr, DType, Graph, Model, Node, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

/// Two axes of a node; `pads` cut less than nothing where `grown` is larger than the result.
#[derive(Clone, Copy)]
struct Case {
    input: [usize; 2],
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [usize; 4],
    extra: [usize; 2],
    groups: usize,
    channels: [usize; 2],
    grown: Option<[usize; 2]>,
}

const PLAIN: Case = Case {
    input: [5, 4],
    kernel: [2, 2],
    strides: [2, 2],
    dilations: [1, 1],
    pads: [0; 4],
    extra: [0; 2],
    groups: 1,
    channels: [3, 5],
    grown: None,
};

fn cases() -> Vec<Case> {
    vec![
        PLAIN,
        // Every output meets as many taps.
        Case { kernel: [4, 6], strides: [2, 3], pads: [1, 2, 1, 0], ..PLAIN },
        // Some meet more than others.
        Case { kernel: [3, 5], pads: [1, 0, 0, 2], extra: [1, 1], ..PLAIN },
        Case { kernel: [9, 9], strides: [3, 3], pads: [4; 4], extra: [2, 2], ..PLAIN },
        // Some meet none.
        Case { kernel: [1, 2], strides: [3, 4], extra: [2, 0], ..PLAIN },
        Case { kernel: [3, 2], dilations: [2, 4], strides: [4, 2], ..PLAIN },
        Case { kernel: [3, 3], dilations: [3, 2], pads: [2, 1, 0, 3], ..PLAIN },
        Case { kernel: [3, 2], dilations: [2, 1], strides: [1, 1], pads: [1, 0, 0, 1], ..PLAIN },
        // More is cut than the kernel reaches.
        Case { kernel: [3, 2], pads: [4, 3, 2, 3], ..PLAIN },
        Case { kernel: [2, 2], strides: [1, 1], pads: [2, 0, 0, 2], ..PLAIN },
        // Outputs behind all that the input reaches.
        Case { kernel: [3, 2], grown: Some([17, 12]), ..PLAIN },
        Case { kernel: [3, 4], groups: 2, channels: [4, 6], pads: [1; 4], ..PLAIN },
        Case { kernel: [4, 3], groups: 4, channels: [4, 8], ..PLAIN },
        Case { kernel: [2, 3], channels: [20, 1], strides: [2, 3], input: [1, 19], ..PLAIN },
    ]
}

impl Case {
    /// Outputs and what is cut before the first one, along an axis.
    fn output(&self, axis: usize) -> (usize, i64) {
        let reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
        let full = (self.input[axis] - 1) * self.strides[axis] + reach + self.extra[axis];
        match self.grown {
            // A larger output grows at its end.
            Some(grown) => (grown[axis], 0),
            None => (full - self.pads[axis] - self.pads[axis + 2], self.pads[axis] as i64),
        }
    }

    fn model(&self) -> Model {
        let [c, m] = self.channels;
        let mut graph = Graph::new("net");
        let x = [2, c, self.input[0], self.input[1]];
        let x = graph.add_value("x", ValueType::fixed(DType::F32, &x)).unwrap();
        graph.add_input(x);
        let w = graph.add_constant("w", numbers(&self.weight(), 0.37)).unwrap();
        let b = graph.add_constant("b", numbers(&[m], 0.91)).unwrap();
        let y = graph.add_value("y", ValueType::default()).unwrap();
        let ints = |values: &[usize]| Attr::Ints(values.iter().map(|&n| n as i64).collect());
        let mut node = Node::new("ConvTranspose", "conv", &[x, w, b], &[y])
            .with("strides", ints(&self.strides))
            .with("dilations", ints(&self.dilations))
            .with("output_padding", ints(&self.extra))
            .with("group", Attr::Int(self.groups as i64));
        node = match self.grown {
            Some(grown) => node.with("output_shape", ints(&grown)),
            None => node.with("pads", ints(&self.pads)),
        };
        graph.add_node(node);
        graph.add_output(y);
        Model { graph, opsets: vec![(String::new(), 18)], ..Default::default() }
    }

    fn weight(&self) -> [usize; 4] {
        let [c, m] = self.channels;
        [c, m / self.groups, self.kernel[0], self.kernel[1]]
    }

    /// By the definition: each element of the input is spread by the kernel.
    fn expected(&self, x: &[f32]) -> Vec<f64> {
        let ([c, m], [h, w], [kh, kw]) = (self.channels, self.input, self.kernel);
        let ((out_h, top), (out_w, left)) = (self.output(0), self.output(1));
        let (weights, bias) = (numbers(&self.weight(), 0.37), numbers(&[m], 0.91));
        let (weights, bias) = (weights.to_f32().unwrap(), bias.to_f32().unwrap());
        let (of_c, of_m) = (c / self.groups, m / self.groups);
        let at = |index: usize, tap: usize, axis: usize, cut: i64, size: usize| {
            let at = (index * self.strides[axis] + tap * self.dilations[axis]) as i64 - cut;
            usize::try_from(at).ok().filter(|&at| at < size)
        };
        let plane = out_h * out_w;
        let mut y: Vec<f64> = (0..2 * m * plane).map(|i| f64::from(bias[i / plane % m])).collect();
        for (index, &value) in x.iter().enumerate() {
            let (column, row) = (index % w, index / w % h);
            let (channel, image) = (index / (w * h) % c, index / (w * h * c));
            for (o, tap) in (0..of_m).flat_map(|o| (0..kh * kw).map(move |tap| (o, tap))) {
                let row = at(row, tap / kw, 0, top, out_h);
                let column = at(column, tap % kw, 1, left, out_w);
                let (Some(row), Some(column)) = (row, column) else { continue };
                let to = image * m + channel / of_c * of_m + o;
                let weight = weights[(channel * of_m + o) * kh * kw + tap];
                y[(to * out_h + row) * out_w + column] += f64::from(value) * f64::from(weight);
            }
        }
        y
    }
}

fn numbers(shape: &[usize], step: f32) -> Tensor {
    let len = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..len).map(|i| (i as f32 * step).sin()).collect();
    Tensor::from_slice(shape.to_vec(), &values).unwrap()
}

fn run(model: &Model, x: Tensor, threads: usize) -> Vec<f32> {
    let options = SessionOptions::new(Mode::Float).threads(threads);
    let session = Session::new(model, &options).unwrap();
    session.run(&[("x", x)]).unwrap()[0].1.to_f32().unwrap()
}

#[test]
fn outputs_are_those_of_the_definition() {
    for (index, case) in cases().into_iter().enumerate() {
        let x = numbers(&[2, case.channels[0], case.input[0], case.input[1]], 0.73);
        let expected = case.expected(&x.to_f32().unwrap());
        let results = run(&case.model(), x.clone(), 1);
        assert_eq!(results.len(), expected.len(), "case {index}");
        for (at, (y, e)) in results.iter().zip(&expected).enumerate() {
            assert!((f64::from(*y) - e).abs() < 1e-4, "case {index}, output {at}: {y}, not {e}");
        }
        assert_eq!(results, run(&case.model(), x, 3), "case {index} on threads");
    }
}

/// Zeros between the elements of the input would make `NaN` of them.
#[test]
fn outputs_do_not_see_taps_of_others() {
    let mut model = PLAIN.model();
    let mut weights = numbers(&PLAIN.weight(), 0.37);
    weights.as_mut_slice::<f32>().unwrap()[0] = f32::INFINITY;
    let w = model.graph.find_value("w").unwrap();
    model.graph.set_constant(w, weights);
    let x = Tensor::from_slice(vec![2, 3, 5, 4], &[0.5f32; 120]).unwrap();
    let results = run(&model, x, 1);
    // The first tap reaches every second row and column of the first channel.
    let infinite = results.iter().filter(|y| y.is_infinite()).count();
    assert_eq!((infinite, results.iter().any(|y| y.is_nan())), (2 * 5 * 4, false));
}
