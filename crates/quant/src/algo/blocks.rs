//! Rows of numbers into the block types of ggml, with searched scales.

use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{Error, Result};
use fewbit_kernels::Isa;
use fewbit_kernels::blocks::{Half, decode_halves};
use fewbit_kernels::encode::{Encoding, Loss, encode};
use half::{bf16, f16};

/// Importance below this share of the mean is taken for as much: no column is worth nothing.
const LEAST_IMPORTANCE: f32 = 1e-6;

/// What a type needs to be written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    F32,
    F16,
    Bf16,
    Blocks(Encoding),
}

/// Writes rows of one width in one type.
#[derive(Clone, Debug)]
pub struct RowEncoder {
    ty: BlockType,
    target: Target,
    columns: usize,
    importance: Option<Vec<f32>>,
}

impl RowEncoder {
    /// An encoder of rows of `columns` elements. `importance` is the mean squared activation of
    /// each column, in any unit: it says how much the column's errors count.
    ///
    /// # Errors
    /// When there is no encoder for the type, rows are no whole number of blocks, or the
    /// importance does not fit.
    pub fn new(ty: BlockType, columns: usize, importance: Option<&[f32]>) -> Result<RowEncoder> {
        ty.row_bytes(columns)?;
        let target = target(ty).ok_or_else(|| {
            Error::unsupported(format!("there is no encoder for {ty}"))
                .code("FB-4701")
                .hint("choose another type; `fewbit quantize --help` lists them")
        })?;
        let importance = importance.map(|w| normalized(w, columns)).transpose()?;
        Ok(RowEncoder { ty, target, columns, importance })
    }

    /// Whether some columns matter more than others.
    pub fn has_importance(&self) -> bool {
        self.importance.is_some()
    }

    /// The type written.
    pub fn block_type(&self) -> BlockType {
        self.ty
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.columns / self.ty.elements() * self.ty.bytes()
    }

    /// Writes whole rows; `out` has their bytes. The loss is weighted by the importance, which
    /// is on average 1.
    ///
    /// # Errors
    /// When a number is not finite or beyond what the type can hold, or lengths do not fit.
    pub fn encode(&self, isa: Isa, x: &[f32], out: &mut [u8]) -> Result<Loss> {
        if !x.len().is_multiple_of(self.columns)
            || out.len() != x.len() / self.columns * self.row_bytes()
        {
            return Err(Error::internal("rows and their bytes do not fit each other"));
        }
        self.check_range(x)?;
        let loss = self.write(isa, x, out);
        if loss.error.is_finite() && loss.signal.is_finite() {
            return Ok(loss);
        }
        // What is not finite has no finite square; nor have large numbers, in `f32`.
        check_finite(x, self.columns)?;
        let mut back = vec![0.0; x.len()];
        decode(isa, self.ty, out, &mut back)?;
        Ok(self.loss(x, &back))
    }

    /// # Errors
    /// When numbers are finite, but too large for the type: rounding would cut them off.
    fn check_range(&self, x: &[f32]) -> Result<()> {
        let limit = greatest(self.ty);
        // Bits of magnitudes are ordered as these are; unlike floats, many are compared at a time.
        let largest = x.iter().fold(0, |most, x| most.max(x.abs().to_bits()));
        if largest <= limit.to_bits() {
            return Ok(());
        }
        let largest = x.iter().filter(|x| x.is_finite()).fold(0.0, |most, x| x.abs().max(most));
        if largest <= limit {
            return Ok(());
        }
        let what = format!("{largest:e} is beyond {limit:e}, the largest number of {}", self.ty);
        let error = Error::unsupported(what).code("FB-4723");
        Err(error.hint("choose a type with a wider range, such as BF16"))
    }

