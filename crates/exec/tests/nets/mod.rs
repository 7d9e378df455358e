//! Random networks with and without Q/DQ, from a fixed generator.

use fewbit_core::{Attr, DType, Graph, Model, Node, Tensor, ValueId, ValueType};
use std::collections::HashMap;

/// A small fixed generator.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// About normally distributed, deviation 1.
    pub fn normal(&mut self) -> f32 {
        let mut unit = || (self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        (unit() + unit() + unit() + unit()) * 1.7
    }

    pub fn tensor(&mut self, shape: &[usize], deviation: f32) -> Tensor {
        let len = shape.iter().product();
        let values: Vec<f32> = (0..len).map(|_| self.normal() * deviation).collect();
        Tensor::from_slice(shape.to_vec(), &values).unwrap()
    }
}

/// What random networks are like.
#[derive(Clone, Copy, PartialEq)]
pub enum Style {
    /// Few values, layers of every kind. All codes are outputs.
    Small,
    /// As networks for phones: larger images, more channels, mostly pointwise and depthwise
    /// convolutions. Few codes are outputs, so that layers are fused, and convolutions run as one.
    Mobile,
}

/// Ranges of float values by name.
pub type Ranges = HashMap<String, (f32, f32)>;

/// An activation: the float value, its shape, and the scale of its codes.
#[derive(Clone)]
struct Act {
    value: ValueId,
    shape: Vec<usize>,
    scale: f32,
}

struct Net<'a> {
    style: Style,
    graph: Graph,
    rng: Rng,
    ranges: Option<&'a Ranges>,
    /// How many values of each kind there are; so both forms of a network use the same names.
    counts: HashMap<String, usize>,
    signed: bool,
    /// Every activation before its quantization.
    names: Vec<String>,
}

/// The network of a seed: float without `ranges`, with Q/DQ around everything otherwise. Also the
/// names of the activations whose ranges are needed, and the shape of the input `x`.
pub fn network(
    style: Style,
    seed: u64,
    ranges: Option<&Ranges>,
) -> (Model, Vec<String>, Vec<usize>) {
    let mut rng = Rng::new(seed);
    let (shape, layers) = match style {
        Style::Small => {
            let images = [1 + rng.below(2), rng.pick(&[3, 4, 8, 16])];
            ([&images[..], &[5 + rng.below(9), 4 + rng.below(9)]].concat(), 4)
        }
        Style::Mobile => {
            let images = [1 + rng.below(8) / 7, rng.pick(&[3, 8, 16, 24, 32, 64, 80, 96, 144])];
            let size = [rng.pick(&[7, 9, 14, 28, 33, 56]), rng.pick(&[7, 11, 14, 20, 28])];
            ([images, size].concat(), 4 + rng.below(8))
        }
    };
    let signed = rng.chance(50);
    let graph = Graph::new(format!("seed {seed}"));
    let counts = HashMap::new();
    let mut net = Net { style, graph, rng, ranges, counts, signed, names: Vec::new() };
    let x = net.graph.add_value("x", ValueType::fixed(DType::F32, &shape)).unwrap();
    net.graph.add_input(x);
    net.names.push("x".to_string());
    let mut acts = vec![net.quantized(x, shape.clone())];
    for _ in 0..layers + net.rng.below(4) {
        let act = net.layer(&acts);
        acts.push(act);
    }
    let last = acts[acts.len() - 1].clone();
    net.head(last);
    let model = Model { graph: net.graph, opsets: vec![(String::new(), 17)], ..Default::default() };
    model.graph.verify(None).unwrap();
    (model, net.names, shape)
}

