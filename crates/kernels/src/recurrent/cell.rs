//! What a direction of a layer is made of.

use super::product::Product;
use crate::Isa;
use crate::elementwise::{Unary, unary_f32_in_place};
use crate::int8::Int8;
use crate::{Ctx, Pool};
use std::ops::Range;

/// Units of parts are multiples of this: the columns of a panel.
const UNIT: usize = 16;

/// Multiply-accumulates that are worth a part of their own, since threads meet behind it.
const LEAST: usize = 16_384;

/// A kind of layer, as the ONNX operator of the same name defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellKind {
    /// `h' = f(x + h R)`.
    Rnn,
    /// Gates in the order update, reset, hidden.
    Gru {
        /// Whether the reset is behind the product.
        linear_before_reset: bool,
    },
    /// Gates in the order input, output, forget, cell.
    Lstm {
        /// Whether the forget gate is one minus the input gate.
        coupled: bool,
    },
}

impl CellKind {
    /// Number of gates.
    pub fn gates(self) -> usize {
        match self {
            CellKind::Rnn => 1,
            CellKind::Gru { .. } => 3,
            CellKind::Lstm { .. } => 4,
        }
    }

    /// Number of functions.
    pub fn functions(self) -> usize {
        match self {
            CellKind::Rnn => 1,
            CellKind::Gru { .. } => 2,
            CellKind::Lstm { .. } => 3,
        }
    }

    /// The gates of each product of a step: the first one, and the one behind the last.
    pub(super) fn products(self) -> &'static [[usize; 2]] {
        match self {
            CellKind::Rnn => &[[0, 1]],
            CellKind::Gru { linear_before_reset: true } => &[[0, 3]],
            CellKind::Gru { linear_before_reset: false } => &[[0, 2], [2, 3]],
            CellKind::Lstm { .. } => &[[0, 4]],
        }
    }
}

/// A function of gates or states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Function {
    /// The function.
    pub of: Unary,
    /// Its inputs are clipped to this distance from 0.
    pub clip: f32,
}

impl Function {
    /// Replaces values by those of the function.
    pub(super) fn apply(self, isa: Isa, values: &mut [f32]) {
        let ctx = Ctx { isa, pool: &Pool::single() };
        if self.clip < f32::INFINITY {
            let bounds = Unary::Clip { low: -self.clip, high: self.clip };
            unary_f32_in_place(ctx, bounds, values);
        }
        unary_f32_in_place(ctx, self.of, values);
    }
}

/// Weights that states are multiplied with.
#[derive(Clone, Copy)]
pub enum Recurrence<'a> {
    /// `[gates * hidden, hidden]`.
    Floats(&'a [f32]),
    /// Codes `[hidden, gates * hidden]`, with a zero point and a scale for each column. States are
    /// quantized in each step, all sequences together.
    Codes {
        /// The codes.
        values: Int8<'a>,
        /// Zero points, of the type of the codes.
        zeros: &'a [i32],
        /// Scales.
        scales: &'a [f32],
    },
}

/// Some units, and their products.
pub(super) struct Part {
    pub(super) units: Range<usize>,
    pub(super) products: Vec<Product>,
}

/// A direction of a layer, its weights packed once.
pub struct Cell {
    pub(super) kind: CellKind,
    pub(super) hidden: usize,
    pub(super) functions: Vec<Function>,
    pub(super) peepholes: Vec<f32>,
    pub(super) parts: Vec<Part>,
}

impl Cell {
    /// Packs the weights for as many `threads` as shall share a step, if that is long enough. The bias
    /// has `gates * hidden` values or none; peepholes, of an LSTM, are those of the input, output and
    /// forget gate, or none.
    ///
    /// # Panics
    /// When a slice or the functions are not as many as that.
    pub fn new(
        isa: Isa,
        threads: usize,
        (kind, hidden): (CellKind, usize),
        weights: Recurrence<'_>,
        (bias, peepholes): (&[f32], &[f32]),
        functions: &[Function],
    ) -> Cell {
        let columns = kind.gates() * hidden;
        assert!(bias.is_empty() || bias.len() == columns, "a bias for {columns} columns");
        assert!(peepholes.is_empty() || peepholes.len() == 3 * hidden, "three peepholes a unit");
        assert_eq!(functions.len(), kind.functions(), "functions of {kind:?}");
        let blocks = hidden.div_ceil(UNIT);
        let worth = columns.saturating_mul(hidden) / LEAST;
        let count = threads.min(worth).min(blocks).max(1);
        let part = |index: usize| {
            let place = |index: usize| hidden.min(index * blocks / count * UNIT);
            let units = place(index)..place(index + 1);
            let product = |&[first, end]: &[usize; 2]| {
                let columns = (first..end)
                    .flat_map(|gate| units.clone().map(move |unit| gate * hidden + unit));
                Product::new(isa, hidden, &columns.collect::<Vec<_>>(), weights, bias)
            };
            Part { products: kind.products().iter().map(product).collect(), units: units.clone() }
        };
        Cell {
            kind,
            hidden,
            functions: functions.to_vec(),
            peepholes: peepholes.to_vec(),
            parts: (0..count).map(part).collect(),
        }
    }

    /// Number of gates times units: the columns of the products with the inputs.
    pub fn columns(&self) -> usize {
        self.kind.gates() * self.hidden
    }

    /// The peepholes of a gate for some units, if there are any.
    pub(super) fn peephole(&self, gate: usize, units: &Range<usize>) -> Option<&[f32]> {
        let first = gate * self.hidden;
        self.peepholes.get(first + units.start..first + units.end)
    }
}