    fn write(&self, isa: Isa, x: &[f32], out: &mut [u8]) -> Loss {
        match self.target {
            Target::F32 => {
                let words = out.as_chunks_mut().0;
                words.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_le_bytes());
                self.loss(x, x)
            }
            Target::F16 => {
                let words = out.as_chunks_mut().0;
                words.iter_mut().zip(x).for_each(|(out, &x)| *out = f16::from_f32(x).to_le_bytes());
                self.rounded(x, |x| f16::from_f32(x).to_f32())
            }
            Target::Bf16 => {
                let words = out.as_chunks_mut().0;
                words
                    .iter_mut()
                    .zip(x)
                    .for_each(|(out, &x)| *out = bf16::from_f32(x).to_le_bytes());
                self.rounded(x, |x| bf16::from_f32(x).to_f32())
            }
            Target::Blocks(encoding) => {
                encode(isa, encoding, x, self.columns, self.importance.as_deref(), out)
            }
        }
    }

    /// The loss of rounding each element by itself.
    fn rounded(&self, x: &[f32], round: impl Fn(f32) -> f32) -> Loss {
        self.sum(x.iter().map(|&x| (x, round(x))))
    }

    /// The loss between rows and what came of them.
    fn loss(&self, x: &[f32], back: &[f32]) -> Loss {
        self.sum(x.iter().copied().zip(back.iter().copied()))
    }

    fn sum(&self, pairs: impl Iterator<Item = (f32, f32)>) -> Loss {
        let mut loss = Loss::default();
        for ((x, back), column) in pairs.zip((0..self.columns).cycle()) {
            let weight = self.importance.as_ref().map_or(1.0, |w| f64::from(w[column]));
            loss.error += weight * (f64::from(x) - f64::from(back)).powi(2);
            loss.signal += weight * f64::from(x).powi(2);
        }
        loss
    }
}

/// How a type is written; `None` where there is no encoder.
fn target(ty: BlockType) -> Option<Target> {
    Some(match ty {
        BlockType::F32 => Target::F32,
        BlockType::F16 => Target::F16,
        BlockType::BF16 => Target::Bf16,
        BlockType::Q4_0 => Target::Blocks(Encoding::Q4_0),
        BlockType::Q4_1 => Target::Blocks(Encoding::Q4_1),
        BlockType::Q5_0 => Target::Blocks(Encoding::Q5_0),
        BlockType::Q5_1 => Target::Blocks(Encoding::Q5_1),
        BlockType::Q8_0 => Target::Blocks(Encoding::Q8_0),
        BlockType::Q2K => Target::Blocks(Encoding::Q2K),
        BlockType::Q3K => Target::Blocks(Encoding::Q3K),
        BlockType::Q4K => Target::Blocks(Encoding::Q4K),
        BlockType::Q5K => Target::Blocks(Encoding::Q5K),
        BlockType::Q6K => Target::Blocks(Encoding::Q6K),
        BlockType::Iq4Nl => Target::Blocks(Encoding::Iq4Nl),
        BlockType::Iq4Xs => Target::Blocks(Encoding::Iq4Xs),
        BlockType::Iq3S => Target::Blocks(Encoding::Iq3S),
        BlockType::Tq1_0 => Target::Blocks(Encoding::Tq1_0),
        BlockType::Tq2_0 => Target::Blocks(Encoding::Tq2_0),
        BlockType::Mxfp4 => Target::Blocks(Encoding::Mxfp4),
        _ => return None,
    })
}

/// A magnitude up to which a type holds any number. Scales and minima are half floats; of those
/// that share a second scale, the one of the least range counts.
fn greatest(ty: BlockType) -> f32 {
    let factor = match ty {
        BlockType::F32 | BlockType::Mxfp4 => return f32::MAX,
        BlockType::BF16 => return bf16::MAX.to_f32(),
        BlockType::Q4_0 => 8.0,
        BlockType::Q5_0 => 16.0,
        BlockType::Q8_0 => 127.0,
        BlockType::Iq4Nl => 113.0,
        BlockType::Q2K => 15.0,
        BlockType::Q3K => 31.0 * 3.0,
        BlockType::Q4K | BlockType::Q5K => 63.0,
        BlockType::Q6K => 127.0 * 31.0,
        BlockType::Iq4Xs => 31.0 * 113.0,
        BlockType::Iq3S => 31.0 * 15.0,
        // Floats, minima that stand for themselves, codes of one.
        _ => 1.0,
    };
    factor * f16::MAX.to_f32()
}

/// Importance with mean 1, none of it next to nothing.
fn normalized(importance: &[f32], columns: usize) -> Result<Vec<f32>> {
    if importance.len() != columns {
        return Err(Error::bad_input(format!(
            "the importance has {} columns, the tensor {columns}",
            importance.len()
        ))
        .code("FB-3711")
        .hint("use an importance matrix that was made from this model"));
    }
    if let Some(bad) = importance.iter().position(|w| !w.is_finite() || *w < 0.0) {
        let what = format!("the importance of column {bad} is {}", importance[bad]);
        return Err(Error::bad_input(what).code("FB-3712"));
    }
    let mean = importance.iter().map(|&w| f64::from(w)).sum::<f64>() / columns as f64;
    if mean <= 0.0 {
        return Ok(vec![1.0; columns]);
    }
    Ok(importance.iter().map(|&w| ((f64::from(w) / mean) as f32).max(LEAST_IMPORTANCE)).collect())
}

