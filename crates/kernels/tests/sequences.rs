//! Convolutions in a sequence against the same ones one by one, for every instruction set and
//! number of threads.

use fewbit_kernels::conv::{
    ConvInput, ConvShape, Link, PackedConvI8, Place, conv2d_i8, conv2d_i8_sequence, start_in_buffer,
};
use fewbit_kernels::gemm::{Output, Requantize, Residual, WeightZero};
use fewbit_kernels::{Ctx, Int8, Int8Mut, Isa, Pool};

/// A small deterministic generator of bytes.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as u8
    };
    (0..len).map(next).collect()
}

/// Channels between the two pointwise convolutions of a block.
const WIDE: usize = 80;

/// Channels of blocks.
const NARROW: usize = 24;

/// The most lines of all images.
const LINES: usize = 28;

/// One convolution: its sizes, where it reads, what it adds.
struct Layer {
    shape: ConvShape,
    from: Place,
    residual: Option<Place>,
}

/// Two blocks as in MobileNetV2, the first of which adds the input of the sequence, the second the
/// result of the first, and a dense convolution between them. Every layer has a buffer of its own.
fn layers([batch, in_h]: [usize; 2]) -> Vec<Layer> {
    let shape = |in_c, out_c, kernel: usize, groups| ConvShape {
        batch,
        in_h,
        in_w: 7,
        in_c,
        out_c,
        kernel: [kernel; 2],
        stride: [1; 2],
        dilation: [1; 2],
        pads: [kernel / 2; 4],
        groups,
    };
    let block = |input: Place, first: usize| {
        let layer = |shape, from, residual| Layer { shape, from, residual };
        [
            layer(shape(NARROW, WIDE, 1, 1), input, None),
            layer(shape(WIDE, WIDE, 3, WIDE), Place::Buffer(first), None),
            layer(shape(WIDE, NARROW, 1, 1), Place::Buffer(first + 1), Some(input)),
        ]
    };
    let dense = Layer {
        shape: shape(NARROW, NARROW, 3, 1),
        from: Place::Buffer(2),
        residual: Some(Place::Buffer(2)),
    };
    block(Place::Input(0), 0).into_iter().chain([dense]).chain(block(Place::Buffer(3), 4)).collect()
}

/// What becomes of the sums of a layer.
fn requantize<'a>(multiplier: &'a [f32], residual: Option<Int8<'a>>) -> Requantize<'a> {
    let residual = residual.map(|values| Residual {
        values,
        is_row: false,
        zero_point: 90,
        multiplier: 0.7,
        own: None,
    });
    Requantize { bias: None, multiplier, residual, zero_point: 90, lo: 0, hi: 255 }
}

const INPUT: ConvInput<'static> = ConvInput { values: Int8::U8(&[]), zero_point: 90 };

/// The weights and the multipliers of layers.
fn packed(isa: Isa, layers: &[Layer]) -> (Vec<PackedConvI8>, Vec<Vec<f32>>) {
    let multipliers: Vec<Vec<f32>> = (0u64..)
        .zip(layers)
        .map(|(seed, layer)| {
            let bytes = bytes(seed, layer.shape.out_c);
            bytes.iter().map(|&byte| 1e-5 * (20.0 + f32::from(byte))).collect()
        })
        .collect();
    let pack = |((seed, layer), multiplier): ((u64, &Layer), &Vec<f32>)| {
        let codes = bytes(seed ^ 99, layer.shape.weights_len());
        let codes = Int8::I8(bytemuck::cast_slice(&codes));
        let mut packed = PackedConvI8::new(isa, &layer.shape, codes, WeightZero::None);
        if layer.residual.is_none() {
            packed.prepare(INPUT, &requantize(multiplier, None));
        }
        packed
    };
    let mut weights: Vec<_> = (0u64..).zip(layers).zip(&multipliers).map(pack).collect();
    for first in [0, 4] {
        let [writer, reader] = &mut weights[first..first + 2] else { unreachable!() };
        let _handed = writer.hand_planes(reader);
    }
    (weights, multipliers)
}

