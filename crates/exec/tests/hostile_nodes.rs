//! No node, however damaged, may panic: every operator meets inputs and attributes that do not
//! fit together, and answers with a result or an error.

use fewbit_core::{Attr, DType, Graph, Node, Tensor, ValueType};
use fewbit_exec::{Arena, EvalCtx, InferCtx, OpTable};
use fewbit_kernels::{Ctx, Isa, Pool};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A small generator (SplitMix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    fn int(&mut self) -> i64 {
        const ODD: &[i64] = &[i64::MIN, i64::MAX, 1 << 40, -(1 << 40), 1 << 31, -1, 0, 1000];
        if self.below(8) == 0 { self.pick(ODD) } else { self.below(7) as i64 - 2 }
    }

    fn float(&mut self) -> f32 {
        const ODD: &[f32] = &[f32::NAN, f32::INFINITY, -1e38, 1e-38, 0.0, 1e9];
        if self.below(8) == 0 { self.pick(ODD) } else { self.below(9) as f32 / 2.0 - 1.0 }
    }

    fn tensor(&mut self) -> Tensor {
        const COMMON: &[DType] = &[DType::F32, DType::F32, DType::I64, DType::U8, DType::I8];
        let dtype = if self.below(3) == 0 { self.pick(DType::ALL) } else { self.pick(COMMON) };
        let rank = self.below(6);
        let shape: Vec<usize> = (0..rank).map(|_| self.pick(&[0, 1, 1, 2, 2, 3, 4])).collect();
        let count: usize = shape.iter().product();
        match dtype {
            DType::I64 => {
                let values: Vec<i64> = (0..count).map(|_| self.int()).collect();
                Tensor::from_slice(shape, &values).unwrap()
            }
            DType::F32 => {
                let values: Vec<f32> = (0..count).map(|_| self.float()).collect();
                Tensor::from_slice(shape, &values).unwrap()
            }
            _ => {
                let mut tensor = Tensor::zeros(dtype, shape).unwrap();
                tensor.bytes_mut().iter_mut().for_each(|b| *b = self.next() as u8);
                if dtype == DType::Bool {
                    tensor.bytes_mut().iter_mut().for_each(|b| *b &= 1);
                }
                tensor
            }
        }
    }

    fn attr(&mut self, kind: &Kind) -> Attr {
        match kind {
            _ if self.below(40) == 0 => Attr::Ints(vec![self.int()]),
            Kind::Int => Attr::Int(self.int()),
            Kind::Float => Attr::Float(self.float()),
            Kind::Ints => {
                let len = self.below(7);
                Attr::Ints((0..len).map(|_| self.int()).collect())
            }
            Kind::Word(words) => Attr::String(self.pick(words).as_bytes().to_vec()),
            Kind::Type => Attr::Int(self.below(28) as i64),
            Kind::Tensor => Attr::Tensor(self.tensor()),
        }
    }
}

enum Kind {
    Int,
    Float,
    Ints,
    Word(&'static [&'static str]),
    Type,
    Tensor,
}

