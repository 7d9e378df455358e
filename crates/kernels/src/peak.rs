//! What a processor multiplies at most: bare loops of the instructions that products are made of,
//! on registers. The measure for how much of a machine a kernel uses.

use std::time::{Duration, Instant};

use crate::cpu::{Ctx, Level};

/// Multiply-accumulates in a second, of all threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Of 8-bit numbers, summed in 32 bits.
    pub int8: f64,
    /// Of 32-bit floats.
    pub float: f64,
}

/// Turns of a loop: some ten microseconds.
const TURNS: usize = 2000;

/// How long each peak is looked for: far longer than threads need to meet.
const PATIENCE: Duration = Duration::from_millis(3);

/// A loop of `TURNS` turns, and the multiply-accumulates of a turn.
struct Loop {
    run: fn(),
    each: usize,
}

/// The most that the instruction set of `ctx` does on its threads, right now; `None` where there is
/// no loop for it.
pub fn peak(ctx: Ctx<'_>) -> Option<Peak> {
    let [int8, float] = loops(ctx.isa.level())?;
    Some(Peak { int8: rate(ctx, &int8), float: rate(ctx, &float) })
}

/// The best rate of a loop.
fn rate(ctx: Ctx<'_>, turns: &Loop) -> f64 {
    let (threads, began) = (ctx.pool.threads(), Instant::now());
    let mut best = 0.0f64;
    while began.elapsed() < PATIENCE {
        let start = Instant::now();
        ctx.pool.for_each_range(threads, 1, |_| (turns.run)());
        let macs = (threads * TURNS * turns.each) as f64;
        best = best.max(macs / start.elapsed().as_secs_f64());
    }
    best
}

/// The loops of a level: of 8-bit numbers, and of floats.
fn loops(level: Level) -> Option<[Loop; 2]> {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Some([
            // SAFETY: the CPU has the level.
            Loop { run: || unsafe { x86::bytes_avx2() }, each: x86::SUMS * 32 },
            // SAFETY: as above.
            Loop { run: || unsafe { x86::floats_avx2() }, each: x86::SUMS * 8 },
        ]),
        // A model of the instructions says nothing of them.
        #[cfg(all(target_arch = "x86_64", not(feature = "avx512-model")))]
        Level::Avx512 => Some([
            // SAFETY: as above.
            Loop { run: || unsafe { x86::bytes_avx512() }, each: x86::SUMS * 64 },
            // SAFETY: as above.
            Loop { run: || unsafe { x86::floats_avx512() }, each: x86::SUMS * 16 },
        ]),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::TURNS;

    /// Sums that do not wait for each other.
    pub(super) const SUMS: usize = 12;

    /// # Safety
    /// The CPU has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn bytes_avx2() {
        let (a, ones) = black_box((_mm256_set1_epi8(3), _mm256_set1_epi16(1)));
        let b = [_mm256_set1_epi8(1); SUMS];
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..TURNS {
            // From memory each time: products of the same operands would be taken out of the loop.
            for (sum, b) in sums.iter_mut().zip(black_box(&b)) {
                let pairs = _mm256_maddubs_epi16(a, *b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// The CPU has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn floats_avx2() {
        let (a, b) = black_box((_mm256_set1_ps(0.5), _mm256_set1_ps(0.5)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// The CPU has AVX-512 with VNNI.
    #[cfg(not(feature = "avx512-model"))]
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn bytes_avx512() {
        let (a, b) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(1)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// # Safety
    /// The CPU has AVX-512.
    #[cfg(not(feature = "avx512-model"))]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn floats_avx512() {
        let (a, b) = black_box((_mm512_set1_ps(0.5), _mm512_set1_ps(0.5)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Pool};

    #[test]
    fn there_is_a_peak_where_there_is_a_loop() {
        for isa in Isa::available() {
            let pool = Pool::new(2);
            let peak = peak(Ctx { isa, pool: &pool });
            let modelled = cfg!(feature = "avx512-model") && isa.level() == Level::Avx512;
            assert_eq!(
                peak.is_some(),
                cfg!(target_arch = "x86_64") && isa.level() != Level::Scalar && !modelled
            );
            if let Some(peak) = peak {
                let known = |rate: f64| rate.is_finite() && rate > 0.0;
                assert!(known(peak.int8) && known(peak.float), "{peak:?}");
            }
        }
    }
}
