//! From sums to states: the functions of a row of some units, one sequence.

use super::cell::{Cell, CellKind};
use crate::{Isa, Job};
use std::ops::Range;

/// Some units of one sequence in one step.
pub(super) struct Row<'a> {
    pub(super) cell: &'a Cell,
    pub(super) units: Range<usize>,
    /// What the inputs contribute: all gates of all units.
    pub(super) x: &'a [f32],
    /// The states before, those of these units.
    pub(super) before: &'a [f32],
    /// The states after.
    pub(super) after: &'a mut [f32],
}

impl Row<'_> {
    /// The functions of a step of an RNN.
    pub(super) fn rnn(self, isa: Isa, sums: &[f32]) {
        self.after.copy_from_slice(sums);
        self.cell.add_inputs(isa, self.after, (0, &self.units), self.x);
        self.cell.functions[0].apply(isa, self.after);
    }

    /// The functions of a step of an LSTM; `c` are the states of the cells.
    pub(super) fn lstm(self, isa: Isa, sums: &mut [f32], c: &mut [f32]) {
        let Row { cell, units, x, after, .. } = self;
        let (n, [f, g, h]) = (units.len(), [0, 1, 2].map(|index| cell.functions[index]));
        cell.add_inputs(isa, sums, (0, &units), x);
        let (gates, candidate) = sums.split_at_mut(3 * n);
        let peeks = !cell.peepholes.is_empty();
        // The output gate sees the new state through its peephole.
        if !peeks {
            f.apply(isa, gates);
        }
        let (input, gates) = gates.split_at_mut(n);
        let (output, forget) = gates.split_at_mut(n);
        if peeks {
            for (gate, values) in [(0, &mut *input), (2, &mut *forget)] {
                let weights = cell.peephole(gate, &units).unwrap_or_default();
                isa.run(AddProducts { values, a: weights, b: c });
                f.apply(isa, values);
            }
        }
        g.apply(isa, candidate);
        match cell.kind {
            CellKind::Lstm { coupled: true } => isa.run(Coupled { input, candidate, c }),
            _ => isa.run(Renew { input, forget, candidate, c }),
        }
        if let Some(weights) = cell.peephole(1, &units) {
            isa.run(AddProducts { values: output, a: weights, b: c });
            f.apply(isa, output);
        }
        after.copy_from_slice(c);
        h.apply(isa, after);
        isa.run(Multiply { values: after, by: output });
    }

    /// The update and the reset gate of a GRU.
    pub(super) fn gru_gates(&self, isa: Isa, gates: &mut [f32]) {
        self.cell.add_inputs(isa, gates, (0, &self.units), self.x);
        self.cell.functions[0].apply(isa, gates);
    }

    /// The new states of a GRU, from its gates and the product for the hidden one; `reset` is what that
    /// is multiplied with.
    pub(super) fn gru(self, isa: Isa, update: &[f32], reset: Option<&[f32]>, hidden: &mut [f32]) {
        if let Some(by) = reset {
            isa.run(Multiply { values: hidden, by });
        }
        self.cell.add_inputs(isa, hidden, (2, &self.units), self.x);
        self.cell.functions[1].apply(isa, hidden);
        isa.run(Blend { update, candidate: hidden, before: self.before, after: self.after });
    }

    /// What the second product of a GRU multiplies: the states where the reset gate lets them through.
    pub(super) fn gated(self, isa: Isa, reset: &[f32]) {
        self.after.copy_from_slice(self.before);
        isa.run(Multiply { values: self.after, by: reset });
    }
}

impl Cell {
    /// Adds the contribution of the inputs to gates from `first` on.
    fn add_inputs(
        &self,
        isa: Isa,
        sums: &mut [f32],
        (first, units): (usize, &Range<usize>),
        x: &[f32],
    ) {
        for (gate, values) in sums.chunks_exact_mut(units.len().max(1)).enumerate() {
            let from = &x[(first + gate) * self.hidden..][units.clone()];
            isa.run(Add { values, from });
        }
    }
}

struct Add<'a> {
    values: &'a mut [f32],
    from: &'a [f32],
}

impl Job for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (value, from) in self.values.iter_mut().zip(self.from) {
            *value += from;
        }
    }
}

struct Multiply<'a> {
    values: &'a mut [f32],
    by: &'a [f32],
}

impl Job for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (value, by) in self.values.iter_mut().zip(self.by) {
            *value *= by;
        }
    }
}

/// `values + a b`.
struct AddProducts<'a> {
    values: &'a mut [f32],
    a: &'a [f32],
    b: &'a [f32],
}

impl Job for AddProducts<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((value, a), b) in self.values.iter_mut().zip(self.a).zip(self.b) {
            *value += a * b;
        }
    }
}

/// `c = forget c + input candidate`.
struct Renew<'a> {
    input: &'a [f32],
    forget: &'a [f32],
    candidate: &'a [f32],
    c: &'a mut [f32],
}

impl Job for Renew<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let gates = self.input.iter().zip(self.forget).zip(self.candidate);
        for (c, ((input, forget), candidate)) in self.c.iter_mut().zip(gates) {
            *c = forget * *c + input * candidate;
        }
    }
}

/// As [`Renew`], where what is not let in is not forgotten.
struct Coupled<'a> {
    input: &'a [f32],
    candidate: &'a [f32],
    c: &'a mut [f32],
}

impl Job for Coupled<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((c, input), candidate) in self.c.iter_mut().zip(self.input).zip(self.candidate) {
            *c = (1.0 - input) * *c + input * candidate;
        }
    }
}

/// `after = (1 - update) candidate + update before`.
struct Blend<'a> {
    update: &'a [f32],
    candidate: &'a [f32],
    before: &'a [f32],
    after: &'a mut [f32],
}

impl Job for Blend<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let values = self.update.iter().zip(self.candidate).zip(self.before);
        for (after, ((update, candidate), before)) in self.after.iter_mut().zip(values) {
            *after = (1.0 - update) * candidate + update * before;
        }
    }
}