const ATTRIBUTES: &[(&str, Kind)] = &[
    ("axis", Kind::Int),
    ("axes", Kind::Ints),
    ("keepdims", Kind::Int),
    ("perm", Kind::Ints),
    ("block_size", Kind::Int),
    ("blocksize", Kind::Int),
    ("batch_dims", Kind::Int),
    ("kernel_shape", Kind::Ints),
    ("strides", Kind::Ints),
    ("dilations", Kind::Ints),
    ("pads", Kind::Ints),
    ("output_padding", Kind::Ints),
    ("output_shape", Kind::Ints),
    ("group", Kind::Int),
    ("allowzero", Kind::Int),
    ("start", Kind::Int),
    ("end", Kind::Int),
    ("k", Kind::Int),
    ("upper", Kind::Int),
    ("num_outputs", Kind::Int),
    ("split", Kind::Ints),
    ("to", Kind::Type),
    ("dtype", Kind::Type),
    ("output_dtype", Kind::Type),
    ("value", Kind::Tensor),
    ("antialias", Kind::Int),
    ("align_corners", Kind::Int),
    ("ceil_mode", Kind::Int),
    ("sampling_ratio", Kind::Int),
    ("output_height", Kind::Int),
    ("output_width", Kind::Int),
    ("pooled_shape", Kind::Ints),
    ("spatial_scale", Kind::Float),
    ("alpha", Kind::Float),
    ("epsilon", Kind::Float),
    ("num_groups", Kind::Int),
    ("hidden_size", Kind::Int),
    ("q_num_heads", Kind::Int),
    ("kv_num_heads", Kind::Int),
    ("num_heads", Kind::Int),
    ("is_causal", Kind::Int),
    ("left_window_size", Kind::Int),
    ("right_window_size", Kind::Int),
    ("p", Kind::Int),
    ("size", Kind::Int),
    ("transA", Kind::Int),
    ("transB", Kind::Int),
    ("K", Kind::Int),
    ("N", Kind::Int),
    ("bits", Kind::Int),
    ("gather_axis", Kind::Int),
    ("quantize_axis", Kind::Int),
    ("channels_last", Kind::Int),
    ("time_axis", Kind::Int),
    ("batch_axis", Kind::Int),
    ("reduction", Kind::Word(&["none", "add", "mul", "min", "max", "mean", "sum"])),
    (
        "mode",
        Kind::Word(&[
            "nearest", "linear", "cubic", "constant", "reflect", "edge", "wrap", "CRD", "DCR",
            "avg", "max",
        ]),
    ),
    ("padding_mode", Kind::Word(&["zeros", "border", "reflection"])),
    ("auto_pad", Kind::Word(&["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])),
    ("direction", Kind::Word(&["forward", "reverse", "bidirectional", "LEFT", "RIGHT"])),
    (
        "coordinate_transformation_mode",
        Kind::Word(&[
            "half_pixel",
            "align_corners",
            "asymmetric",
            "tf_crop_and_resize",
            "half_pixel_symmetric",
        ]),
    ),
    ("keep_aspect_ratio_policy", Kind::Word(&["stretch", "not_larger", "not_smaller"])),
    ("equation", Kind::Word(&["ij,jk->ik", "ii->i", "...i,i...->...", "i->", "q", "->", "ij,j"])),
];

/// A node of the operator with random attributes, and inputs for it.
fn damaged(random: &mut Random, domain: &str, op: &str) -> (Node, Vec<Option<Tensor>>) {
    let mut node = Node { op: op.into(), domain: domain.into(), ..Default::default() };
    for (name, kind) in ATTRIBUTES {
        if random.below(4) == 0 {
            let attr = random.attr(kind);
            node.set_attr(name, attr);
        }
    }
    let count = random.below(7);
    let shared = random.tensor();
    let inputs = (0..count).map(|_| match random.below(10) {
        0 => None,
        1..4 => Some(shared.clone()),
        _ => Some(random.tensor()),
    });
    let inputs: Vec<_> = inputs.collect();
    let mut graph = Graph::new("g");
    let mut value = |name: String| graph.value_named_or_new(&name).ok();
    let given = inputs.iter().enumerate();
    node.inputs = given.map(|(i, t)| t.as_ref().and_then(|_| value(format!("i{i}")))).collect();
    node.outputs = (0..1 + random.below(3)).map(|i| value(format!("o{i}"))).collect();
    (node, inputs)
}

fn run(def: &fewbit_exec::OpDef, random: &mut Random, kernels: &Ctx) {
    let arena = Arena::new();
    let (node, inputs) = damaged(random, def.domain, def.name);
    let opset = random.pick(&[7, 9, 10, 11, 12, 13, 18, 21, 24]);
    for known in [true, false] {
        let constants = inputs.iter().map(|t| t.as_ref().filter(|_| known)).collect();
        let types = inputs.iter().map(|t| t.as_ref().map(ValueType::of)).collect();
        // Inference may not know enough to object, but it must not panic.
        let _ = (def.infer)(&InferCtx { node: &node, opset, inputs: types, constants });
    }
    let mut ctx = EvalCtx { node: &node, opset, kernels, arena: &arena, subgraphs: None, inputs };
    if let Err(error) = (def.eval)(&mut ctx) {
        assert!(!error.what().is_empty());
    }
}

#[test]
fn damaged_nodes_never_panic() {
    fewbit_core::set_max_tensor_bytes(1 << 24);
    let table = OpTable::standard();
    let pool = Pool::single();
    let kernels = Ctx { isa: Isa::best(), pool: &pool };
    let rounds: u64 =
        std::env::var("FEWBIT_FUZZ_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(300);
    let mut failed = Vec::new();
    for def in table.rows() {
        for seed in 0..rounds {
            let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
            let outcome = catch_unwind(AssertUnwindSafe(|| run(def, &mut random, &kernels)));
            if outcome.is_err() {
                failed.push(format!("{}.{} with seed {seed}", def.domain, def.name));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "these operators panic: {failed:#?}");
}
