//! What a session is asked for, and what it says about itself.

use fewbit_core::ValueType;
use fewbit_kernels::Level;
use std::collections::HashSet;

/// How the meaning of a graph is computed (architecture, "Three ways to run one graph").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Ignores activation quantization: Q/DQ pairs on activations are skipped.
    #[default]
    Float,
    /// Does exactly what the Q/DQ nodes say, in float.
    Simulate,
    /// Fused integer kernels: the bits of `Simulate`, but where no float holds a sum exactly.
    Integer,
}

/// What a session is built for.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// How to run.
    pub mode: Mode,
    /// Threads of the kernels; 0 takes all cores.
    pub threads: usize,
    /// Instruction set of the kernels; `None` takes what `FEWBIT_ISA` says, or the widest there is.
    pub isa: Option<Level>,
    /// Values that must be observable by a tap; fusion leaves them in place.
    pub taps: HashSet<String>,
    /// Shapes to assume for inputs whose dimensions the model leaves open, by input name.
    pub input_shapes: Vec<(String, Vec<usize>)>,
    /// Keep the time of every step for [`crate::StepTime`].
    pub profile: bool,
}

impl SessionOptions {
    /// All cores, the widest instruction set, no taps.
    pub fn new(mode: Mode) -> Self {
        SessionOptions { mode, ..Default::default() }
    }

    /// The same with a number of threads.
    pub fn threads(self, threads: usize) -> Self {
        SessionOptions { threads, ..self }
    }
}

/// A named input or output of a session.
#[derive(Clone, Debug)]
pub struct Port {
    /// Name in the graph.
    pub name: String,
    /// What the model says about its type.
    pub ty: ValueType,
}

/// How one node of the model is run by a session.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Node name in the model.
    pub node: String,
    /// Operator.
    pub op: String,
    /// Kernel that runs it, or the step it was fused into.
    pub kernel: String,
    /// Whether it computes on integers.
    pub integer: bool,
    /// In `Integer` mode: why it runs in float although its operator could be integer.
    pub reason: Option<String>,
}

/// Time spent in one step.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// Node name (the first one, for fused steps).
    pub first: String,
    /// Node name (the last one, for fused steps).
    pub node: String,
    /// Operator, with what was fused: `Conv+Relu`.
    pub op: String,
    /// Kernel name.
    pub kernel: String,
    /// Whether it computes on integers.
    pub integer: bool,
    /// Nanoseconds of the last run.
    pub nanoseconds: u64,
    /// Multiply-accumulates of the last run; 0 where they are not counted.
    pub macs: u64,
}
