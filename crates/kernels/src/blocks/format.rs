//! The formats of weights that have kernels, by name.

use super::kquant::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K, Tq1_0, Tq2_0};
use super::plain::{Iq4Nl, Mxfp4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::unit::SPAN;
use super::weights::Weights;

/// Declares the enum, and the way from a value to the type that implements it.
macro_rules! formats {
    ($($variant:ident $name:literal;)*) => {
        /// A block format that activations of 8 bits are multiplied with. The names are ggml's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is called as in ggml")]
        pub enum Format { $($variant,)* }

        impl Format {
            /// Every format, in the order of declaration.
            pub const ALL: &'static [Format] = &[$(Format::$variant,)*];

            /// The name in ggml, such as `Q4_K`.
            pub fn name(self) -> &'static str {
                match self { $(Format::$variant => $name,)* }
            }

            /// Runs `visit` for the type that implements this format.
            pub(super) fn visit<V: Visit>(self, visit: V) -> V::Output {
                match self { $(Format::$variant => visit.with::<$variant>(),)* }
            }
        }
    };
}

formats! {
    Q4_0 "Q4_0";
    Q4_1 "Q4_1";
    Q5_0 "Q5_0";
    Q5_1 "Q5_1";
    Q8_0 "Q8_0";
    Q2K "Q2_K";
    Q3K "Q3_K";
    Q4K "Q4_K";
    Q5K "Q5_K";
    Q6K "Q6_K";
    Iq4Nl "IQ4_NL";
    Iq4Xs "IQ4_XS";
    Mxfp4 "MXFP4";
    Tq1_0 "TQ1_0";
    Tq2_0 "TQ2_0";
}

/// Something to be done with the type behind a [`Format`].
pub(super) trait Visit {
    type Output;
    fn with<W: Weights>(self) -> Self::Output;
}

struct Sizes;

impl Visit for Sizes {
    type Output = (usize, usize);

    fn with<W: Weights>(self) -> (usize, usize) {
        (W::UNITS * SPAN, W::BLOCK)
    }
}

impl Format {
    /// The format called `name`, if it has kernels.
    pub fn named(name: &str) -> Option<Format> {
        Format::ALL.iter().copied().find(|format| format.name() == name)
    }

    /// Elements of a block.
    pub fn elements(self) -> usize {
        self.visit(Sizes).0
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.visit(Sizes).1
    }
}
