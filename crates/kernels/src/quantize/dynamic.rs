//! The range of codes that values themselves have.

use super::Affine;
use crate::{Isa, Job};

const LANES: usize = 16;

/// `u8` codes whose range holds all of `values` and 0, as the ONNX operator `DynamicQuantizeLinear`
/// defines them. NaN is passed over.
pub fn dynamic_range(isa: Isa, values: &[f32]) -> Affine {
    let (low, high) = isa.run(Ends(values));
    let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
    // Not a number only when the range is infinite; the cast then gives 0.
    let zero_point = (-low / scale).clamp(0.0, 255.0).round_ties_even() as i32;
    Affine { scale, zero_point }
}

/// The smallest and the largest of values and 0.
struct Ends<'a>(&'a [f32]);

impl Job for Ends<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run(self) -> (f32, f32) {
        let (mut low, mut high) = ([0f32; LANES], [0f32; LANES]);
        let (rows, rest) = self.0.as_chunks::<LANES>();
        for row in rows {
            for lane in 0..LANES {
                low[lane] = if row[lane] < low[lane] { row[lane] } else { low[lane] };
                high[lane] = if row[lane] > high[lane] { row[lane] } else { high[lane] };
            }
        }
        let (mut least, mut most) = (0f32, 0f32);
        for value in rest.iter().chain(&low) {
            least = if *value < least { *value } else { least };
        }
        for value in rest.iter().chain(&high) {
            most = if *value > most { *value } else { most };
        }
        (least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_holds_all_values_and_zero() {
        let values: Vec<f32> = (0..100).map(|i| (i * 37 % 101) as f32 / 10.0 - 2.5).collect();
        for isa in Isa::available() {
            for len in 0..values.len() {
                let values = &values[..len];
                let low = values.iter().fold(0f32, |a, &v| a.min(v));
                let high = values.iter().fold(0f32, |a, &v| a.max(v));
                let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
                let found = dynamic_range(isa, values);
                assert_eq!(found.scale, scale, "{isa} {len}");
                assert_eq!(found.zero_point, (-low / scale).round_ties_even() as i32);
            }
            let odd = [f32::NAN, -1.0, f32::INFINITY];
            assert_eq!(dynamic_range(isa, &odd).zero_point, 0);
            assert_eq!(dynamic_range(isa, &odd[..2]).zero_point, 255);
        }
    }
}
