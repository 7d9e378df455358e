//! A model made ready to run: parsed graph in, prepared steps inside, tensors out.

mod options;
mod ports;
mod tap;

pub use options::{Mode, NodePlan, Port, SessionOptions, StepTime};
pub use tap::{Tap, TapEvent};

use crate::def::OpTable;
use crate::memory::Arena;
use crate::plan::analyze::{Fold, MAX_FOLDED_BYTES, analyze, fold_patch};
use crate::plan::build::build;
use crate::plan::fused::products_patch;
use crate::plan::kernel::RunCtx;
use crate::plan::program::{Observer, Program, execute};
use crate::plan::qoperator::is_qoperator;
use crate::plan::scope::{Scope, check_operators};
use crate::plan::weights::is_blocks;
use fewbit_core::{Error, Graph, Model, Patch, Result, Tensor, ValueType};
use fewbit_kernels::{Ctx, Isa, Pool};
use ports::{arrange, fits_shape, ports};
use std::sync::{Arc, Mutex};

/// A model prepared for one [`Mode`]: weights are packed, steps are fused, layouts are chosen.
///
/// Running takes `&self`: several callers may run one session at once. The results do not depend
/// on the number of threads or on the instruction set.
pub struct Session {
    program: Program,
    plan: Vec<NodePlan>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    isa: Isa,
    pool: Arc<Pool>,
    arena: Arena,
    times: Option<Mutex<Vec<(u64, u64)>>>,
}

impl Session {
    /// Prepares a model with the standard operators.
    ///
    /// # Errors
    /// As [`with_table`](Session::with_table).
    pub fn new(model: &Model, options: &SessionOptions) -> Result<Session> {
        Self::with_table(model, options, &OpTable::standard())
    }

    /// Prepares a model with a table of operators.
    ///
    /// # Errors
    /// When an operator is not in the table (all of them are named), an option names an input or
    /// value that the graph lacks, or the model contradicts itself.
    pub fn with_table(model: &Model, options: &SessionOptions, table: &OpTable) -> Result<Session> {
        Self::with_pool(model, options, table, Arc::new(Pool::new(options.threads)))
    }

    /// As [`with_table`](Session::with_table), on threads that other sessions use too;
    /// `options.threads` has no effect.
    ///
    /// # Errors
    /// As [`with_table`](Session::with_table).
    pub fn with_pool(
        model: &Model,
        options: &SessionOptions,
        table: &OpTable,
        pool: Arc<Pool>,
    ) -> Result<Session> {
        check_operators(model, table)?;
        let isa = isa_of(options)?;
        let mut graph = model.graph.clone();
        assume_shapes(&mut graph, &options.input_shapes)?;
        let (inputs, outputs) = ports(&graph);
        let build_arena = Arena::with_limit(MAX_FOLDED_BYTES);
        let scope = Scope {
            table,
            opsets: &model.opsets,
            mode: mode_of(&graph, options.mode),
            kernels: &Ctx { isa, pool: &pool },
            arena: &build_arena,
        };
        let built = build(graph, &scope, &options.taps, &[])?;
        Ok(Session {
            arena: Arena::for_program(built.program.steps.len()),
            program: built.program,
            plan: built.plan,
            inputs,
            outputs,
            isa,
            pool,
            times: options.profile.then(Mutex::default),
        })
    }

    /// Inputs the caller must give.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Outputs in the order of the graph.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// How each node is run.
    pub fn plan(&self) -> &[NodePlan] {
        &self.plan
    }

    /// The threads of this session, to be shared with another one.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Computes all outputs.
    ///
    /// # Errors
    /// When an input is missing, unknown, or of another type than the graph says, or when a node
    /// fails; the error then names the node and the shapes of its inputs.
    pub fn run(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        self.run_owned(inputs.to_vec())
    }

    /// As [`run`](Session::run), taking the inputs. An operator that changes a tensor works in
    /// place on one that nobody else holds: so a state, such as a cache of keys and values, that
    /// goes in and comes out is not copied.
    ///
    /// # Errors
    /// As [`run`](Session::run).
    pub fn run_owned(&self, inputs: Vec<(&str, Tensor)>) -> Result<Vec<(String, Tensor)>> {
        let inputs = arrange(&self.inputs, inputs)?;
        let times = self.times.is_some().then(Vec::new);
        let (outputs, times) = self.pool.install(move || {
            let mut observer = Observer { tap: None, times };
            let outputs = self.execute(inputs, &mut observer);
            (outputs, observer.times)
        });
        self.keep_times(times);
        Ok(self.named(outputs?))
    }

    /// As [`run`](Session::run), showing the values named in [`SessionOptions::taps`] to `tap`
    /// in the order of execution.
    ///
    /// # Errors
    /// As [`run`](Session::run), and whatever `tap` reports.
    pub fn run_tapped(
        &self,
        inputs: &[(&str, Tensor)],
        tap: &mut Tap,
    ) -> Result<Vec<(String, Tensor)>> {
        let inputs = arrange(&self.inputs, inputs.to_vec())?;
        let times = self.times.is_some().then(Vec::new);
        let mut observer = Observer { tap: Some(tap), times };
        let outputs = self.execute(inputs, &mut observer)?;
        self.keep_times(observer.times);
        Ok(self.named(outputs))
    }

