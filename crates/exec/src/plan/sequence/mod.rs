//! Convolutions on codes that follow each other, run as one: their sizes and buffers are known
//! beforehand, and all threads walk through them side by side.

mod room;
#[cfg(test)]
mod tests;

use super::kernel::RunCtx;
use super::program::{Program, Slot, Step};
use crate::ops::conv::{IntegerLink, Sizes};
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::conv::{Place, conv2d_i8_sequence};
use room::Room;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Steps of a program that are run as one.
pub(crate) struct Sequence {
    /// Which steps.
    pub steps: Range<usize>,
    /// Where their inputs are: values that come from elsewhere, and results of steps.
    reads: Vec<Reads>,
    /// Values that come from elsewhere, and whether no step behind the sequence reads them.
    inputs: Vec<(Slot, bool)>,
    /// For each step, where its result goes that is read behind the sequence.
    kept: Vec<Option<Slot>>,
    /// For each step, those whose results no step behind it reads, itself included.
    ends: Vec<Vec<usize>>,
    /// The layout of the last run.
    last: Mutex<Option<Arc<Layout>>>,
}

/// The most buffers that are dead, but not used again before threads have met for certain. It is for
/// speed alone: the kernels see what threads still read, and let them meet.
const HELD: usize = 4;

/// Inputs of a convolution.
struct Reads {
    image: Value,
    residual: Option<Value>,
}

#[derive(Clone, Copy)]
enum Value {
    /// What comes from elsewhere.
    Input(usize),
    /// The result of a step of the sequence.
    Result(usize),
}

/// What follows from the shapes of inputs.
struct Layout {
    inputs: Vec<(DType, Vec<usize>)>,
    /// Sizes of each convolution, and the buffer that it writes.
    links: Vec<(Sizes, usize)>,
    /// Its buffers come first, then those of results that are kept.
    room: Room,
}

/// The sequences of a program.
pub(super) fn find(program: &Program) -> Vec<Sequence> {
    let mut found = Vec::new();
    let mut next = 0;
    while next < program.steps.len() {
        let links = program.steps[next..].iter().take_while(|step| is_link(step)).count();
        if links > 1 {
            found.push(Sequence::new(program, next..next + links));
        }
        next += links.max(1);
    }
    found
}

fn is_link(step: &Step) -> bool {
    as_link(step).is_some()
        && matches!(step.outputs.as_slice(), [Some(_)])
        && step.inputs.iter().all(Option::is_some)
}

fn as_link(step: &Step) -> Option<IntegerLink<'_>> {
    step.kernel.integer_conv()?.as_link()
}

