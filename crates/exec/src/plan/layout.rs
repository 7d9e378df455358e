//! Which values lie channels-last, and the conversions between the two orders.

use super::axes::reduces_in_any_order;
use super::kernel::Reorder;
use super::lower::{Lowering, Made};
use super::permute::{order_default, order_last, to_last};
use super::program::{Program, Slot, Step, Watched};
use fewbit_core::{DType, Graph, Node, Result, Tensor, ValueId, ValueType};
use std::collections::{HashMap, HashSet};

/// What a step asks of the order of dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Everything as ONNX writes it.
    Default,
    /// Inputs are `[N,...,C]`; outputs are too, where `output` says so.
    Last { output: bool },
    /// Works in either order: all inputs are broadcast together or joined.
    AnyOfAll,
    /// Works in either order: input 0 is the data, the others are parameters.
    AnyOfFirst,
}

/// The rule for an operator's own evaluation.
pub(crate) fn rule_of(lowering: &Lowering, node: &Node) -> Rule {
    let rank = |index: usize| lowering.ty(node.input(index)?).rank();
    match node.op.as_str() {
        _ if !matches!(node.domain.as_str(), "" | "ai.onnx") => Rule::Default,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Sum" | "Mean" | "PRelu"
        | "Where" | "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And"
        | "Or" | "Xor" | "Concat" | "BitShift" | "Mod" => Rule::AnyOfAll,
        "Relu" | "LeakyRelu" | "Clip" | "Sigmoid" | "HardSigmoid" | "HardSwish" | "Tanh"
        | "Elu" | "Selu" | "Celu" | "Gelu" | "Softplus" | "Softsign" | "Mish" | "Swish" | "Erf"
        | "Exp" | "Log" | "Sqrt" | "Reciprocal" | "Neg" | "Abs" | "Floor" | "Ceil" | "Round"
        | "Sign" | "Not" | "Cast" | "Identity" | "ThresholdedRelu" | "Dropout" | "Sin" | "Cos"
        | "IsNaN" | "IsInf" => Rule::AnyOfFirst,
        "DynamicQuantizeLinear" => Rule::AnyOfFirst,
        // Per tensor or per axis; blocks stay where ONNX puts them.
        "QuantizeLinear" | "DequantizeLinear" if rank(1).is_some_and(|r| r <= 1) => {
            Rule::AnyOfFirst
        }
        "Slice" | "Split" | "Pad" if rank(0).is_some() => Rule::AnyOfFirst,
        op if op.starts_with("Reduce") && reduces_in_any_order(lowering, node) => Rule::AnyOfFirst,
        _ => Rule::Default,
    }
}

/// Gives every value a slot and an order, and adds the conversions.
///
/// # Errors
/// When a constant cannot be copied.
pub(crate) fn assign_layouts(
    graph: &Graph,
    types: &[ValueType],
    steps: Vec<Made>,
    outputs: usize,
    taps: &HashSet<String>,
) -> Result<Program> {
    let mut assigner = Assigner::new(graph, types);
    for step in steps {
        assigner.place(step)?;
    }
    assigner.finish(outputs, taps)
}

struct Assigner<'a> {
    graph: &'a Graph,
    types: &'a [ValueType],
    program: Program,
    /// Where each value lies as ONNX writes it, and channels-last.
    slots: HashMap<(ValueId, bool), Slot>,
    /// The order in which each value was computed.
    home: HashMap<ValueId, bool>,
    constants: HashMap<ValueId, Tensor>,
}

impl<'a> Assigner<'a> {
    fn new(graph: &'a Graph, types: &'a [ValueType]) -> Self {
        let mut assigner = Assigner {
            graph,
            types,
            program: Program::default(),
            slots: HashMap::new(),
            home: HashMap::new(),
            constants: HashMap::new(),
        };
        for value in graph.required_inputs() {
            let slot = assigner.define(value, false);
            assigner.program.inputs.push(slot);
        }
        assigner
    }

    fn new_slot(&mut self) -> Slot {
        self.program.slots += 1;
        self.program.slots - 1
    }

    fn define(&mut self, value: ValueId, last: bool) -> Slot {
        let slot = self.new_slot();
        self.slots.insert((value, last), slot);
        self.home.insert(value, last);
        slot
    }

