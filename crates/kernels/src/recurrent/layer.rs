//! The walk along the sequences.

use super::cell::{Cell, CellKind, Part};
use super::functions::Row;
use super::product::Codes;
use crate::threads::SharedMut;
use crate::{Ctx, Isa, Pool};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

/// Multiply-accumulates that are worth waking threads for.
const LEAST: usize = 1 << 19;

/// A direction and its states.
pub struct Direction<'a> {
    /// Its weights.
    pub cell: &'a Cell,
    /// Whether it goes from the end of each sequence to its beginning.
    pub reverse: bool,
    /// What the inputs contribute, their bias included: rows of all gates of all units.
    pub x: &'a [f32],
    /// States, `[sequences, hidden]`: before the first step, and behind the last one of each sequence.
    pub h: Vec<f32>,
    /// The states of cells, of an LSTM.
    pub c: Vec<f32>,
}

/// What all directions have in common.
pub struct Layer<'a> {
    /// Length of each sequence.
    pub lengths: &'a [usize],
    /// Steps that there is room for: rows of inputs and outputs for each sequence.
    pub steps: usize,
    /// Whether rows are ordered by sequence, step and direction; else by step, direction and sequence.
    /// Those of [`Direction::x`] have no direction.
    pub batch_first: bool,
}

impl Layer<'_> {
    /// Runs all directions, which are of one kind and size. Writes the states of each step to `y`, but
    /// nothing behind the end of a sequence. Returns the directions with their last states.
    ///
    /// Results depend neither on the instruction set nor on the threads.
    ///
    /// # Panics
    /// When directions differ, a sequence is longer than the steps, or there are fewer inputs, states
    /// or outputs than that.
    pub fn run<'d>(
        &self,
        ctx: Ctx<'_>,
        directions: Vec<Direction<'d>>,
        y: &mut [f32],
    ) -> Vec<Direction<'d>> {
        let steps = self.lengths.iter().copied().max().unwrap_or(0);
        assert!(steps <= self.steps, "a sequence of {steps} steps");
        let Some(cell) = directions.first().map(|d| d.cell).filter(|_| steps > 0) else {
            return directions;
        };
        let alike = |d: &Direction| d.cell.kind == cell.kind && d.cell.hidden == cell.hidden;
        assert!(directions.iter().all(alike), "directions of different kinds or sizes");
        let (count, y) = (directions.len(), SharedMut::new(y));
        let mut buffers: Vec<Buffers> =
            directions.iter().map(|d| Buffers::new(d, self.lengths.len())).collect();
        let mut runs = Vec::with_capacity(directions.len());
        for (index, (direction, buffers)) in directions.iter().zip(&mut buffers).enumerate() {
            let at = [index, count];
            runs.push(Run { layer: self, at, direction, y, buffers: buffers.shared() });
        }
        let rows = steps.saturating_mul(count * self.lengths.len());
        let work = rows.saturating_mul(cell.columns() * cell.hidden);
        let single = Pool::single();
        let pool = if work < LEAST { &single } else { ctx.pool };
        let turns = steps * cell.kind.products().len();
        match cell.parts.len() > 1 && pool.threads() > 1 {
            true => together(ctx.isa, pool, turns, &runs),
            // One direction after the other: the weights of one may fit a cache.
            false => pool.for_each_range(runs.len(), 1, |range| {
                for run in &runs[range] {
                    // SAFETY: this thread alone computes the direction.
                    (0..turns).for_each(|turn| unsafe { run.turn(ctx.isa, turn, 0..run.parts()) });
                }
            }),
        }
        drop(runs);
        let done = directions.into_iter().zip(buffers);
        done.map(|(direction, buffers)| buffers.finish(direction)).collect()
    }
}

