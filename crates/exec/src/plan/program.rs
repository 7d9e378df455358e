//! A graph made ready to run: steps over numbered slots, and the loop that runs them.

use super::kernel::{Inputs, Kernel, RunCtx};
use super::sequence::Sequence;
use crate::session::{Tap, TapEvent};
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::cpu::ask_for;
use std::slice::from_ref;
use std::time::Instant;

/// Place of a value while a program runs.
pub(crate) type Slot = usize;

/// One kernel call.
pub(crate) struct Step {
    /// What runs.
    pub kernel: Box<dyn Kernel>,
    /// Where each input is read.
    pub inputs: Vec<Option<Slot>>,
    /// Whether this is the last read of the slot.
    pub dies: Vec<bool>,
    /// Where each output goes.
    pub outputs: Vec<Option<Slot>>,
    /// Outputs nobody reads.
    pub unread: Vec<bool>,
    /// Node label for errors.
    pub label: String,
    /// Name of the first node.
    pub first: String,
    /// Name of the last node.
    pub node: String,
    /// Operator, with what was fused.
    pub op: String,
    /// Whether it computes on integers.
    pub integer: bool,
}

/// A value that a tap may watch.
pub(crate) struct Watched {
    pub slot: Slot,
    pub name: String,
    pub channels_last: bool,
}

/// A prepared graph.
#[derive(Default)]
pub(crate) struct Program {
    pub steps: Vec<Step>,
    /// Steps that are run as one where they can be, in their order.
    pub sequences: Vec<Sequence>,
    pub slots: usize,
    /// Values known before the run.
    pub constants: Vec<(Slot, Tensor)>,
    /// Formal inputs in order; in a subgraph, then the values it captures.
    pub inputs: Vec<Slot>,
    /// Outputs in order.
    pub outputs: Vec<Slot>,
    /// Values that are watched.
    pub watched: Vec<Watched>,
}

impl Program {
    /// The sequence that begins with step `index`.
    fn sequence_at(&self, index: usize) -> Option<&Sequence> {
        let found = self.sequences.binary_search_by_key(&index, |s| s.steps.start).ok()?;
        Some(&self.sequences[found])
    }
}

/// What follows a run.
pub(crate) struct Observer<'a, 't> {
    /// Called for watched values.
    pub tap: Option<&'a mut Tap<'t>>,
    /// Nanoseconds and multiply-accumulates of each step, when wanted.
    pub times: Option<Vec<(u64, u64)>>,
}

/// Runs a program.
///
/// # Errors
/// What a kernel reports, with the node and the shapes of its inputs.
pub(crate) fn execute(
    program: &Program,
    ctx: &RunCtx,
    inputs: Vec<Tensor>,
    mut observer: Option<&mut Observer>,
) -> Result<Vec<Tensor>> {
    let mut values = start(program, inputs)?;
    if let Some(observer) = &mut observer {
        let known: Vec<Slot> = (0..values.len()).filter(|&s| values[s].is_some()).collect();
        observer.watch(program, ctx, &known, &values)?;
    }
    let (mut inputs, mut types) = (Inputs::new(), InputTypes::default());
    let mut done = 0;
    for (index, step) in program.steps.iter().enumerate() {
        if index < done {
            continue;
        }
        if let Some(sequence) = program.sequence_at(index)
            && run_as_one(program, sequence, ctx, &mut values, observer.as_deref_mut())?
        {
            done = sequence.steps.end;
            continue;
        }
        look_ahead(&program.steps[index + 1..], &values);
        let timed = observer.as_ref().is_some_and(|observer| observer.times.is_some());
        let began = timed.then(Instant::now);
        gather(step, &mut values, &mut inputs);
        types.keep(&inputs);
        let outputs = step.kernel.run(ctx, &mut inputs).map_err(|e| e.at(place(step, &types)))?;
        inputs.drain(..).flatten().for_each(|input| ctx.arena.recycle(input));
        if let (Some(observer), Some(began)) = (&mut observer, began) {
            observer.time(step, began, &outputs);
        }
        store(step, ctx, outputs, &mut values)?;
        if let Some(observer) = &mut observer {
            let written: Vec<Slot> = step.outputs.iter().flatten().copied().collect();
            observer.watch(program, ctx, &written, &values)?;
        }
        let dead = step.outputs.iter().zip(&step.unread).filter(|(_, unread)| **unread);
        for slot in dead.filter_map(|(slot, _)| *slot) {
            values[slot].take().into_iter().for_each(|t| ctx.arena.recycle(t));
        }
    }
    program.outputs.iter().map(|&slot| finished(&values, slot)).collect()
}

