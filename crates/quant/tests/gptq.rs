//! Rounding with second moments: the factor is one, the outputs change less, every grid and
//! block type holds what was chosen, and threads change nothing.

use fewbit_core::DType;
use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_kernels::{Ctx, Isa, Pool};
use fewbit_quant::algo::blocks::RowEncoder;
use fewbit_quant::algo::factor::Factor;
use fewbit_quant::algo::gptq::{Levels, Steps, round};
use fewbit_quant::algo::grid::{Codes, Grid};
use fewbit_quant::algo::hessian::Hessian;
use fewbit_quant::algo::refine::refine;
use fewbit_quant::algo::rounding::{CalibratedEncoder, encode_rows};

const ROWS: usize = 37;
const COLUMNS: usize = 320;
const TOKENS: usize = 600;

/// Uniform between -1 and 1.
fn noise(seed: usize) -> impl Iterator<Item = f32> {
    let mut state = seed as u64 * 2 + 1;
    std::iter::repeat_with(move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn weights() -> Vec<f32> {
    noise(1).take(ROWS * COLUMNS).map(|x| x * 0.1).collect()
}

/// Inputs whose columns go together, some large.
fn inputs() -> Vec<f32> {
    let mut noise = noise(2);
    let mut next = || noise.next().unwrap();
    let mut x = Vec::new();
    for _ in 0..TOKENS {
        let common: Vec<f32> = (0..8).map(|_| next()).collect();
        x.extend((0..COLUMNS).map(|column| {
            let size = if column % 50 == 7 { 8.0 } else { 0.2 + (column % 5) as f32 * 0.2 };
            size * (common[column % 8] + 0.5 * next())
        }));
    }
    x
}

fn hessian(pool: &Pool) -> Hessian {
    let mut hessian = Hessian::new(COLUMNS).unwrap();
    let ctx = Ctx { isa: Isa::best(), pool };
    inputs().chunks(COLUMNS * 250).for_each(|part| hessian.add(ctx, part));
    hessian
}

/// Squared change of the outputs when `decoded` stands in for the weights.
fn change(decoded: &[f32]) -> f64 {
    let (weights, inputs) = (weights(), inputs());
    let mut sum = 0.0;
    for (w, d) in weights.chunks(COLUMNS).zip(decoded.chunks(COLUMNS)) {
        let error: Vec<f32> = w.iter().zip(d).map(|(w, d)| w - d).collect();
        for x in inputs.chunks(COLUMNS) {
            let y: f64 = x.iter().zip(&error).map(|(x, e)| f64::from(x * e)).sum();
            sum += y * y;
        }
    }
    sum
}

#[test]
fn the_diagonal_holds_sums_of_squares() {
    let hessian = hessian(&Pool::single());
    assert_eq!(hessian.tokens(), TOKENS as u64);
    for column in [0, 7, 300] {
        let exact: f64 =
            inputs().iter().skip(column).step_by(COLUMNS).map(|x| f64::from(x * x)).sum();
        let found = f64::from(hessian.diagonal()[column]);
        assert!((found / exact - 1.0).abs() < 1e-5, "{found} {exact}");
    }
}

fn coarse() -> (Levels, Steps) {
    let scales = (0..ROWS * COLUMNS / 32).map(|i| 0.012 + (i % 3) as f32 * 0.002).collect();
    (Levels::Integers { low: -8, high: 7 }, Steps { group: 32, scales, minima: vec![] })
}

fn decoded(codes: &[u8], levels: impl Fn(u8) -> f32, steps: &Steps) -> Vec<f32> {
    let value = |(i, &code): (usize, &u8)| {
        let group = i / steps.group;
        levels(code) * steps.scales[group] + steps.minima.get(group).unwrap_or(&0.0)
    };
    codes.iter().enumerate().map(value).collect()
}

#[test]
fn outputs_change_less_and_the_loss_says_how_much() {
    let pool = Pool::single();
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let factor = Factor::new(&hessian(&pool), 1e-4, &pool).unwrap();
    let (levels, steps) = coarse();
    let rounded = round(ctx, &weights(), &factor, levels, &steps);
    let ours = change(&decoded(&rounded.codes, |c| f32::from(c) - 8.0, &steps));
    let nearest: Vec<f32> = weights()
        .iter()
        .enumerate()
        .map(|(i, w)| {
            let scale = steps.scales[i / 32];
            (w / scale).round_ties_even().clamp(-8.0, 7.0) * scale
        })
        .collect();
    let nearest = change(&nearest);
    assert!(ours < 0.5 * nearest, "{ours} against {nearest}");
    // The damping counts as a little more input.
    assert!((rounded.loss.error / ours - 1.0).abs() < 0.05, "{} {ours}", rounded.loss.error);
}

#[test]
fn refining_lessens_the_loss_and_says_how_much_is_left() {
    let pool = Pool::new(2);
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let factor = Factor::new(&hessian(&pool), 1e-4, &pool).unwrap();
    let (levels, mut steps) = coarse();
    let mut rounded = round(ctx, &weights(), &factor, levels, &steps);
    let before = rounded.loss;
    refine(ctx, &weights(), &factor, levels, &mut steps, &mut rounded, |scale| scale);
    let left = change(&decoded(&rounded.codes, |c| levels.value(c), &steps));
    assert!(rounded.loss.error < 0.9 * before.error, "{:?} {before:?}", rounded.loss);
    assert!((rounded.loss.error / left - 1.0).abs() < 0.05, "{} {left}", rounded.loss.error);
}

#[test]
fn threads_change_nothing() {
    let (levels, steps) = coarse();
    let run = |threads: usize| {
        let pool = Pool::new(threads);
        let ctx = Ctx { isa: Isa::best(), pool: &pool };
        let factor = Factor::new(&hessian(&pool), 0.01, &pool).unwrap();
        let mut steps = steps.clone();
        let mut rounded = round(ctx, &weights(), &factor, levels, &steps);
        refine(ctx, &weights(), &factor, levels, &mut steps, &mut rounded, |scale| scale);
        (rounded, steps)
    };
    let one = run(1);
    for threads in [2, 3] {
        assert_eq!(run(threads), one);
    }
}

#[test]
fn rows_may_come_in_parts() {
    let pool = Pool::single();
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let factor = Factor::new(&hessian(&pool), 0.01, &pool).unwrap();
    let (levels, steps) = coarse();
    let whole = round(ctx, &weights(), &factor, levels, &steps);
    let scales = steps.scales[..5 * COLUMNS / 32].to_vec();
    let first = Steps { scales, ..steps };
    let part = round(ctx, &weights()[..5 * COLUMNS], &factor, levels, &first);
    assert_eq!(part.codes, whole.codes[..5 * COLUMNS]);
}

#[test]
fn asymmetric_groups_that_do_not_divide_the_row() {
    let pool = Pool::single();
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let factor = Factor::new(&hessian(&pool), 1e-4, &pool).unwrap();
    let groups = COLUMNS.div_ceil(128);
    let steps = Steps {
        group: 128,
        scales: vec![0.2 / 255.0; ROWS * groups],
        minima: vec![-0.1; ROWS * groups],
    };
    let levels = Levels::Integers { low: 0, high: 255 };
    let rounded = round(ctx, &weights(), &factor, levels, &steps);
    for (code, weight) in rounded.codes.iter().zip(weights()) {
        let value = f32::from(*code) * (0.2 / 255.0) - 0.1;
        assert!((value - weight).abs() < 0.02, "{value} for {weight}");
    }
}

#[test]
fn grids_search_their_scales_first() {
    let pool = Pool::new(2);
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let hessian = hessian(&pool);
    let factor = Factor::new(&hessian, 1e-3, &pool).unwrap();
    for (bits, group) in [(4, 32), (8, COLUMNS / 2)] {
        let grid = Grid { codes: Codes::Integers { bits }, group, scales: DType::F16 };
        let importance = hessian.diagonal();
        let nearest = grid.quantize(&weights(), COLUMNS, Some(&importance)).unwrap();
        assert_eq!(nearest.scales.len(), ROWS * COLUMNS / group);
        // Weights are decoded as the checkpoints say: code * scale.
        let decode = |codes: &[u8]| -> Vec<f32> {
            let value = |(i, &code): (usize, &u8)| grid.number(code) * nearest.scales[i / group];
            codes.iter().enumerate().map(value).collect()
        };
        let levels = grid.levels().unwrap();
        let steps = Steps { group, scales: nearest.scales.clone(), minima: vec![] };
        let rounded = round(ctx, &weights(), &factor, levels, &steps);
        let ours: Vec<u8> = rounded.codes.iter().map(|&c| levels.value(c) as i8 as u8).collect();
        let (ours, nearest) = (change(&decode(&ours)), change(&decode(&nearest.codes)));
        assert!(ours < 0.6 * nearest, "{grid:?}: {ours} against {nearest}");
        // The search is no worse than taking the ends of each group.
        let plain = change(&decode_ends(bits, group));
        assert!(nearest < 1.02 * plain, "{grid:?}: {nearest}, {plain}");
    }
    assert!(Grid { codes: Codes::Float8, group: 32, scales: DType::F16 }.levels().is_none());
}

/// The weights rounded to nearest, the ends of each group being the ends of its grid.
fn decode_ends(bits: u32, group: usize) -> Vec<f32> {
    let last = ((1u32 << bits) - 1) as f32;
    let mut out = weights();
    for part in out.chunks_mut(group) {
        let scale = part.iter().fold(0.0f32, |m, x| m.max(x.abs())) / (last / 2.0);
        let half = (last + 1.0) / 2.0;
        part.iter_mut().for_each(|x| *x = (*x / scale).round().clamp(-half, half - 1.0) * scale);
    }
    out
}

#[test]
fn blocks_hold_the_codes_and_lose_less() {
    let pool = Pool::new(2);
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let hessian = hessian(&pool);
    let factor = Factor::new(&hessian, 1e-3, &pool).unwrap();
    use BlockType::{Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    for ty in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Iq4Nl] {
        let encoder = RowEncoder::new(ty, COLUMNS, Some(&hessian.diagonal())).unwrap();
        let mut bytes = [vec![0; ROWS * encoder.row_bytes()], vec![0; ROWS * encoder.row_bytes()]];
        let [nearest, ours] = &mut bytes;
        encode_rows(ctx, &encoder, COLUMNS, &weights(), nearest).unwrap();
        let calibrated = CalibratedEncoder::new(encoder).unwrap();
        let loss = calibrated.encode(ctx, &weights(), &factor, ours).unwrap();
        let changes = bytes.map(|bytes| {
            let mut decoded = vec![0.0; ROWS * COLUMNS];
            dequantize(ty, &bytes, &mut decoded).unwrap();
            change(&decoded)
        });
        assert!(changes[1] < 0.7 * changes[0], "{ty}: {changes:?}");
        assert!((loss.error / changes[1] - 1.0).abs() < 0.2, "{ty}: {} {changes:?}", loss.error);
    }
    assert!(!CalibratedEncoder::knows(BlockType::Q4K));
}

#[test]
fn inputs_that_are_all_zero_round_to_nearest() {
    let pool = Pool::single();
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let mut hessian = Hessian::new(COLUMNS).unwrap();
    hessian.add(ctx, &vec![0.0; 3 * COLUMNS]);
    let factor = Factor::new(&hessian, 0.01, &pool).unwrap();
    let (levels, steps) = coarse();
    let rounded = round(ctx, &weights(), &factor, levels, &steps);
    for (i, (code, w)) in rounded.codes.iter().zip(weights()).enumerate() {
        assert_eq!(levels.snap(w * (1.0 / steps.scales[i / 32])).1, *code);
    }
    let mut broken = Hessian::new(COLUMNS).unwrap();
    broken.add(ctx, &vec![f32::NAN; COLUMNS]);
    assert_eq!(Factor::new(&broken, 0.01, &pool).unwrap_err().stable_code(), "FB-3714");
}