impl Layer<'_> {
    /// Number of a row of direction `index` of `count`; each has its own.
    fn row(&self, step: usize, sequence: usize, [index, count]: [usize; 2]) -> usize {
        match self.batch_first {
            true => (sequence * self.steps + step) * count + index,
            false => (step * count + index) * self.lengths.len() + sequence,
        }
    }
}

/// Runs `turns` products of each direction, in which all threads share.
fn together(isa: Isa, pool: &Pool, turns: usize, runs: &[Run]) {
    let tasks: Vec<(&Run, usize)> =
        runs.iter().flat_map(|run| (0..run.parts()).map(move |part| (run, part))).collect();
    let body = |turn: usize, pool: &Pool| {
        pool.for_each_range(tasks.len(), 1, |range| {
            for &(run, part) in &tasks[range] {
                // SAFETY: threads meet behind each turn.
                unsafe { run.turn(isa, turn, part..part + 1) }
            }
        });
    };
    pool.walk(turns, |_| vec![true; turns], body, |_| ());
}

/// What a direction reads and writes.
struct Buffers {
    /// States; a step reads one and writes the other. Zeros where a sequence has ended, so that they
    /// do not count where states are quantized.
    h: [Vec<f32>; 2],
    /// The last states of each sequence.
    last: Vec<f32>,
    c: Vec<f32>,
    /// States behind the reset of a GRU.
    gated: Vec<f32>,
    scratch: Vec<Mutex<Scratch>>,
}

/// The same, shared by threads.
struct Shared<'a> {
    h: [SharedMut<'a, f32>; 2],
    last: SharedMut<'a, f32>,
    c: SharedMut<'a, f32>,
    gated: SharedMut<'a, f32>,
    scratch: &'a [Mutex<Scratch>],
}

/// Sums of a part: those of each product.
struct Scratch {
    sums: Vec<Vec<f32>>,
    codes: Codes,
}

impl Scratch {
    fn of(part: &Part, rows: usize) -> Mutex<Scratch> {
        let sums = part.products.iter().map(|product| vec![0.0; rows * product.columns()]);
        Mutex::new(Scratch { sums: sums.collect(), codes: Codes::default() })
    }
}

impl Buffers {
    fn new(direction: &Direction<'_>, rows: usize) -> Buffers {
        let len = rows * direction.cell.hidden;
        assert_eq!(direction.h.len(), len, "states of {rows} sequences");
        let is_lstm = matches!(direction.cell.kind, CellKind::Lstm { .. });
        assert_eq!(direction.c.len(), if is_lstm { len } else { 0 }, "states of cells");
        let gated = if direction.cell.kind.products().len() > 1 { len } else { 0 };
        Buffers {
            h: [direction.h.clone(), vec![0.0; len]],
            last: direction.h.clone(),
            c: direction.c.clone(),
            gated: vec![0.0; gated],
            scratch: direction.cell.parts.iter().map(|part| Scratch::of(part, rows)).collect(),
        }
    }

    fn shared(&mut self) -> Shared<'_> {
        Shared {
            h: self.h.each_mut().map(|h| SharedMut::new(h)),
            last: SharedMut::new(&mut self.last),
            c: SharedMut::new(&mut self.c),
            gated: SharedMut::new(&mut self.gated),
            scratch: &self.scratch,
        }
    }

    fn finish(self, direction: Direction<'_>) -> Direction<'_> {
        Direction { h: self.last, c: self.c, ..direction }
    }
}

/// A direction under way.
struct Run<'a> {
    layer: &'a Layer<'a>,
    /// Number of the direction, and of all.
    at: [usize; 2],
    direction: &'a Direction<'a>,
    y: SharedMut<'a, f32>,
    buffers: Shared<'a>,
}

