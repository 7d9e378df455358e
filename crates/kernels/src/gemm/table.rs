//! The table of matrix microkernels, from which the tests are enumerated.

#[cfg(target_arch = "aarch64")]
use super::arm_neon::{DotI8, MatrixI8, NeonF32, NeonI16};
use super::kernel::Microkernel;
use super::scalar::{ScalarF32, ScalarI16};
#[cfg(target_arch = "x86_64")]
use super::x86_avx2::{Avx2F32, Avx2I16};
#[cfg(target_arch = "x86_64")]
use super::x86_avx2_u8::Avx2U8;
#[cfg(target_arch = "x86_64")]
use super::x86_avx512::{Avx512I16, Avx512U8};
#[cfg(target_arch = "x86_64")]
use super::x86_avx512_f32::Avx512F32;
use crate::cpu::Level;

/// A matrix microkernel.
///
/// Contract: integer sums are exact; f32 sums are bit for bit those of the scalar twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `gemm_A_B_ACC__ISA_MRxNR`: element types of both operands and of the sums, instructions,
    /// rows and columns of a tile.
    pub name: &'static str,
    /// The instructions that it needs.
    pub level: Level,
    /// Rows of a tile.
    pub rows: usize,
    /// Elements of k per step.
    pub group: usize,
}

impl Kernel {
    fn of<K: Microkernel>() -> Kernel {
        Kernel { name: K::NAME, level: K::LEVEL, rows: K::MR, group: K::GROUP }
    }
}

/// Calls `$visit::<K>($args)` for every microkernel of this architecture.
macro_rules! each_kernel {
    ($visit:ident $(, $arg:expr)*) => {
        $visit::<ScalarF32>($($arg),*);
        $visit::<ScalarI16>($($arg),*);
        #[cfg(target_arch = "x86_64")]
        {
            $visit::<Avx2F32>($($arg),*);
            $visit::<Avx2I16>($($arg),*);
            $visit::<Avx2U8>($($arg),*);
            $visit::<Avx512F32>($($arg),*);
            $visit::<Avx512U8>($($arg),*);
            $visit::<Avx512I16>($($arg),*);
        }
        #[cfg(target_arch = "aarch64")]
        {
            $visit::<NeonF32>($($arg),*);
            $visit::<NeonI16>($($arg),*);
            $visit::<DotI8>($($arg),*);
            $visit::<MatrixI8>($($arg),*);
        }
    };
}

/// Every microkernel of this architecture, also those that this CPU cannot run.
pub fn kernels() -> Vec<Kernel> {
    fn push<K: Microkernel>(list: &mut Vec<Kernel>) {
        list.push(Kernel::of::<K>());
    }
    let mut list = Vec::new();
    each_kernel!(push, &mut list);
    list
}

#[cfg(test)]
mod tests {
    use std::any::type_name;

    use bytemuck::Zeroable;

    use super::*;
    use crate::cpu::Isa;
    use crate::gemm::kernel::{MAX_MR, NR, Tile};

    #[test]
    fn names_say_what_they_are() {
        for kernel in kernels() {
            let (types, rest) = kernel.name.split_once("__").unwrap();
            assert_eq!(types.split('_').count(), 4, "{kernel:?}");
            assert!(rest.starts_with(kernel.level.name()), "{kernel:?}");
            assert!(rest.ends_with(&format!("_{}x{NR}", kernel.rows)), "{kernel:?}");
        }
    }

    /// An operand element made from a small integer, and the product by the definition.
    trait Operand: Copy {
        fn make(value: i32) -> Self;
        fn wide(self) -> f64;
    }

    macro_rules! operand {
        ($($t:ty => $scale:expr, $limit:expr);*) => {$(
            impl Operand for $t {
                fn make(value: i32) -> $t {
                    (value % $limit) as $t * $scale
                }
                fn wide(self) -> f64 {
                    f64::from(self)
                }
            }
        )*};
    }
    operand!(f32 => 0.37, 91; i16 => 1, 256; i8 => 1, 128);

    impl Operand for u8 {
        fn make(value: i32) -> u8 {
            value as u8
        }
        fn wide(self) -> f64 {
            f64::from(self)
        }
    }

    fn values<T: Operand>(len: usize, seed: u32) -> Vec<T> {
        let mut state = seed;
        let step = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            T::make(state.cast_signed() >> 16)
        };
        std::iter::repeat_with(step).take(len).collect()
    }

    /// The accumulator of one output by the definition: one running sum.
    trait Twin<A, B>: Sized {
        fn sum(terms: impl Iterator<Item = (A, B)>) -> Self;
    }

    impl Twin<f32, f32> for f32 {
        fn sum(terms: impl Iterator<Item = (f32, f32)>) -> f32 {
            terms.fold(0.0, |acc, (a, b)| a.mul_add(b, acc))
        }
    }

    impl<A: Operand, B: Operand> Twin<A, B> for i32 {
        fn sum(terms: impl Iterator<Item = (A, B)>) -> i32 {
            terms.map(|(a, b)| a.wide() as i32 * b.wide() as i32).sum()
        }
    }

    fn check<K: Microkernel>(checked: &mut usize)
    where
        K::A: Operand,
        K::B: Operand,
        K::Acc: Twin<K::A, K::B> + PartialEq + std::fmt::Debug,
    {
        if Isa::new(K::LEVEL).is_none() {
            return;
        }
        *checked += 1;
        for rows in 1..=K::MR {
            for groups in [0, 1, 2, 3, 7, 16, 33] {
                let k = groups * K::GROUP;
                let lda = k + 3;
                let a: Vec<K::A> = values(rows * lda, rows as u32);
                let b: Vec<K::B> = values(k * NR, 99);
                let panels = K::pack(k, NR, |p, col| b[p * NR + col]);
                let panel = panels.panel(0).as_ptr();
                let mut tile: Tile<K::Acc> = [[K::Acc::zeroed(); NR]; MAX_MR];
                // SAFETY: the CPU has the level; the rows are as long as said, the panel packed.
                unsafe { K::tile(rows, groups, a.as_ptr(), lda, panel, &mut tile) };
                for (row, got) in tile.iter().enumerate().take(rows) {
                    for (col, got) in got.iter().enumerate() {
                        let right = |p: usize| b[p * NR + col];
                        let want = K::Acc::sum((0..k).map(|p| (a[row * lda + p], right(p))));
                        let name = type_name::<K>();
                        assert_eq!(*got, want, "{name} {rows} rows, k {k}, at {row}, {col}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_kernel_equals_its_twin() {
        let mut checked = 0;
        each_kernel!(check, &mut checked);
        let expected = kernels().iter().filter(|k| Isa::new(k.level).is_some()).count();
        assert_eq!(checked, expected);
    }
}
