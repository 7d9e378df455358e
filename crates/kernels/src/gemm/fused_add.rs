//! The addition of codes to codes without its division.

use super::OwnCodes;
use super::output::round_within;
use crate::cpu::{Isa, Job, Level};

/// Two fused multiply-adds that give the codes of an addition with [`OwnCodes`]:
///
/// ```text
/// round_half_to_even(fma(q, ours, fma(r, theirs, offset))), clamped
/// ```
///
/// where `q` is the code of the sum, less its zero point, and `r` the other code. There are only so
/// many pairs of codes: [`FusedAdd::find`] has compared the results of all of them with the
/// definition, so nothing depends on which of both ways is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FusedAdd {
    pub(super) ours: f32,
    pub(super) theirs: f32,
    pub(super) offset: f32,
}

/// What [`FusedAdd::find`] compares: the parameters of an addition.
#[derive(Clone, Copy, Debug)]
pub struct Addition {
    /// How the codes of the sums are made and added.
    pub own: OwnCodes,
    /// Whether the other codes are -128 to 127 instead of 0 to 255.
    pub signed: bool,
    /// Zero point of the other codes.
    pub zero_point: i32,
    /// Scale of the other codes.
    pub multiplier: f32,
    /// Smallest and largest result, less the zero point of the output.
    pub limits: [i32; 2],
}

/// The other codes.
const CODES: usize = 256;

/// Units in the last place by which the factors are tried, the nearest first.
const STEPS: [i32; 3] = [0, 1, -1];

/// What is tried to be added to the offset: about half a unit in the last place of large codes.
const SHIFTS: [f64; 3] = [0.0, 3e-6, -3e-6];

impl FusedAdd {
    /// Where there is no addition.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NONE: FusedAdd = FusedAdd { ours: 0.0, theirs: 0.0, offset: 0.0 };

    /// Factors that give the codes of the definition for all pairs, if some near the exact ones do:
    /// of random scales, 99.7 % have such. Takes some 20 us. `None` also where the kernels of the
    /// instruction set follow the definition.
    pub fn find(isa: Isa, addition: &Addition) -> Option<FusedAdd> {
        match isa.level() {
            Level::Avx2 | Level::Avx512 => isa.run(Find(addition)),
            _ => None,
        }
    }

    /// The factors nearest to the exact ones, moved by so many units in the last place.
    fn near(addition: &Addition, [ours, theirs]: [i32; 2], shift: f64) -> FusedAdd {
        let step = f64::from(addition.own.step);
        let moved = |number: f32, by: i32| f32::from_bits(number.to_bits().wrapping_add_signed(by));
        let theirs = moved((f64::from(addition.multiplier) / step) as f32, theirs);
        FusedAdd {
            ours: moved((f64::from(addition.own.scale) / step) as f32, ours),
            theirs,
            offset: (shift - f64::from(addition.zero_point) * f64::from(theirs)) as f32,
        }
    }
}

struct Find<'a>(&'a Addition);

impl Job for Find<'_> {
    type Output = Option<FusedAdd>;

    #[inline(always)]
    fn run(self) -> Option<FusedAdd> {
        let Addition { own, signed, .. } = *self.0;
        let first = if signed { -128.0 } else { 0.0 };
        let mut codes = [0.0; CODES];
        for (i, code) in codes.iter_mut().enumerate() {
            *code = first + i as f32;
        }
        let mut wanted = vec![[0; CODES]; (own.hi - own.lo + 1).max(0) as usize];
        for (q, wanted) in (own.lo..).zip(&mut wanted) {
            self.defined(q as f32, &codes, wanted);
        }
        for shift in SHIFTS {
            for [ours, theirs] in STEPS.map(|ours| STEPS.map(|theirs| [ours, theirs])).concat() {
                let fused = FusedAdd::near(self.0, [ours, theirs], shift);
                let mut all = (own.lo..).zip(&wanted);
                if all.all(|(q, wanted)| self.agrees(&fused, q as f32, &codes, wanted)) {
                    return Some(fused);
                }
            }
        }
        None
    }
}

impl Find<'_> {
    /// The results by definition for the code `q` of the sums.
    #[inline(always)]
    fn defined(&self, q: f32, codes: &[f32; CODES], out: &mut [i32; CODES]) {
        let Addition { own, zero_point, multiplier, limits: [lo, hi], .. } = *self.0;
        let ours = q * own.scale;
        for (out, code) in out.iter_mut().zip(codes) {
            let sum = ours + (code - zero_point as f32) * multiplier;
            *out = round_within(sum / own.step, lo as f32, hi as f32);
        }
    }

    #[inline(always)]
    fn agrees(
        &self,
        fused: &FusedAdd,
        q: f32,
        codes: &[f32; CODES],
        wanted: &[i32; CODES],
    ) -> bool {
        let [lo, hi] = self.0.limits;
        let mut different = 0;
        for (wanted, code) in wanted.iter().zip(codes) {
            let value = q.mul_add(fused.ours, code.mul_add(fused.theirs, fused.offset));
            different |= wanted ^ round_within(value, lo as f32, hi as f32);
        }
        different == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addition(scale: f32, multiplier: f32, step: f32) -> Addition {
        let own = OwnCodes { lo: -100, hi: 155, scale, step, fused: None };
        Addition { own, signed: false, zero_point: 7, multiplier, limits: [-30, 225] }
    }

    #[test]
    fn nearly_all_scales_have_factors() {
        // Roots: with scales of few digits, sums lie exactly between two codes.
        let found = (0..60).filter(|i| {
            let scale = 0.011 + 0.0089 * (*i as f32).sqrt();
            let addition = addition(scale, 0.053 - 0.0009123 * *i as f32, 0.0471234);
            Isa::best().run(Find(&addition)).is_some()
        });
        assert!(found.count() >= 58);
    }

    #[test]
    fn exact_halves_and_every_instruction_set_agree() {
        for [scale, multiplier, step] in [[1.0, 0.5, 1.0], [0.031, 0.027, 0.043], [3.0, 1.0, 2.0]] {
            let addition = addition(scale, multiplier, step);
            let want = Isa::scalar().run(Find(&addition));
            assert!(want.is_some(), "{addition:?}");
            for isa in Isa::available() {
                assert_eq!(isa.run(Find(&addition)), want, "{isa}");
            }
        }
    }
}