impl Run<'_> {
    fn parts(&self) -> usize {
        self.direction.cell.parts.len()
    }

    /// Computes some parts of the product whose turn it is, and what follows them.
    ///
    /// # Safety
    /// All parts of the direction are done with the turns before; nobody else computes these.
    unsafe fn turn(&self, isa: Isa, turn: usize, parts: Range<usize>) {
        let products = self.direction.cell.kind.products().len();
        let (step, product) = (turn / products, turn % products);
        let Shared { h, gated, .. } = &self.buffers;
        let states = if product == 0 { h[step % 2] } else { *gated };
        // SAFETY: what products read is not written before all parts are done with them.
        let states = unsafe { states.read(0..states.len()) };
        for part in parts {
            let mut scratch = self.scratch(part);
            let Scratch { sums, codes } = &mut *scratch;
            let part = &self.direction.cell.parts[part];
            part.products[product].run(isa, states, codes, &mut sums[product]);
            for (sequence, &length) in self.layer.lengths.iter().enumerate() {
                let place = Place { step, product, sequence, units: part.units.clone() };
                // SAFETY: the caller's promise.
                unsafe { self.row(isa, place, length, sums) }
            }
        }
    }

    fn scratch(&self, part: usize) -> MutexGuard<'_, Scratch> {
        self.buffers.scratch[part].lock().unwrap_or_else(|error| error.into_inner())
    }

    /// What follows a product for one sequence.
    ///
    /// # Safety
    /// As [`Run::turn`].
    unsafe fn row(&self, isa: Isa, place: Place, length: usize, sums: &mut [Vec<f32>]) {
        let Place { step, product, sequence, units } = place;
        let (cell, Shared { h, c, gated, .. }) = (self.direction.cell, &self.buffers);
        let at = sequence * cell.hidden + units.start..sequence * cell.hidden + units.end;
        let last = product + 1 == cell.kind.products().len();
        let [now, next] = [h[step % 2], h[(step + 1) % 2]];
        let to = if last { next } else { *gated };
        // SAFETY: the caller's promise: of these states this part alone writes its units.
        let (before, after) = unsafe { (now.read(at.clone()), to.range(at.clone())) };
        if step >= length {
            return after.fill(0.0);
        }
        let time = if self.direction.reverse { length - 1 - step } else { step };
        let x = self.layer.row(time, sequence, [0, 1]) * cell.columns();
        let x = &self.direction.x[x..][..cell.columns()];
        let n = units.len();
        let row = Row { cell, units: units.clone(), x, before, after };
        match (cell.kind, sums) {
            (CellKind::Lstm { .. }, [sums, ..]) => {
                // SAFETY: as above.
                let c = unsafe { c.range(at.clone()) };
                row.lstm(isa, &mut sums[sequence * 4 * n..][..4 * n], c);
            }
            (CellKind::Gru { .. }, [sums]) => {
                let (gates, hidden) = sums[sequence * 3 * n..][..3 * n].split_at_mut(2 * n);
                row.gru_gates(isa, gates);
                row.gru(isa, &gates[..n], Some(&gates[n..]), hidden);
            }
            (CellKind::Gru { .. }, [sums, hidden, ..]) => {
                let gates = &mut sums[sequence * 2 * n..][..2 * n];
                if !last {
                    row.gru_gates(isa, gates);
                    return row.gated(isa, &gates[n..]);
                }
                row.gru(isa, &gates[..n], None, &mut hidden[sequence * n..][..n]);
            }
            (_, sums) => {
                let sums = sums.first().map_or(&[][..], |sums| &sums[sequence * n..][..n]);
                row.rnn(isa, sums);
            }
        }
        let y = self.layer.row(time, sequence, self.at) * cell.hidden;
        // SAFETY: each row of outputs belongs to one step of one direction; else as above.
        unsafe {
            let states = next.read(at.clone());
            self.y.range(y + units.start..y + units.end).copy_from_slice(states);
            if step + 1 == length {
                self.buffers.last.range(at).copy_from_slice(states);
            }
        }
    }
}

/// What is computed for a sequence.
struct Place {
    step: usize,
    product: usize,
    sequence: usize,
    units: Range<usize>,
}