/// Runs a sequence, if it can be run now.
fn run_as_one(
    program: &Program,
    sequence: &Sequence,
    ctx: &RunCtx,
    values: &mut [Option<Tensor>],
    mut observer: Option<&mut Observer>,
) -> Result<bool> {
    let times = observer.as_deref_mut().and_then(|observer| observer.times.as_mut());
    let ran = sequence.run(&program.steps, ctx, values, times)?;
    if let (true, Some(observer)) = (ran, observer) {
        let written: Vec<Slot> = sequence.kept().collect();
        observer.watch(program, ctx, &written, values)?;
    }
    Ok(ran)
}

/// Asks for what the next steps read before they compute. Weights that are read once for each token
/// push it out of all caches, and a small step would wait for it longer than it computes.
fn look_ahead(steps: &[Step], values: &[Option<Tensor>]) {
    let [next, second, third, ..] = steps else { return };
    ask_for(from_ref(third));
    ask_for(&second.inputs);
    ask_for(&second.dies);
    ask_for(&second.outputs);
    for slot in next.inputs.iter().chain(&next.outputs).flatten() {
        ask_for(from_ref(&values[*slot]));
    }
}

fn start(program: &Program, inputs: Vec<Tensor>) -> Result<Vec<Option<Tensor>>> {
    let mut values = vec![None; program.slots];
    for (slot, tensor) in &program.constants {
        values[*slot] = Some(tensor.clone());
    }
    if inputs.len() != program.inputs.len() {
        return Err(Error::bad_input(format!(
            "a graph with {} inputs was given {}",
            program.inputs.len(),
            inputs.len()
        )));
    }
    for (&slot, tensor) in program.inputs.iter().zip(inputs) {
        values[slot] = Some(tensor);
    }
    Ok(values)
}

fn finished(values: &[Option<Tensor>], slot: Slot) -> Result<Tensor> {
    values[slot].clone().ok_or_else(|| Error::internal("an output was never computed"))
}

/// Brings the values that a step reads into `inputs`, and those that it reads last out of `values`.
fn gather(step: &Step, values: &mut [Option<Tensor>], inputs: &mut Inputs) {
    inputs.extend(step.inputs.iter().zip(&step.dies).map(|(slot, &dies)| match slot {
        None => None,
        Some(slot) if dies => values[*slot].take(),
        Some(slot) => values[*slot].clone(),
    }));
}

/// Types of the inputs of a step: wanted for errors only, but the inputs are gone by then. The
/// buffers serve all steps, for small ones would spend their time on memory.
#[derive(Default)]
struct InputTypes {
    /// Element type and rank.
    types: Vec<Option<(DType, usize)>>,
    /// The shapes one after another.
    dims: Vec<usize>,
}

impl InputTypes {
    fn keep(&mut self, inputs: &[Option<Tensor>]) {
        self.types.clear();
        self.dims.clear();
        for input in inputs {
            self.types.push(input.as_ref().map(|t| (t.dtype(), t.rank())));
            self.dims.extend(input.iter().flat_map(|t| t.shape()));
        }
    }
}

fn place(step: &Step, InputTypes { types, dims }: &InputTypes) -> String {
    let mut dims = dims.as_slice();
    let shown = types.iter().map(|ty| match ty {
        Some((dtype, rank)) => {
            let (shape, rest) = dims.split_at(*rank);
            dims = rest;
            format!("{dtype}{shape:?}")
        }
        None => "-".to_string(),
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    format!("{} with inputs {shown}", step.label)
}

fn store(
    step: &Step,
    ctx: &RunCtx,
    outputs: Vec<Tensor>,
    values: &mut [Option<Tensor>],
) -> Result<()> {
    let wanted = step.outputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    if outputs.len() < wanted {
        let found = outputs.len();
        return Err(Error::unsupported(format!("{found} outputs are computed, {wanted} are used"))
            .at(step.label.clone()));
    }
    for (index, tensor) in outputs.into_iter().enumerate() {
        match step.outputs.get(index).copied().flatten() {
            Some(slot) => values[slot] = Some(tensor),
            None => ctx.arena.recycle(tensor),
        }
    }
    Ok(())
}

impl Observer<'_, '_> {
    fn time(&mut self, step: &Step, began: Instant, outputs: &[Tensor]) {
        if let Some(times) = &mut self.times {
            let spent = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            times.push((spent, step.kernel.macs(outputs)));
        }
    }

    fn watch(
        &mut self,
        program: &Program,
        ctx: &RunCtx,
        written: &[Slot],
        values: &[Option<Tensor>],
    ) -> Result<()> {
        let Some(tap) = &mut self.tap else { return Ok(()) };
        for watched in program.watched.iter().filter(|w| written.contains(&w.slot)) {
            let Some(tensor) = &values[watched.slot] else { continue };
            tap(&TapEvent {
                name: &watched.name,
                tensor,
                channels_last: watched.channels_last,
                kernels: ctx.kernels,
            })?;
        }
        Ok(())
    }
}