impl Sequence {
    fn new(program: &Program, range: Range<usize>) -> Sequence {
        let steps = &program.steps[range.clone()];
        let mut inputs: Vec<(Slot, bool)> = Vec::new();
        let mut reads = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let mut value = |input: usize| {
                let slot = step.inputs.get(input).copied().flatten()?;
                let before = steps[..index].iter().rposition(|s| s.outputs == [Some(slot)]);
                Some(before.map_or_else(|| input_of(&mut inputs, slot), Value::Result))
            };
            if let Some(image) = value(0) {
                reads.push(Reads { image, residual: value(1) });
            }
            for (slot, dies) in step.inputs.iter().zip(&step.dies) {
                let known = inputs.iter_mut().find(|(input, _)| Some(*input) == *slot);
                known.into_iter().for_each(|(_, dead)| *dead |= dies);
            }
        }
        let behind = &program.steps[range.end..];
        let is_read = |slot: &Slot| {
            behind.iter().any(|step| step.inputs.contains(&Some(*slot)))
                || program.outputs.contains(slot)
                || program.watched.iter().any(|watched| watched.slot == *slot)
        };
        let kept = steps.iter().map(|step| step.outputs[0].filter(is_read)).collect();
        let ends = ends(&reads);
        Sequence { steps: range, reads, inputs, kept, ends, last: Mutex::default() }
    }

    /// Results that are read behind the sequence.
    pub fn kept(&self) -> impl Iterator<Item = Slot> {
        self.kept.iter().filter_map(|slot| *slot)
    }

    /// Runs the steps as one, if inputs fit the convolutions. Nanoseconds and multiply-accumulates of
    /// each step go to `times`.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn run(
        &self,
        steps: &[Step],
        ctx: &RunCtx,
        values: &mut [Option<Tensor>],
        times: Option<&mut Vec<(u64, u64)>>,
    ) -> Result<bool> {
        let given = self.inputs.iter().map(|(slot, _)| values[*slot].as_ref());
        let convs = steps[self.steps.clone()].iter().map(as_link);
        let both = (given.collect::<Option<Vec<_>>>(), convs.collect::<Option<Vec<_>>>());
        let (Some(given), Some(convs)) = both else { return Ok(false) };
        let Some(layout) = self.layout(&convs, &given) else { return Ok(false) };
        let memory = || {
            let room = ctx.arena.tensor(DType::U8, vec![layout.room.len()])?;
            Ok((room, self.kept_tensors(ctx, &convs, &layout)?))
        };
        let first = &steps[self.steps.start];
        let (mut room, mut kept) = memory().map_err(|e: Error| e.at(first.label.clone()))?;
        let mut buffers = layout.room.split(room.bytes_mut());
        buffers.extend(kept.iter_mut().map(Tensor::bytes_mut));
        let clock = times.is_some().then(|| Clock::start(convs.len()));
        let ready = Ready { reads: &self.reads, layout: &layout, convs: &convs };
        ready.run(ctx, &given, buffers, clock.as_ref());
        if let (Some(times), Some(clock)) = (times, clock) {
            let macs = convs.iter().zip(&layout.links).map(|(conv, (sizes, _))| conv.macs(sizes));
            times.extend(clock.laps().zip(macs));
        }
        self.store(ctx, room, kept, values);
        Ok(true)
    }

    /// The layout for these inputs: mostly that of the last run.
    fn layout(&self, convs: &[IntegerLink], inputs: &[&Tensor]) -> Option<Arc<Layout>> {
        let last = || self.last.lock().unwrap_or_else(|e| e.into_inner());
        let known = last().as_ref().filter(|layout| layout.suits(inputs)).cloned();
        known.or_else(|| {
            let made = Arc::new(self.lay_out(convs, inputs)?);
            *last() = Some(Arc::clone(&made));
            Some(made)
        })
    }

    /// Tensors for results that are read behind the sequence.
    fn kept_tensors(
        &self,
        ctx: &RunCtx,
        convs: &[IntegerLink],
        layout: &Layout,
    ) -> Result<Vec<Tensor>> {
        let links = convs.iter().zip(&layout.links).zip(&self.kept);
        let kept = links.filter(|(_, slot)| slot.is_some());
        kept.map(|((conv, (sizes, _)), _)| ctx.arena.tensor(conv.dtype(), sizes.output.clone()))
            .collect()
    }

    /// Keeps results that are read later; gives buffers back that are not.
    fn store(&self, ctx: &RunCtx, room: Tensor, kept: Vec<Tensor>, values: &mut [Option<Tensor>]) {
        ctx.arena.recycle(room);
        let dead = self.inputs.iter().filter(|(_, dead)| *dead);
        for tensor in dead.filter_map(|(slot, _)| values[*slot].take()) {
            ctx.arena.recycle(tensor);
        }
        self.kept().zip(kept).for_each(|(slot, tensor)| values[slot] = Some(tensor));
    }

    /// Sizes and buffers, where the inputs fit the convolutions.
    fn lay_out(&self, convs: &[IntegerLink], inputs: &[&Tensor]) -> Option<Layout> {
        let inputs: Vec<_> = inputs.iter().map(|t| (t.dtype(), t.shape().to_vec())).collect();
        let links = self.sizes(convs, &inputs)?;
        let mut room = Room::default();
        let mut buffers = Vec::with_capacity(links.len());
        // Where threads may not have met since, others still read what is dead here.
        let mut held: Vec<usize> = Vec::new();
        for (index, sizes) in links.iter().enumerate() {
            if !sizes.is_pointwise() {
                held.drain(..).for_each(|buffer| room.give(buffer));
            }
            buffers.push(match self.kept[index] {
                None => Some(room.take(sizes.len(), convs[index].writes_planes())?),
                Some(_) => None,
            });
            let dead = self.ends[index].iter().filter_map(|&step| buffers[step]);
            held.extend(dead);
            // Many in a row would need memory for all: threads meet instead.
            while held.len() > HELD {
                room.give(held.remove(0));
            }
        }
        let behind = room.count()..;
        let mut behind = behind.into_iter();
        let buffers = buffers.into_iter().map(|buffer| buffer.or_else(|| behind.next()));
        let links = links.into_iter().zip(buffers);
        let links = links.map(|(sizes, buffer)| Some((sizes, buffer?))).collect::<Option<_>>()?;
        Some(Layout { inputs, links, room })
    }

    /// Sizes of all convolutions; `None` where a value has not the type or shape that is read.
    fn sizes(&self, convs: &[IntegerLink], inputs: &[(DType, Vec<usize>)]) -> Option<Vec<Sizes>> {
        let mut links: Vec<Sizes> = Vec::with_capacity(convs.len());
        for (conv, &Reads { image, residual }) in convs.iter().zip(&self.reads) {
            let ty = |value: Value| match value {
                Value::Input(index) => (inputs[index].0, inputs[index].1.as_slice()),
                Value::Result(index) => (convs[index].dtype(), links[index].output.as_slice()),
            };
            let sizes = conv.sizes(ty(image), residual.map(ty))?;
            links.push(sizes);
        }
        Some(links)
    }
}