    /// Time of each step in the last run; empty unless [`SessionOptions::profile`] is set.
    pub fn profile(&self) -> Vec<StepTime> {
        let Some(times) = &self.times else { return Vec::new() };
        let times = times.lock().unwrap_or_else(|e| e.into_inner());
        let steps = self.program.steps.iter().zip(times.iter());
        let line = |(step, &(nanoseconds, macs)): (&crate::plan::program::Step, _)| StepTime {
            first: step.first.clone(),
            node: step.node.clone(),
            op: step.op.clone(),
            kernel: step.kernel.name(),
            integer: step.integer,
            nanoseconds,
            macs,
        };
        steps.map(line).collect()
    }

    fn execute(&self, inputs: Vec<Tensor>, observer: &mut Observer) -> Result<Vec<Tensor>> {
        let kernels = Ctx { isa: self.isa, pool: &self.pool };
        let ctx = RunCtx { kernels: &kernels, arena: &self.arena };
        execute(&self.program, &ctx, inputs, Some(observer))
    }

    fn keep_times(&self, found: Option<Vec<(u64, u64)>>) {
        if let (Some(times), Some(found)) = (&self.times, found) {
            *times.lock().unwrap_or_else(|e| e.into_inner()) = found;
        }
    }

    fn named(&self, outputs: Vec<Tensor>) -> Vec<(String, Tensor)> {
        self.outputs.iter().map(|port| port.name.clone()).zip(outputs).collect()
    }
}

/// A model without quantization has nothing to compute on integers, so more may be fused.
fn mode_of(graph: &Graph, asked: Mode) -> Mode {
    match asked {
        Mode::Integer if !is_quantized(graph) => Mode::Float,
        mode => mode,
    }
}

fn is_quantized(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| {
        let mut inner = node.attrs.iter().flat_map(|(_, attr)| attr.graphs());
        let linear = node.op.contains("QuantizeLinear") || node.is("DequantizeLinear");
        let codes = linear || is_qoperator(node) || is_blocks(node, "QuantizeBlocks");
        codes || inner.any(is_quantized)
    })
}

fn isa_of(options: &SessionOptions) -> Result<Isa> {
    match options.isa {
        None => Isa::from_env().map_err(|e| Error::usage(e.to_string())),
        Some(level) => Isa::new(level).ok_or_else(|| {
            Error::usage(format!("this CPU has no instruction set '{}'", level.name()))
        }),
    }
}

fn assume_shapes(graph: &mut Graph, shapes: &[(String, Vec<usize>)]) -> Result<()> {
    for (name, shape) in shapes {
        let found = graph.required_inputs().find(|&v| graph.name_of(v) == name);
        let Some(id) = found else {
            return Err(Error::usage(format!("a shape is given for `{name}`, which is no input"))
                .hint(format!("inputs are: {}", input_names(graph))));
        };
        let mut ty = graph.value(id).ty.clone();
        if !fits_shape(&ty, shape) {
            return Err(Error::usage(format!("shape {shape:?} for input `{name}`, which is {ty}"))
                .hint("sizes that the model fixes stay as they are; names and `?` are open"));
        }
        ty.shape = ValueType::fixed(fewbit_core::DType::F32, shape).shape;
        graph.set_type(id, ty);
    }
    Ok(())
}

fn input_names(graph: &Graph) -> String {
    let names: Vec<&str> = graph.required_inputs().map(|v| graph.name_of(v)).collect();
    names.join(", ")
}

/// Types of all values of the main graph, indexed by [`fewbit_core::ValueId::index`], as far as
/// they follow from the model and from the given input shapes.
///
/// # Errors
/// When a shape is given for something that is no input.
pub fn infer_types(
    model: &Model,
    table: &OpTable,
    input_shapes: &[(String, Vec<usize>)],
) -> Result<Vec<ValueType>> {
    let mut graph = model.graph.clone();
    assume_shapes(&mut graph, input_shapes)?;
    let found = with_scope(model, table, |scope| analyze(&graph, scope, Fold::All));
    Ok(found.types)
}

/// The edits that replace nodes without dynamic inputs by their results. Dequantization of
/// constants stays: low-bit weights remain low-bit.
pub fn fold_constants(model: &Model, table: &OpTable) -> Patch {
    with_scope(model, table, |scope| {
        let found = analyze(&model.graph, scope, Fold::KeepDequantize);
        fold_patch(&model.graph, &found)
    })
}

/// The edits that write `FusedConv`, `FusedGemm` and `FusedMatMul` of ONNX Runtime as operators of
/// ONNX (13 or later), as far as what they fuse is known.
pub fn write_fused_products(model: &Model, table: &OpTable) -> Patch {
    with_scope(model, table, |scope| products_patch(&model.graph, scope))
}

fn with_scope<R>(model: &Model, table: &OpTable, body: impl FnOnce(&Scope) -> R) -> R {
    let pool = Pool::single();
    let arena = Arena::with_limit(MAX_FOLDED_BYTES);
    body(&Scope {
        table,
        opsets: &model.opsets,
        mode: Mode::Simulate,
        kernels: &Ctx { isa: Isa::best(), pool: &pool },
        arena: &arena,
    })
}