impl Net<'_> {
    fn name(&mut self, kind: &str) -> String {
        let count = self.counts.entry(kind.to_string()).or_default();
        *count += 1;
        format!("{kind}{count}")
    }

    fn value(&mut self, kind: &str) -> ValueId {
        let name = self.name(kind);
        self.graph.add_value(name, ValueType::default()).unwrap()
    }

    fn constant(&mut self, kind: &str, tensor: Tensor) -> ValueId {
        let name = self.name(kind);
        self.graph.add_constant(name, tensor).unwrap()
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let output = self.value(op);
        let mut node = Node::new(op, self.graph.name_of(output), inputs, &[output]);
        for (name, attr) in attrs {
            node.set_attr(name, attr.clone());
        }
        self.graph.add_node(node);
        output
    }

    /// Q and DQ after a float value; the codes may become an output of the graph.
    fn quantized(&mut self, value: ValueId, shape: Vec<usize>) -> Act {
        let watched = self.style == Style::Small || self.rng.chance(6);
        let cut = 0.6 + self.rng.below(60) as f32 / 100.0;
        let symmetric = self.rng.chance(30);
        let Some(ranges) = self.ranges else { return Act { value, shape, scale: 1.0 } };
        let (lo, hi) = ranges[self.graph.name_of(value)];
        let (lo, hi) = (lo.min(0.0) * cut, hi.max(0.0) * cut);
        let scale = if symmetric { lo.abs().max(hi) / 127.5 } else { (hi - lo) / 255.0 }.max(1e-6);
        let first = if self.signed { -128 } else { 0 };
        let zero = if symmetric { first + 128 } else { first - (lo / scale).round() as i32 };
        let zero = zero.clamp(first, first + 255);
        let zero = match self.signed {
            true => Tensor::scalar(zero as i8),
            false => Tensor::scalar(zero as u8),
        };
        let s = self.constant("scale", Tensor::scalar(scale));
        let z = self.constant("zero", zero);
        let codes = self.node("QuantizeLinear", &[value, s, z], &[]);
        if watched {
            self.graph.add_output(codes);
        }
        let value = self.node("DequantizeLinear", &[codes, s, z], &[]);
        Act { value, shape, scale }
    }

    fn done(&mut self, value: ValueId, shape: Vec<usize>) -> Act {
        self.names.push(self.graph.name_of(value).to_string());
        self.quantized(value, shape)
    }

    /// A weight, in 8-bit codes when the network is quantized; with the scale of each channel.
    fn weight(&mut self, shape: &[usize], axis: usize, fan_in: usize) -> (ValueId, Vec<f32>) {
        let tensor = self.rng.tensor(shape, 1.0 / (fan_in as f32).sqrt());
        let (per_channel, unsigned) = (self.rng.chance(60), self.rng.chance(20));
        if self.ranges.is_none() {
            return (self.constant("w", tensor), vec![1.0; shape[axis]]);
        }
        let values = tensor.to_f32().unwrap();
        let inner: usize = shape[axis + 1..].iter().product();
        let channel = |i: usize| i / inner % shape[axis];
        let mut most = vec![1e-6f32; shape[axis]];
        values
            .iter()
            .enumerate()
            .for_each(|(i, v)| most[channel(i)] = most[channel(i)].max(v.abs()));
        if !per_channel {
            let all = most.iter().copied().fold(0.0, f32::max);
            most.fill(all);
        }
        let scales: Vec<f32> = most.iter().map(|m| m / 127.0).collect();
        let code = |i: usize| (values[i] / scales[channel(i)]).round() as i32;
        let codes: Vec<i32> = (0..values.len()).map(code).collect();
        let zero = if unsigned { 121 } else { 0 };
        let byte = |c: &i32| {
            (c + zero).clamp(if unsigned { 0 } else { -127 }, if unsigned { 255 } else { 127 })
        };
        let bytes: Vec<u8> = codes.iter().map(|c| byte(c) as u8).collect();
        let dtype = if unsigned { DType::U8 } else { DType::I8 };
        let codes = Tensor::from_slice(shape.to_vec(), &bytes).unwrap().reinterpret(dtype).unwrap();
        let count = if per_channel { shape[axis] } else { 1 };
        let zeros = Tensor::from_f64(dtype, vec![count], &vec![f64::from(zero); count]).unwrap();
        let (scale, zeros) = match per_channel {
            true => (Tensor::vector(&scales), zeros),
            false => (Tensor::scalar(scales[0]), zeros.reshape(vec![]).unwrap()),
        };
        let ids = [("wq", codes), ("ws", scale), ("wz", zeros)].map(|(n, t)| self.constant(n, t));
        let axis = [("axis", Attr::Int(axis as i64))];
        let attrs: &[(&str, Attr)] = if per_channel { &axis } else { &[] };
        (self.node("DequantizeLinear", &ids, attrs), scales)
    }

    /// A bias, as int32 in units of the sums or (sometimes) as plain numbers.
    fn bias(&mut self, input: f32, scales: &[f32]) -> ValueId {
        let tensor = self.rng.tensor(&[scales.len()], 0.3);
        if self.rng.chance(15) || self.ranges.is_none() {
            return self.constant("b", tensor);
        }
        let units: Vec<f32> = scales.iter().map(|s| s * input).collect();
        let values = tensor.to_f32().unwrap();
        let codes: Vec<i32> =
            values.iter().zip(&units).map(|(v, u)| (v / u).round() as i32).collect();
        let (codes, units) = (
            self.constant("bq", Tensor::vector(&codes)),
            self.constant("bs", Tensor::vector(&units)),
        );
        self.node("DequantizeLinear", &[codes, units], &[("axis", Attr::Int(0))])
    }

    fn layer(&mut self, acts: &[Act]) -> Act {
        let last = acts[acts.len() - 1].clone();
        let same: Vec<&Act> =
            acts[..acts.len() - 1].iter().filter(|a| a.shape == last.shape).collect();
        let kind = match self.style {
            Style::Small => self.rng.below(12),
            Style::Mobile => self.rng.below(26).saturating_sub(16),
        };
        match kind {
            0..=4 => self.conv(last),
            5 | 6 => match same.first() {
                Some(other) => self.residual(&last, other),
                None => self.conv(last),
            },
            7 => self.pool(last),
            8 => self.unary(last),
            9 if last.shape[1] < 200 => {
                self.concat(&last, same.first().copied().cloned().unwrap_or(last.clone()))
            }
            10 => self.transposed(last),
            _ => self.arithmetic(&last),
        }
    }

    fn clamp(&mut self, value: ValueId) -> ValueId {
        match self.rng.below(4) {
            0 => self.node("Relu", &[value], &[]),
            1 => {
                let (lo, hi) = (Tensor::scalar(0f32), Tensor::scalar(1.5f32));
                let (lo, hi) = (self.constant("lo", lo), self.constant("hi", hi));
                self.node("Clip", &[value, lo, hi], &[])
            }
            _ => value,
        }
    }

    /// Groups, and out channels of a convolution that may have any number of them.
    fn groups(&mut self, channels: usize) -> (usize, usize) {
        let mobile = self.style == Style::Mobile;
        let [depthwise, two, more] = if mobile { [40, 8, 5] } else { [25, 20, 50] };
        if self.rng.chance(depthwise) {
            return (channels, channels * (1 + usize::from(self.rng.chance(more))));
        }
        let groups = if channels.is_multiple_of(2) && self.rng.chance(two) { 2 } else { 1 };
        let out = match (mobile, self.rng.chance(30)) {
            (false, _) => 1 + self.rng.below(9),
            (true, true) => 1 + self.rng.below(90),
            (true, false) => 8 * self.rng.pick(&[1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 20, 24]),
        };
        (groups, groups * out)
    }

    /// The size of a kernel.
    fn kernel(&mut self, depthwise: bool) -> [usize; 2] {
        match (self.style, depthwise) {
            (Style::Small, _) => self.rng.pick(&[[1, 1], [3, 3], [3, 1], [2, 3]]),
            (Style::Mobile, true) => self.rng.pick(&[[3, 3], [3, 3], [3, 3], [5, 5], [3, 1]]),
            (Style::Mobile, false) => self.rng.pick(&[[1, 1], [1, 1], [1, 1], [3, 3], [2, 3]]),
        }
    }

    fn conv_value(&mut self, act: &Act, keep: bool) -> (ValueId, Vec<usize>) {
        let [n, c, h, w] = act.shape[..] else { unreachable!() };
        let (groups, out) = self.groups(c);
        let out = if keep { c } else { out };
        let k = self.kernel(groups == c);
        let k = if keep { [3, 3] } else { [k[0].min(h), k[1].min(w)] };
        let mobile = self.style == Style::Mobile;
        let one = keep || mobile && self.rng.chance(50);
        let stride = if one { 1 } else { 1 + self.rng.below(2) };
        let reach = |k: usize, d: usize| d * (k - 1) + 1;
        let dilation = if !keep && self.rng.chance(20) && reach(k[0], 2) <= h && reach(k[1], 2) <= w
        {
            2
        } else {
            1
        };
        let pads: Vec<usize> = match keep {
            true => vec![1; 4],
            false if mobile => (0..4).map(|i| (k[i % 2] - 1) / 2).collect(),
            false => (0..4).map(|i| self.rng.below(k[i % 2])).collect(),
        };
        let (weight, scales) =
            self.weight(&[out, c / groups, k[0], k[1]], 0, c / groups * k[0] * k[1]);
        let mut inputs = vec![act.value, weight];
        if self.rng.chance(80) {
            inputs.push(self.bias(act.scale, &scales));
        }
        let ints = |v: &[usize]| Attr::Ints(v.iter().map(|&v| v as i64).collect());
        let value = self.node(
            "Conv",
            &inputs,
            &[
                ("pads", ints(&pads)),
                ("strides", ints(&[stride; 2])),
                ("dilations", ints(&[dilation; 2])),
                ("group", Attr::Int(groups as i64)),
            ],
        );
        let size = |size: usize, axis: usize| {
            (size + pads[axis] + pads[axis + 2] - reach(k[axis], dilation)) / stride + 1
        };
        (value, vec![n, out, size(h, 0), size(w, 1)])
    }

    fn conv(&mut self, act: Act) -> Act {
        let (value, shape) = self.conv_value(&act, false);
        let value = self.clamp(value);
        self.done(value, shape)
    }

    /// A convolution and the addition of what came before, as in a ResNet; what is added may be
    /// quantized by itself.
    fn residual(&mut self, act: &Act, other: &Act) -> Act {
        let (mut value, shape) = self.conv_value(act, true);
        if self.rng.chance(50) {
            let clamped = self.clamp(value);
            value = self.done(clamped, shape.clone()).value;
        }
        let value = self.node("Add", &[value, other.value], &[]);
        let value = self.clamp(value);
        self.done(value, shape)
    }

    fn pool(&mut self, act: Act) -> Act {
        let [n, c, h, w] = act.shape[..] else { unreachable!() };
        if h < 3 || w < 3 {
            return self.unary(act);
        }
        let op = self.rng.pick(&["MaxPool", "AveragePool"]);
        let k = 2 + self.rng.below(2);
        let value = self.node(
            op,
            &[act.value],
            &[
                ("kernel_shape", Attr::Ints(vec![k as i64; 2])),
                ("strides", Attr::Ints(vec![1, 2])),
                ("pads", Attr::Ints(vec![0, 1, 0, 1])),
            ],
        );
        self.done(value, vec![n, c, h - k + 1, (w + 2 - k) / 2 + 1])
    }

    fn unary(&mut self, act: Act) -> Act {
        let op = self.rng.pick(&["Sigmoid", "HardSwish", "LeakyRelu", "Tanh", "Elu"]);
        let value = self.node(op, &[act.value], &[]);
        self.done(value, act.shape)
    }

    fn concat(&mut self, a: &Act, b: Act) -> Act {
        let value = self.node("Concat", &[a.value, b.value], &[("axis", Attr::Int(1))]);
        let mut shape = a.shape.clone();
        shape[1] += b.shape[1];
        self.done(value, shape)
    }

    fn transposed(&mut self, act: Act) -> Act {
        let [n, c, h, w] = act.shape[..] else { unreachable!() };
        let (out, k, stride) =
            (1 + self.rng.below(6), 2 + self.rng.below(3), 1 + self.rng.below(3));
        let (weight, _) = self.weight(&[c, out, k, k], 1, c * k);
        let attrs = [
            ("strides", Attr::Ints(vec![stride as i64; 2])),
            ("pads", Attr::Ints(vec![0, 1, 1, 0])),
        ];
        let value = self.node("ConvTranspose", &[act.value, weight], &attrs);
        self.done(value, vec![n, out, (h - 1) * stride + k - 1, (w - 1) * stride + k - 1])
    }

    fn arithmetic(&mut self, act: &Act) -> Act {
        let op = self.rng.pick(&["Mul", "Add", "Sub"]);
        let constant = self.rng.tensor(&[act.shape[1], 1, 1], 0.5);
        let number = self.rng.chance(50);
        let other = match number {
            true => self.constant("number", Tensor::scalar(0.37f32)),
            false => {
                let value = self.constant("row", constant);
                self.names.push(self.graph.name_of(value).to_string());
                self.quantized(value, vec![act.shape[1], 1, 1]).value
            }
        };
        let value = self.node(op, &[act.value, other], &[]);
        let value = self.clamp(value);
        self.done(value, act.shape.clone())
    }

    /// Mean over the plane, and a matrix product.
    fn head(&mut self, act: Act) {
        let (n, c) = (act.shape[0], act.shape[1]);
        let mean = self.node("GlobalAveragePool", &[act.value], &[]);
        let mean = self.done(mean, vec![n, c, 1, 1]);
        let flat = self.node("Flatten", &[mean.value], &[]);
        let flat = self.done(flat, vec![n, c]);
        let outputs = 1 + self.rng.below(20);
        let value = match self.rng.chance(50) {
            true => {
                let (weight, scales) = self.weight(&[outputs, c], 0, c);
                let bias = self.bias(flat.scale, &scales);
                self.node("Gemm", &[flat.value, weight, bias], &[("transB", Attr::Int(1))])
            }
            false => {
                let (weight, _) = self.weight(&[c, outputs], 1, c);
                self.node("MatMul", &[flat.value, weight], &[])
            }
        };
        let last = self.done(value, vec![n, outputs]);
        self.graph.add_output(last.value);
    }
}
