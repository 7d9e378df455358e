//! Values between two convolutions on codes, in the order that the second one reads quickest.

use super::program::{Program, Slot, Step};

/// Lets convolutions write in planes of channels where the only reader is one that wants it so.
pub(super) fn hand_planes(program: &mut Program) {
    for writer in 0..program.steps.len() {
        if program.steps[writer].kernel.integer_conv().is_none() {
            continue;
        }
        let Some(reader) = only_reader(program, writer) else { continue };
        let (before, from) = program.steps.split_at_mut(reader);
        let both = (before[writer].kernel.integer_conv_mut(), from[0].kernel.integer_conv_mut());
        if let (Some(writer), Some(reader)) = both {
            writer.hand_planes(reader);
        }
    }
}

/// The step that alone reads what step `writer` writes, as its first input; nobody watches that.
fn only_reader(program: &Program, writer: usize) -> Option<usize> {
    let [Some(slot)] = *program.steps[writer].outputs.as_slice() else { return None };
    let watched = program.watched.iter().any(|watched| watched.slot == slot);
    if watched || program.outputs.contains(&slot) {
        return None;
    }
    let reads = |step: &Step| step.inputs.iter().filter(|&&input| input == Some(slot)).count();
    let mut readers = program.steps.iter().enumerate().filter(|(_, step)| reads(step) > 0);
    let (index, step) = readers.next()?;
    let first: Option<Slot> = step.inputs.first().copied().flatten();
    (readers.next().is_none() && reads(step) == 1 && first == Some(slot)).then_some(index)
}