/// # Errors
/// When a number is NaN or infinite, with its place.
fn check_finite(x: &[f32], columns: usize) -> Result<()> {
    let Some(bad) = x.iter().position(|x| !x.is_finite()) else { return Ok(()) };
    Err(Error::bad_input(format!("{} cannot be quantized", x[bad])).code("FB-3713").at(format!(
        "row {}, column {}",
        bad / columns,
        bad % columns
    )))
}

/// The numbers that the elements of a type stand for, exactly.
///
/// # Errors
/// When the bytes are not those of as many elements as `out` has.
pub fn decode(isa: Isa, ty: BlockType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let half = match ty {
        BlockType::F16 => Half::F16,
        BlockType::BF16 => Half::BF16,
        _ => return dequantize(ty, bytes, out),
    };
    if bytes.len() != 2 * out.len() {
        return Err(Error::internal("numbers and their bytes do not fit each other"));
    }
    decode_halves(isa, half, bytes, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_refused_with_its_place() {
        let types = BlockType::ALL.iter().filter(|ty| target(**ty).is_some());
        for (ty, bad) in types.flat_map(|&ty| [(ty, f32::NAN), (ty, f32::NEG_INFINITY)]) {
            let encoder = RowEncoder::new(ty, 256, None).unwrap();
            let mut x = vec![1.0; 512];
            let mut out = vec![0; 2 * encoder.row_bytes()];
            assert!(encoder.encode(Isa::best(), &x, &mut out).is_ok(), "{ty}");
            x[264] = bad;
            let error = encoder.encode(Isa::best(), &x, &mut out).unwrap_err();
            let found = (error.stable_code(), error.place());
            assert_eq!(found, ("FB-3713", "row 1, column 8".into()), "{ty} {bad}");
        }
    }

    #[test]
    fn large_numbers_are_held_or_refused() {
        for &ty in BlockType::ALL.iter().filter(|ty| target(**ty).is_some()) {
            let encoder = RowEncoder::new(ty, 256, None).unwrap();
            let mut out = vec![0; encoder.row_bytes()];
            for sign in [1.0, -1.0] {
                let mut x = vec![0.0; 256];
                x[8] = sign * greatest(ty);
                let loss = encoder.encode(Isa::best(), &x, &mut out).unwrap();
                // What shares a scale with the largest is lost; the largest is not.
                assert!(loss.relative() < 0.2, "{ty}: {loss:?}");
                let wider = 1.01 * x[8];
                if wider.is_finite() {
                    x[8] = wider;
                    let error = encoder.encode(Isa::best(), &x, &mut out).unwrap_err();
                    assert_eq!(error.stable_code(), "FB-4723", "{ty}");
                }
            }
        }
    }

    #[test]
    fn importance_must_fit() {
        let new = |w: &[f32]| RowEncoder::new(BlockType::Q8_0, 32, Some(w));
        assert_eq!(new(&[1.0; 31]).unwrap_err().stable_code(), "FB-3711");
        assert_eq!(new(&[-1.0; 32]).unwrap_err().stable_code(), "FB-3712");
        assert_eq!(new(&[f32::INFINITY; 32]).unwrap_err().stable_code(), "FB-3712");
        assert_eq!(new(&[0.0; 32]).unwrap().importance, Some(vec![1.0; 32]));
        assert_eq!(RowEncoder::new(BlockType::Q4K, 32, None).unwrap_err().stable_code(), "FB-3101");
        assert_eq!(
            RowEncoder::new(BlockType::Iq1S, 256, None).unwrap_err().stable_code(),
            "FB-4701"
        );
    }

    #[test]
    fn plain_types_keep_what_they_can() {
        for (ty, exact) in [(BlockType::F32, 0.1), (BlockType::F16, 0.125), (BlockType::BF16, 0.5)]
        {
            let encoder = RowEncoder::new(ty, 3, None).unwrap();
            let mut out = vec![0; encoder.row_bytes()];
            let loss = encoder.encode(Isa::best(), &[exact, -exact, 0.0], &mut out).unwrap();
            assert_eq!(loss.error, 0.0);
            let mut back = [9.0; 3];
            fewbit_core::codec::block::dequantize(ty, &out, &mut back).unwrap();
            assert_eq!(back, [exact, -exact, 0.0]);
        }
    }
}
