//! Eight `f32` side by side, as plain Rust and as AVX2 registers.
//!
//! The searches are written once over [`Lanes`]; a lane holds one block, so nothing is ever added
//! across lanes, and both instances give the same bits.

use std::ops::{Add, Div, Mul, Sub};

/// Blocks searched at once.
pub(super) const LANES: usize = 8;

/// One number of each of eight blocks.
pub(super) type Row = [f32; LANES];

/// 1.5 * 2^23: adding it leaves no room for a fraction, so the sum is rounded, half to even.
const ROUNDER: f32 = 12_582_912.0;

/// Divisors below are taken for 0: no scale that a half float can hold comes from them.
pub(super) const TINY: f32 = 1e-30;

/// Eight numbers; every operation works lane by lane and rounds once.
///
/// Code over lanes calls no closures: the functions that take them may stay calls, compiled
/// without the instructions.
pub(super) trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    fn splat(x: f32) -> Self;
    fn load(row: &Row) -> Self;
    fn store(self, row: &mut Row);
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The smaller one; `other` where they are equal or one is NaN.
    fn min(self, other: Self) -> Self;
    /// The larger one; `other` where they are equal or one is NaN.
    fn max(self, other: Self) -> Self;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    /// A mask for [`pick`](Lanes::pick): where `self < other`.
    fn less(self, other: Self) -> Self;
    /// `yes` where `mask` is set, else `no`.
    fn pick(mask: Self, yes: Self, no: Self) -> Self;
    /// Integers from -128 to 255, each as its lowest byte.
    fn bytes(self) -> [u8; LANES];
    /// Eight rows of eight, mirrored.
    fn transpose(rows: [Self; LANES]) -> [Self; LANES];

    /// The nearest integer, halves to even; right below 2^22.
    #[inline(always)]
    fn round(self) -> Self {
        self + Self::splat(ROUNDER) - Self::splat(ROUNDER)
    }

    /// `self` within `low..=high`; NaN becomes `low`.
    #[inline(always)]
    fn clamp(self, low: Self, high: Self) -> Self {
        self.max(low).min(high)
    }

    /// `self / other`, and 0 where `other` is next to 0 or NaN.
    #[inline(always)]
    fn ratio(self, other: Self) -> Self {
        Self::pick(Self::splat(TINY).less(other.abs()), self / other, Self::zero())
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    #[inline(always)]
    fn row(self) -> Row {
        let mut row = [0.0; LANES];
        self.store(&mut row);
        row
    }
}