    fn constant(&self, value: ValueId) -> Option<&Tensor> {
        // A value that a step or the caller provides is not constant, whatever its default.
        if self.home.contains_key(&value) {
            return None;
        }
        self.constants.get(&value).or_else(|| self.graph.constant(value))
    }

    fn place(&mut self, mut step: Made) -> Result<()> {
        if let (Some(tensor), [Some(value)]) = (&step.known, step.outputs.as_slice()) {
            self.constants.insert(*value, tensor.clone());
            return Ok(());
        }
        if self.rename(&step)? {
            return Ok(());
        }
        let order = self.order(&step);
        let mut inputs = Vec::with_capacity(step.inputs.len());
        for (index, value) in step.inputs.iter().enumerate() {
            let data = index == 0 || step.rule != Rule::AnyOfFirst;
            inputs.push(match (value, order) {
                (None, _) => None,
                (Some(value), Some((rank, _))) if data => Some(self.read_last(*value, rank)?),
                (Some(value), _) => Some(self.read(*value)),
            });
        }
        if let (Some((rank, _)), Rule::AnyOfAll | Rule::AnyOfFirst) = (order, step.rule) {
            step.kernel.use_channels_last(rank);
        }
        let last = order.is_some_and(|(_, output)| output);
        // The two orders of a matrix are one.
        let define = |v: &Option<ValueId>| {
            v.map(|v| self.define(v, last && self.types[v.index()].rank() != Some(2)))
        };
        let outputs = step.outputs.iter().map(define).collect();
        self.push(step, inputs, outputs);
        Ok(())
    }

    /// Makes a transposition from one order to the other another name for its input: what it gives
    /// is the input in the other order. Returns whether it is one.
    fn rename(&mut self, step: &Made) -> Result<bool> {
        let ([Some(input)], [Some(output)]) = (step.inputs.as_slice(), step.outputs.as_slice())
        else {
            return Ok(false);
        };
        let ty = &self.types[input.index()];
        let (Some(perm), Some(rank)) = (step.kernel.permutes(), ty.rank()) else {
            return Ok(false);
        };
        if perm.len() != rank || ty.dtype.and_then(DType::size).is_none() {
            return Ok(false);
        }
        let axes: Vec<i64> = (0..rank as i64).collect();
        let (slot, last) = if perm == order_last(&axes) {
            (self.read_last(*input, rank)?, false)
        } else if perm == order_default(&axes) {
            (self.read(*input), true)
        } else {
            return Ok(false);
        };
        self.slots.insert((*output, last), slot);
        self.home.insert(*output, last);
        Ok(true)
    }

    /// Rank of the data and order of the outputs, when a step reads channels-last.
    fn order(&self, step: &Made) -> Option<(usize, bool)> {
        let first = step.inputs.first().copied().flatten()?;
        let rank = |value: ValueId| self.types[value.index()].rank();
        match step.rule {
            Rule::Default => None,
            Rule::Last { output } => Some((rank(first)?, output)),
            Rule::AnyOfFirst => Some((rank(first).filter(|_| self.is_last(first))?, true)),
            Rule::AnyOfAll => {
                let values: Vec<ValueId> = step.inputs.iter().flatten().copied().collect();
                let rank = rank(values.iter().copied().find(|&v| self.is_last(v))?)?;
                values.iter().all(|&v| self.can_be_last(v, rank)).then_some((rank, true))
            }
        }
    }

    fn is_last(&self, value: ValueId) -> bool {
        self.home.get(&value) == Some(&true)
    }

    fn can_be_last(&self, value: ValueId, rank: usize) -> bool {
        match self.constant(value) {
            Some(tensor) => tensor.rank() <= rank && tensor.dtype().size().is_some(),
            None => self.types[value.index()].rank() == Some(rank),
        }
    }

    /// The slot of a value as ONNX writes it.
    fn read(&mut self, value: ValueId) -> Slot {
        if let Some(&slot) = self.slots.get(&(value, false)) {
            return slot;
        }
        if let Some(tensor) = self.constant(value).cloned() {
            return self.hold(value, false, tensor);
        }
        self.convert(value, false)
    }

