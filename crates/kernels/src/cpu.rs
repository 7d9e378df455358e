//! Instruction sets: detection, forcing one, and running a body compiled for one.

use std::fmt;
use std::sync::OnceLock;

use crate::threads::Pool;

/// The environment variable that forces one instruction set: `scalar`, `avx2` or `avx512`;
/// on 64-bit Arm `scalar`, `neon`, `dotprod` or `i8mm`.
pub const ISA_VARIABLE: &str = "FEWBIT_ISA";

/// The instruction sets that have kernels of their own, from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust for the baseline of the target.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C (x86-64-v3).
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI (Ice Lake, Zen 4 and later).
    Avx512,
    /// 64-bit Arm; every processor has it.
    Neon,
    /// 64-bit Arm with `sdot` (Armv8.2 `dotprod`; Cortex-A55, A76, Apple M1 and later).
    Dotprod,
    /// 64-bit Arm with `smmla`, too (Armv8.6 `i8mm`; Cortex-A510, X2, Apple M2 and later).
    I8mm,
}

impl Level {
    /// Every level, from narrow to wide.
    pub const ALL: [Level; 6] =
        [Level::Scalar, Level::Avx2, Level::Avx512, Level::Neon, Level::Dotprod, Level::I8mm];

    /// The name used by [`ISA_VARIABLE`] and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Neon => "neon",
            Level::Dotprod => "dotprod",
            Level::I8mm => "i8mm",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn detected(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        match self {
            Level::Scalar => true,
            Level::Avx2 => avx2,
            Level::Avx512 if cfg!(feature = "avx512-model") => avx2,
            Level::Avx512 => {
                avx2 && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Level::Neon | Level::Dotprod | Level::I8mm => false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn detected(self) -> bool {
        use std::arch::is_aarch64_feature_detected;
        let dotprod = is_aarch64_feature_detected!("dotprod");
        match self {
            Level::Scalar | Level::Neon => true,
            Level::Dotprod => dotprod,
            Level::I8mm => dotprod && is_aarch64_feature_detected!("i8mm"),
            Level::Avx2 | Level::Avx512 => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn detected(self) -> bool {
        self == Level::Scalar
    }
}

/// Asks for the cache lines of a value that will be read soon, as far as it lies in one piece.
#[inline(always)]
pub fn ask_for<T>(values: &[T]) {
    let start = values.as_ptr().cast::<u8>();
    for at in (0..size_of_val(values)).step_by(64) {
        crate::gemm::kernel::prefetch(start.wrapping_add(at));
    }
}

/// An instruction set that this CPU has.
///
/// The only ways to make one check the CPU, so code that holds an `Isa` may run its kernels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isa(Level);

impl Isa {
    /// Plain Rust, there on every CPU.
    pub fn scalar() -> Isa {
        Isa(Level::Scalar)
    }

    /// The given level, or `None` where this CPU lacks it.
    pub fn new(level: Level) -> Option<Isa> {
        level.detected().then_some(Isa(level))
    }

    /// Every level that this CPU has, from narrow to wide. Tests loop over it.
    pub fn available() -> Vec<Isa> {
        Level::ALL.into_iter().filter_map(Isa::new).collect()
    }

    /// The widest level that this CPU has; detected once.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let widest = Level::ALL.into_iter().rev().find_map(Isa::new);
            widest.unwrap_or(Isa::scalar())
        })
    }

    /// The level called `name`.
    ///
    /// # Errors
    /// When there is no such name, or this CPU lacks the instructions: never a silent fallback.
    pub fn named(name: &str) -> Result<Isa, IsaError> {
        let level = Level::ALL.into_iter().find(|l| l.name() == name);
        let level = level.ok_or_else(|| IsaError::Unknown(name.to_owned()))?;
        Isa::new(level).ok_or(IsaError::Unavailable(level))
    }

    /// The level that [`ISA_VARIABLE`] forces, or [`Isa::best`] when it is unset or empty.
    ///
    /// # Errors
    /// As [`Isa::named`].
    pub fn from_env() -> Result<Isa, IsaError> {
        match std::env::var_os(ISA_VARIABLE) {
            None => Ok(Isa::best()),
            Some(name) if name.is_empty() => Ok(Isa::best()),
            Some(name) => Isa::named(&name.to_string_lossy()),
        }
    }

    /// Which level this is.
    pub fn level(self) -> Level {
        self.0
    }

    /// Whether products of bytes take unsigned ones on the left, where activations are, so that
    /// signed activations cost an instruction more.
    pub fn wants_unsigned(self) -> bool {
        matches!(self.0, Level::Avx2 | Level::Avx512)
    }

    /// Runs `job` compiled for this instruction set.
    ///
    /// The body of [`Job::run`] is inlined into a function that has the instructions switched on,
    /// so one generic body yields scalar, AVX2 and AVX-512 code. `f32::mul_add` becomes one
    /// instruction there.
    #[inline]
    pub fn run<J: Job>(self, job: J) -> J::Output {
        match self.0 {
            Level::Scalar => job.run(),
            // SAFETY: an `Isa` of this level exists only where the CPU has these features.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { run_avx2(job) },
            // SAFETY: an `Isa` of this level exists only where the CPU has these features.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { run_avx512(job) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::Dotprod => unsafe { run_dotprod(job) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Level::I8mm => unsafe { run_i8mm(job) },
            // NEON is part of the baseline of its architecture; no CPU has the others.
            _ => job.run(),
        }
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// A body to be compiled once per instruction set by [`Isa::run`].
///
/// Mark [`Job::run`], and every function that it calls and that should use the instructions,
/// `#[inline(always)]`; otherwise that part is compiled for the baseline only.
pub trait Job {
    /// What the body returns.
    type Output;
    /// The body.
    fn run(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn run_avx2<J: Job>(job: J) -> J::Output {
    job.run()
}

#[cfg(target_arch = "x86_64")]
#[cfg_attr(feature = "avx512-model", target_feature(enable = "avx2,fma,f16c"))]
#[cfg_attr(
    not(feature = "avx512-model"),
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
)]
pub(crate) fn run_avx512<J: Job>(job: J) -> J::Output {
    job.run()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn run_dotprod<J: Job>(job: J) -> J::Output {
    job.run()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(crate) fn run_i8mm<J: Job>(job: J) -> J::Output {
    job.run()
}

/// Where a kernel runs: the instruction set, and the threads.
#[derive(Clone, Copy, Debug)]
pub struct Ctx<'a> {
    /// The instruction set to use.
    pub isa: Isa,
    /// The threads to run on.
    pub pool: &'a Pool,
}

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsaError {
    /// No instruction set is called so.
    Unknown(String),
    /// This CPU lacks the instructions.
    Unavailable(Level),
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IsaError::Unknown(name) => write!(f, "unknown instruction set '{name}'")?,
            IsaError::Unavailable(level) => {
                write!(f, "this CPU has no instruction set '{}'", level.name())?;
            }
        }
        let names: Vec<&str> = Isa::available().iter().map(|i| i.0.name()).collect();
        write!(f, "; set {ISA_VARIABLE} to one of: {}, or unset it", names.join(", "))
    }
}

impl std::error::Error for IsaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_is_the_widest_available() {
        assert_eq!(Isa::available().last(), Some(&Isa::best()));
        assert_eq!(Isa::available()[0], Isa::scalar());
    }

    #[test]
    fn names_round_trip() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(&isa.to_string()), Ok(isa));
        }
    }

    #[test]
    fn unknown_name_is_refused_with_the_choices() {
        let message = Isa::named("altivec").unwrap_err().to_string();
        assert!(message.contains("'altivec'") && message.contains("scalar"), "{message}");
    }

    /// Who forces a level relies on it: `.ci/arm` finds out here what its emulator lacks.
    #[test]
    fn a_forced_level_is_there() {
        let forced = Isa::from_env().map_err(|error| error.to_string());
        assert_eq!(forced.map(|isa| Isa::available().contains(&isa)), Ok(true));
    }

    #[test]
    fn missing_level_is_refused() {
        for level in Level::ALL {
            let named = Isa::named(level.name());
            match Isa::new(level) {
                Some(isa) => assert_eq!(named, Ok(isa)),
                None => assert_eq!(named, Err(IsaError::Unavailable(level))),
            }
        }
    }

    struct Fma(f32, f32, f32);
    impl Job for Fma {
        type Output = f32;
        #[inline(always)]
        fn run(self) -> f32 {
            self.0.mul_add(self.1, self.2)
        }
    }

    #[test]
    fn run_is_the_same_on_every_isa() {
        let (a, b, c) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON, -1.0);
        for isa in Isa::available() {
            assert_eq!(isa.run(Fma(a, b, c)), a.mul_add(b, c), "{isa}");
        }
    }
}