/// Plain Rust: the definition. Its operations stay calls where it only serves to check the wide
/// ones, as they would bloat every search.
#[derive(Clone, Copy)]
pub(super) struct Plain(Row);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Plain, f: impl Fn(f32, f32) -> f32) -> Plain {
        Plain(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Add for Plain {
    type Output = Plain;
    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn add(self, other: Plain) -> Plain {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Plain {
    type Output = Plain;
    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn sub(self, other: Plain) -> Plain {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul for Plain {
    type Output = Plain;
    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn mul(self, other: Plain) -> Plain {
        self.zip(other, |a, b| a * b)
    }
}

impl Div for Plain {
    type Output = Plain;
    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn div(self, other: Plain) -> Plain {
        self.zip(other, |a, b| a / b)
    }
}

impl Lanes for Plain {
    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn splat(x: f32) -> Plain {
        Plain([x; LANES])
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn load(row: &Row) -> Plain {
        Plain(*row)
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn store(self, row: &mut Row) {
        *row = self.0;
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn fma(self, b: Plain, c: Plain) -> Plain {
        Plain(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn min(self, other: Plain) -> Plain {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn max(self, other: Plain) -> Plain {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn abs(self) -> Plain {
        Plain(self.0.map(f32::abs))
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn sqrt(self) -> Plain {
        Plain(self.0.map(f32::sqrt))
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn less(self, other: Plain) -> Plain {
        self.zip(other, |a, b| if a < b { f32::from_bits(u32::MAX) } else { 0.0 })
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn pick(mask: Plain, yes: Plain, no: Plain) -> Plain {
        let pick = |i: usize| if mask.0[i].is_sign_negative() { yes.0[i] } else { no.0[i] };
        Plain(std::array::from_fn(pick))
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn bytes(self) -> [u8; LANES] {
        self.0.map(|x| x as i32 as u8)
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    fn transpose(rows: [Plain; LANES]) -> [Plain; LANES] {
        std::array::from_fn(|j| Plain(std::array::from_fn(|i| rows[i].0[j])))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use wide::Wide;

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{LANES, Lanes, Row};
    use std::arch::x86_64::*;
    use std::ops::{Add, Div, Mul, Sub};

    /// One AVX2 register. Only code run by an [`Isa`](crate::Isa) that has AVX2 may use it: the
    /// dispatch of this folder sees to that.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Wide(__m256);

    impl Add for Wide {
        type Output = Wide;
        #[inline(always)]
        fn add(self, other: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_add_ps(self.0, other.0) })
        }
    }

    impl Sub for Wide {
        type Output = Wide;
        #[inline(always)]
        fn sub(self, other: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
    }

    impl Mul for Wide {
        type Output = Wide;
        #[inline(always)]
        fn mul(self, other: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_mul_ps(self.0, other.0) })
        }
    }

    impl Div for Wide {
        type Output = Wide;
        #[inline(always)]
        fn div(self, other: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_div_ps(self.0, other.0) })
        }
    }

    impl Lanes for Wide {
        #[inline(always)]
        fn splat(x: f32) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_set1_ps(x) })
        }

        #[inline(always)]
        fn load(row: &Row) -> Wide {
            // SAFETY: a row has eight elements; the CPU has AVX2.
            Wide(unsafe { _mm256_loadu_ps(row.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, row: &mut Row) {
            // SAFETY: a row has eight elements; the CPU has AVX2.
            unsafe { _mm256_storeu_ps(row.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn fma(self, b: Wide, c: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2 and FMA.
            Wide(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
        }

        #[inline(always)]
        fn min(self, other: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_min_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn max(self, other: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        fn abs(self) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
        }

        #[inline(always)]
        fn sqrt(self) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_sqrt_ps(self.0) })
        }

        #[inline(always)]
        fn less(self, other: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) })
        }

        #[inline(always)]
        fn pick(mask: Wide, yes: Wide, no: Wide) -> Wide {
            // SAFETY: a `Wide` is used only where the CPU has AVX2.
            Wide(unsafe { _mm256_blendv_ps(no.0, yes.0, mask.0) })
        }

        #[inline(always)]
        fn bytes(self) -> [u8; LANES] {
            let mut bytes = [0; LANES];
            // SAFETY: the CPU has AVX2, and eight bytes are stored.
            unsafe {
                let ints = _mm256_cvtps_epi32(self.0);
                let (low, high) =
                    (_mm256_castsi256_si128(ints), _mm256_extracti128_si256::<1>(ints));
                let words = _mm_and_si128(_mm_packs_epi32(low, high), _mm_set1_epi16(0xff));
                _mm_storel_epi64(bytes.as_mut_ptr().cast(), _mm_packus_epi16(words, words));
            }
            bytes
        }

        #[inline(always)]
        fn transpose(r: [Wide; LANES]) -> [Wide; LANES] {
            let (top, bottom) = (quarter(r[0], r[1], r[2], r[3]), quarter(r[4], r[5], r[6], r[7]));
            let mut mirrored = r;
            for i in 0..4 {
                // SAFETY: a `Wide` is used only where the CPU has AVX2.
                unsafe {
                    mirrored[i].0 = _mm256_permute2f128_ps::<0x20>(top[i].0, bottom[i].0);
                    mirrored[i + 4].0 = _mm256_permute2f128_ps::<0x31>(top[i].0, bottom[i].0);
                }
            }
            mirrored
        }
    }

    /// Four rows, each half of them mirrored.
    #[inline(always)]
    fn quarter(a: Wide, b: Wide, c: Wide, d: Wide) -> [Wide; 4] {
        // SAFETY: a `Wide` is used only where the CPU has AVX2.
        unsafe {
            let (low, high) = (_mm256_unpacklo_ps(a.0, b.0), _mm256_unpackhi_ps(a.0, b.0));
            let (next, last) = (_mm256_unpacklo_ps(c.0, d.0), _mm256_unpackhi_ps(c.0, d.0));
            [
                Wide(_mm256_shuffle_ps::<0x44>(low, next)),
                Wide(_mm256_shuffle_ps::<0xee>(low, next)),
                Wide(_mm256_shuffle_ps::<0x44>(high, last)),
                Wide(_mm256_shuffle_ps::<0xee>(high, last)),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Job;
    #[cfg(target_arch = "x86_64")]
    use crate::cpu::{Isa, Level};

    /// Everything a lane can do, on numbers of all kinds.
    struct Tour<V>(std::marker::PhantomData<V>);

    impl<V: Lanes> Job for Tour<V> {
        type Output = Vec<Row>;
        #[inline(always)]
        fn run(self) -> Vec<Row> {
            let a = V::load(&[1.5, -2.5, 0.5, f32::NAN, 0.0, -0.0, 1e-40, 3e38]);
            let b = V::load(&[1.5, 7.25, -0.5, 1.0, f32::NAN, 0.0, 2.0, 3e38]);
            let c = V::load(&[-2.25, 1e-3, 0.25, 1.0, 1.0, 1.0, -2e-40, -3e38]);
            let mut rows = vec![a + b, a - b, a * b, a / b, a.fma(b, c), a.min(b), a.max(b)];
            rows.extend([a.abs(), a.abs().sqrt(), a.round(), a.clamp(c, b), a.ratio(b)]);
            rows.push(V::pick(a.less(b), a, c));
            rows.extend(V::transpose([a, b, c, a + b, V::splat(3.0), b, c, a]));
            rows.into_iter().map(V::row).collect()
        }
    }

    #[test]
    fn both_instances_agree() {
        let bits = |rows: Vec<Row>| -> Vec<u32> {
            let canonical = |x: f32| if x.is_nan() { f32::NAN } else { x }.to_bits();
            rows.into_iter().flatten().map(canonical).collect()
        };
        let plain = bits(Tour::<Plain>(std::marker::PhantomData).run());
        #[cfg(target_arch = "x86_64")]
        for level in [Level::Avx2, Level::Avx512] {
            if let Some(isa) = Isa::new(level) {
                let wide = isa.run(Tour::<Wide>(std::marker::PhantomData));
                assert_eq!(bits(wide), plain, "{isa}");
            }
        }
        assert!(!plain.is_empty());
    }

    struct Bytes<V>(std::marker::PhantomData<V>);

    impl<V: Lanes> Job for Bytes<V> {
        type Output = [u8; LANES];
        #[inline(always)]
        fn run(self) -> [u8; LANES] {
            V::load(&[-128.0, -127.0, -1.0, 0.0, 1.0, 127.0, 128.0, 255.0]).bytes()
        }
    }

    #[test]
    fn bytes_wrap() {
        let expected = [128, 129, 255, 0, 1, 127, 128, 255];
        assert_eq!(Bytes::<Plain>(std::marker::PhantomData).run(), expected);
        #[cfg(target_arch = "x86_64")]
        if let Some(isa) = Isa::new(Level::Avx2) {
            assert_eq!(isa.run(Bytes::<Wide>(std::marker::PhantomData)), expected);
        }
    }

    #[test]
    fn halves_round_to_even() {
        let x = Plain::load(&[0.5, 1.5, 2.5, -0.5, -1.5, 127.5, -127.5, 0.49]);
        assert_eq!(x.round().row(), [0.0, 2.0, 2.0, 0.0, -2.0, 128.0, -128.0, 0.0]);
    }
}