/// The results of all layers, one by one.
fn one_by_one(ctx: Ctx<'_>, layers: &[Layer], input: &[u8]) -> Vec<Vec<u8>> {
    let (weights, multipliers) = packed(ctx.isa, layers);
    let mut done: Vec<Vec<u8>> = Vec::new();
    for (index, Layer { shape, from, residual }) in layers.iter().enumerate() {
        let values = |place: Place| match place {
            Place::Input(_) => Int8::U8(input),
            Place::Buffer(buffer) => Int8::U8(&done[buffer]),
        };
        let to = requantize(&multipliers[index], residual.map(values));
        let mut out = vec![0; shape.output_len()];
        let output = Output::Int8(Int8Mut::U8(&mut out), to);
        conv2d_i8(
            ctx,
            shape,
            ConvInput { values: values(*from), ..INPUT },
            &weights[index],
            output,
        );
        done.push(out);
    }
    done
}

/// The same in a sequence; the buffer of layer `index` is `buffers[index]`. Results that no other
/// layer has written over.
fn in_sequence(
    ctx: Ctx<'_>,
    layers: &[Layer],
    input: &[u8],
    buffers: &[usize],
) -> Vec<Option<Vec<u8>>> {
    let (weights, multipliers) = packed(ctx.isa, layers);
    let place = |place: Place| match place {
        Place::Buffer(layer) => Place::Buffer(buffers[layer]),
        input => input,
    };
    let link = |index: usize| {
        let Layer { shape, from, residual } = &layers[index];
        let nothing = residual.map(|_| Int8::U8(&[]));
        Link {
            shape,
            weights: &weights[index],
            from: place(*from),
            input: INPUT,
            to: requantize(&multipliers[index], nothing),
            residual: residual.map(place),
            signed: false,
            buffer: buffers[index],
        }
    };
    let mut memory = vec![vec![1; LINES * 7 * WIDE]; layers.len()];
    let slices = memory.iter_mut().map(Vec::as_mut_slice).collect();
    let done = std::sync::Mutex::new(Vec::new());
    let count = layers.len();
    conv2d_i8_sequence(ctx, count, link, &[input], slices, |i| done.lock().unwrap().push(i));
    assert_eq!(done.into_inner().unwrap(), (0..count).collect::<Vec<_>>());
    let result = |index: usize| {
        let buffer = &memory[buffers[index]];
        let len = layers[index].shape.output_len();
        let start = start_in_buffer(buffer.len(), len, weights[index].writes_planes());
        (!buffers[index + 1..].contains(&buffers[index])).then(|| buffer[start..start + len].into())
    };
    (0..count).map(result).collect()
}

#[test]
fn sequences_compute_what_convolutions_one_by_one_compute() {
    // The lines of the second size are shared out equally by two and by four threads, which need
    // not meet behind each convolution then.
    for size in [[2, 9], [1, LINES]] {
        let layers = layers(size);
        let input = bytes(7, layers[0].shape.input_len());
        for isa in Isa::available() {
            let want = one_by_one(Ctx { isa, pool: &Pool::single() }, &layers, &input);
            for threads in 1..=4 {
                let pool = Pool::new(threads);
                let ctx = Ctx { isa, pool: &pool };
                let check = |got: &[Option<Vec<u8>>], count: usize| {
                    assert_eq!(got.iter().flatten().count(), count);
                    for (index, (got, want)) in got.iter().zip(&want).enumerate() {
                        let same = got.as_ref().is_none_or(|got| got == want);
                        assert!(same, "layer {index} of {size:?}: {isa}, {threads} threads");
                    }
                };
                // Each in a buffer of its own, then in few that are used again.
                check(&in_sequence(ctx, &layers, &input, &[0, 1, 2, 3, 4, 5, 6]), 7);
                for _ in 0..20 {
                    check(&in_sequence(ctx, &layers, &input, &[0, 1, 2, 0, 1, 2, 3]), 4);
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "reads what it writes")]
fn a_convolution_that_reads_what_it_writes_is_refused() {
    let layers = layers([2, 9]);
    let input = bytes(7, layers[0].shape.input_len());
    let pool = Pool::new(2);
    in_sequence(Ctx { isa: Isa::best(), pool: &pool }, &layers, &input, &[0, 0, 1, 2, 3, 4, 5]);
}