/// For each step, those whose results no step behind it reads, itself included.
fn ends(reads: &[Reads]) -> Vec<Vec<usize>> {
    let mut last: Vec<usize> = (0..reads.len()).collect();
    for (index, Reads { image, residual }) in reads.iter().enumerate() {
        for value in [Some(*image), *residual] {
            if let Some(Value::Result(step)) = value {
                last[step] = index;
            }
        }
    }
    let mut ends = vec![Vec::new(); reads.len()];
    last.into_iter().enumerate().for_each(|(step, index)| ends[index].push(step));
    ends
}

/// The number of the input in a slot, a new one where it has none.
fn input_of(inputs: &mut Vec<(Slot, bool)>, slot: Slot) -> Value {
    let known = inputs.iter().position(|(input, _)| *input == slot);
    Value::Input(known.unwrap_or_else(|| {
        inputs.push((slot, false));
        inputs.len() - 1
    }))
}

/// Convolutions ready to run.
struct Ready<'a> {
    reads: &'a [Reads],
    layout: &'a Layout,
    convs: &'a [IntegerLink<'a>],
}

impl Ready<'_> {
    fn run(
        &self,
        ctx: &RunCtx,
        inputs: &[&Tensor],
        buffers: Vec<&mut [u8]>,
        clock: Option<&Clock>,
    ) {
        let place = |value: Value| match value {
            Value::Input(index) => Place::Input(index),
            Value::Result(index) => Place::Buffer(self.layout.links[index].1),
        };
        let link = |index: usize| {
            let (sizes, buffer) = &self.layout.links[index];
            let Reads { image, residual } = &self.reads[index];
            self.convs[index].link(sizes, (place(*image), residual.map(place)), *buffer)
        };
        let inputs: Vec<&[u8]> = inputs.iter().map(|tensor| tensor.bytes()).collect();
        let done = |index| clock.into_iter().for_each(|clock| clock.end(index));
        conv2d_i8_sequence(*ctx.kernels, self.convs.len(), link, &inputs, buffers, done);
    }
}

/// When the calling thread was done with each convolution, in nanoseconds.
struct Clock {
    start: Instant,
    ends: Vec<AtomicU64>,
}

impl Clock {
    fn start(laps: usize) -> Clock {
        let ends = (0..laps).map(|_| AtomicU64::new(0)).collect();
        Clock { start: Instant::now(), ends }
    }

    fn end(&self, lap: usize) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.ends[lap].store(now, Ordering::Relaxed);
    }

    /// How long each lap took.
    fn laps(self) -> impl Iterator<Item = u64> {
        let mut last = 0;
        self.ends.into_iter().map(move |end| {
            let end = end.into_inner();
            end.saturating_sub(std::mem::replace(&mut last, end))
        })
    }
}

impl Layout {
    fn suits(&self, inputs: &[&Tensor]) -> bool {
        let same = |((dtype, shape), tensor): (&(DType, Vec<usize>), &&Tensor)| {
            *dtype == tensor.dtype() && shape == tensor.shape()
        };
        self.inputs.iter().zip(inputs).all(same)
    }
}