    /// The slot of a value in channels-last order.
    fn read_last(&mut self, value: ValueId, rank: usize) -> Result<Slot> {
        if let Some(&slot) = self.slots.get(&(value, true)) {
            return Ok(slot);
        }
        match self.constant(value) {
            Some(tensor) => {
                let tensor = operand_last(tensor, rank)?;
                Ok(self.hold(value, true, tensor))
            }
            None => Ok(self.convert(value, true)),
        }
    }

    fn hold(&mut self, value: ValueId, last: bool, tensor: Tensor) -> Slot {
        let slot = self.new_slot();
        self.slots.insert((value, last), slot);
        self.program.constants.push((slot, tensor));
        slot
    }

    fn convert(&mut self, value: ValueId, last: bool) -> Slot {
        let Some(&from) = self.slots.get(&(value, !last)) else {
            // A value without origin: the slot stays empty and its reader reports it.
            return self.define(value, last);
        };
        // Below three dimensions both orders are one.
        if self.types[value.index()].rank().is_some_and(|rank| rank < 3) {
            self.slots.insert((value, last), from);
            return from;
        }
        let slot = self.new_slot();
        self.slots.insert((value, last), slot);
        let name = self.graph.name_of(value).to_string();
        self.program.steps.push(Step {
            kernel: Box::new(Reorder { to_last: last }),
            inputs: vec![Some(from)],
            dies: Vec::new(),
            outputs: vec![Some(slot)],
            unread: Vec::new(),
            label: format!("layout of `{name}`"),
            first: name.clone(),
            node: name,
            op: "Layout".to_string(),
            integer: false,
        });
        slot
    }

    fn push(&mut self, step: Made, inputs: Vec<Option<Slot>>, outputs: Vec<Option<Slot>>) {
        let names: Vec<&str> =
            step.nodes.iter().map(|&id| self.graph.node(id).op.as_str()).collect();
        let anchor = step.nodes.first().copied();
        let last = step.nodes.last().copied();
        self.program.steps.push(Step {
            label: anchor.map_or_else(String::new, |id| self.graph.label(id)),
            first: anchor.map_or_else(String::new, |id| self.graph.node(id).name.clone()),
            node: last.map_or_else(String::new, |id| self.graph.node(id).name.clone()),
            op: names.join("+"),
            kernel: step.kernel,
            inputs,
            dies: Vec::new(),
            outputs,
            unread: Vec::new(),
            integer: step.integer,
        });
    }

    fn finish(mut self, outputs: usize, taps: &HashSet<String>) -> Result<Program> {
        for (index, &value) in self.graph.outputs().iter().enumerate() {
            if index < outputs {
                let slot = self.read(value);
                self.program.outputs.push(slot);
            }
        }
        for name in taps {
            let Some(value) = self.graph.find_value(name) else { continue };
            let last = self.is_last(value);
            let slot = match self.slots.get(&(value, last)) {
                Some(&slot) => slot,
                None => self.read(value),
            };
            self.program.watched.push(Watched { slot, name: name.clone(), channels_last: last });
        }
        self.program.watched.sort_by(|a, b| a.name.cmp(&b.name));
        mark_last_reads(&mut self.program);
        Ok(self.program)
    }
}

/// A constant operand of a broadcast or join, in the order of a channels-last value.
fn operand_last(tensor: &Tensor, rank: usize) -> Result<Tensor> {
    if tensor.len() == 1 {
        return Ok(tensor.clone());
    }
    let mut shape = vec![1; rank - tensor.rank().min(rank)];
    shape.extend_from_slice(tensor.shape());
    to_last(&tensor.reshape(shape)?)
}

/// Marks where each slot is read for the last time, so that its buffer can be used again.
fn mark_last_reads(program: &mut Program) {
    let mut needed = vec![false; program.slots];
    program.outputs.iter().for_each(|&slot| needed[slot] = true);
    for step in program.steps.iter_mut().rev() {
        let read_later = |slot: &Option<Slot>| slot.is_some_and(|s| !needed[s]);
        step.unread = step.outputs.iter().map(read_later).collect();
        step.dies = vec![false; step.inputs.len()];
        for (slot, dies) in step.inputs.iter().zip(&mut step.dies).rev() {
            if let Some(slot) = *slot {
                *dies = !needed[slot];
                needed[slot] = true;
            }
        }
    }
}
