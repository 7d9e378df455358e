//! Convolutions on 8-bit codes, over `[N,...,C]` values.

use super::geometry::{Geometry, Pads};
use super::integer_transposed::IntegerTransposed;
use super::transposed::Transposed;
use crate::plan::integer::finish::{Codes, Finish, int8, no_values};
use crate::plan::integer::product::{Operands, Product, product, weight_zero};
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Error, Node, NodeId, Result, Tensor, element_count};
use fewbit_kernels::conv::{ConvInput, ConvShape, Link, PackedConvI8, Place, conv2d_i8};
use fewbit_kernels::{Int8, Isa};
use std::sync::OnceLock;

/// The step for a convolution of codes; the inner error says why it stays float.
///
/// # Errors
/// When the weight contradicts the node.
pub(crate) fn lower_integer(
    lowering: &Lowering,
    id: NodeId,
    node: &Node,
) -> Result<Result<Lowered, String>> {
    match matched(lowering, node)? {
        Ok((form, found)) => {
            let found = match form {
                Form::Direct(_) => found.with_addition(lowering, None),
                Form::Transposed(_) => found,
            };
            Ok(Ok(step(lowering.scope.kernels.isa, id, form, found)))
        }
        Err(why) => Ok(Err(why)),
    }
}

/// The product of codes that a convolution is, if it is one.
///
/// # Errors
/// When the weight contradicts the node.
pub(crate) fn coded(lowering: &Lowering, node: &Node) -> Result<Option<Product>> {
    Ok(matched(lowering, node)?.ok().map(|(_, found)| found))
}

fn matched(lowering: &Lowering, node: &Node) -> Result<Result<(Form, Product), String>> {
    let Some(shape) = node.input(1).and_then(|w| lowering.ty(w).fixed_shape()) else {
        return Ok(Err("the weight's shape is not fixed".to_string()));
    };
    let form = Form::new(node, &shape)?;
    if form.geometry().window.rank() > 2 {
        return Ok(Err("three spatial dimensions".to_string()));
    }
    if node.input(0).and_then(|x| lowering.ty(x).rank()) != Some(shape.len()) {
        return Ok(Err("the input's rank is not known".to_string()));
    }
    let found = form.operands(node).and_then(|operands| product(lowering, node, operands));
    Ok(found.map(|found| (form, found)))
}

/// A convolution, or a transposed one.
pub(crate) enum Form {
    Direct(Geometry),
    Transposed(Transposed),
}

impl Form {
    /// Reads a node with a weight of the given shape.
    ///
    /// # Errors
    /// When attributes and weight contradict each other.
    pub fn new(node: &Node, weight: &[usize]) -> Result<Form> {
        Ok(match node.op.as_str() {
            "ConvTranspose" => Form::Transposed(Transposed::new(node, weight)?),
            _ => Form::Direct(Geometry::of_conv(node, weight)?),
        })
    }

    fn geometry(&self) -> &Geometry {
        match self {
            Form::Direct(geometry) => geometry,
            Form::Transposed(transposed) => &transposed.whole,
        }
    }

    fn operands(&self, node: &Node) -> Result<Operands, String> {
        let geometry = self.geometry();
        let transposed = matches!(self, Form::Transposed(_));
        if transposed && geometry.groups > 1 {
            // Their weight shares its scales between groups.
            return Err("a transposed convolution with groups".to_string());
        }
        Ok(Operands {
            weight: node.input(1).ok_or("the weight is missing")?,
            weight_axis: if transposed { 1 } else { 0 },
            channels: geometry.out_c,
            bias: node.input(2),
            bias_node: None,
            allow_residual: !transposed,
        })
    }
}

fn step(isa: Isa, id: NodeId, form: Form, found: Product) -> Lowered {
    let Product { input, weight, finish, tail, output, residual } = found;
    let codes = Input { dtype: input.dtype, zero_point: input.affine.zero_point };
    let mut nodes = vec![id];
    nodes.extend(tail);
    let mut inputs = vec![Some(input.value)];
    inputs.extend(residual.map(Some));
    let rule = Rule::Last { output: true };
    let (weights, zeros) = (weight.codes, weight.zeros);
    let mut step = match form {
        Form::Direct(geometry) => {
            let pack = move || IntegerConv::new(isa, geometry, weights, &zeros, codes, finish);
            Lowered::packed(nodes, pack, inputs, output, rule)
        }
        Form::Transposed(shape) => {
            let pack = move || IntegerTransposed::new(isa, shape, weights, &zeros, codes, finish);
            Lowered::packed(nodes, pack, inputs, output, rule)
        }
    };
    step.integer = true;
    step
}

/// What the input's codes are.
#[derive(Clone, Copy)]
pub(crate) struct Input {
    pub dtype: DType,
    pub zero_point: i32,
}

impl Input {
    fn of(self, values: Int8<'_>) -> ConvInput<'_> {
        ConvInput { values, zero_point: self.zero_point }
    }
}

/// The prepared step: `[x]` or `[x, residual]`, all channels-last.
pub(crate) struct IntegerConv {
    geometry: Geometry,
    weights: PackedConvI8,
    input: Input,
    finish: Finish,
    /// For inputs of one shape, which mostly is that of all.
    sizes: OnceLock<(Vec<usize>, Sizes)>,
}

/// What follows from the shape of an input.
#[derive(Clone)]
pub(crate) struct Sizes {
    plane: ConvShape,
    /// Shape of the output.
    pub output: Vec<usize>,
}

impl IntegerConv {
    /// Packs weights as the node has them.
    ///
    /// # Errors
    /// When the weights are not 8-bit.
    pub fn new(
        isa: Isa,
        geometry: Geometry,
        codes: Tensor,
        zeros: &[i32],
        input: Input,
        finish: Finish,
    ) -> Result<IntegerConv> {
        let (shape, zeros) = (geometry.packing(), weight_zero(zeros));
        if codes.len() != shape.weights_len() {
            return Err(Error::bad_input("the weight has another size than its shape says"));
        }
        let mut weights = PackedConvI8::new(isa, &shape, int8(&codes, codes.dtype())?, zeros);
        codes.release();
        let finish = finish.prepared(isa);
        if let Some(to) = finish.plain_codes() {
            weights.prepare(input.of(no_values(input.dtype)), &to);
        }
        Ok(IntegerConv { geometry, weights, input, finish, sizes: OnceLock::new() })
    }

    /// Lets this convolution write in planes of channels, where `next`, its only reader, reads them
    /// quicker so.
    pub fn hand_planes(&mut self, next: &mut IntegerConv) {
        if self.finish.plain_codes().is_some() {
            let _handed = self.weights.hand_planes(&mut next.weights);
        }
    }

    /// Sizes for an input of the node.
    ///
    /// # Errors
    /// When it does not fit the weight.
    fn sizes(&self, x: &Tensor) -> Result<Sizes> {
        if let Some((shape, sizes)) = self.sizes.get()
            && shape == x.shape()
        {
            return Ok(sizes.clone());
        }
        let sizes = self.sizes_of(x.shape())?;
        // Another thread may have been first.
        _ = self.sizes.set((x.shape().to_vec(), sizes.clone()));
        Ok(sizes)
    }

    fn sizes_of(&self, input: &[usize]) -> Result<Sizes> {
        let (pads, output) = self.geometry.of_input(input)?;
        Ok(Sizes { plane: self.plane(input, &pads), output })
    }

    fn plane(&self, input: &[usize], pads: &Pads) -> ConvShape {
        let spatial = &input[1..input.len() - 1];
        self.geometry.plane(input[0], spatial, pads)
    }

    /// Convolves with padding given, into `shape`.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn run_padded(
        &self,
        ctx: &RunCtx,
        x: &Tensor,
        pads: &Pads,
        shape: Vec<usize>,
    ) -> Result<Tensor> {
        self.convolve(ctx, x, Sizes { plane: self.plane(x.shape(), pads), output: shape }, None)
    }

    /// This convolution as one of a sequence, where it can be that.
    pub fn as_link(&self) -> Option<IntegerLink<'_>> {
        Some(IntegerLink { conv: self, codes: self.finish.codes()? })
    }

    fn convolve(
        &self,
        ctx: &RunCtx,
        x: &Tensor,
        sizes: Sizes,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut output = ctx.arena.tensor(self.finish.dtype(), sizes.output)?;
        if output.is_empty() {
            return Ok(output);
        }
        let values = int8(x, self.input.dtype)?;
        let input = self.input.of(values);
        let out = self.finish.output(&mut output, residual)?;
        conv2d_i8(*ctx.kernels, &sizes.plane, input, &self.weights, out);
        Ok(output)
    }
}

impl Kernel for IntegerConv {
    fn name(&self) -> String {
        let geometry = &self.geometry;
        let depthwise = geometry.groups > 1 && geometry.groups == geometry.in_c;
        format!("{}_{}", if depthwise { "dwconv" } else { "conv" }, self.finish.suffix())
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let residual = inputs.get(1).and_then(Option::as_ref);
        Ok(vec![self.convolve(ctx, x, self.sizes(x)?, residual)?])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        self.geometry.macs(outputs.first().map_or(0, Tensor::len))
    }

    fn integer_conv(&self) -> Option<&IntegerConv> {
        Some(self)
    }

    fn integer_conv_mut(&mut self) -> Option<&mut IntegerConv> {
        Some(self)
    }
}

/// A convolution from codes to codes, as one of a sequence.
#[derive(Clone, Copy)]
pub(crate) struct IntegerLink<'a> {
    conv: &'a IntegerConv,
    codes: &'a Codes,
}

impl<'a> IntegerLink<'a> {
    /// Type of the results.
    pub fn dtype(&self) -> DType {
        self.codes.dtype
    }

    /// Sizes for inputs of these types and shapes; `None` where this does not compute with such, or
    /// gives nothing.
    pub fn sizes(
        &self,
        (dtype, image): (DType, &[usize]),
        residual: Option<(DType, &[usize])>,
    ) -> Option<Sizes> {
        let sizes = self.conv.sizes_of(image).ok()?;
        let added = self.codes.residual.map(|added| (added.dtype, sizes.output.as_slice()));
        let fits = dtype == self.conv.input.dtype && residual == added && sizes.len() > 0;
        fits.then_some(sizes)
    }

    /// Whether results lie in planes of channels.
    pub fn writes_planes(&self) -> bool {
        self.conv.weights.writes_planes()
    }

    /// The kernels' view: images and a residual come from `places`, results go to `buffer`.
    pub fn link(
        &self,
        sizes: &'a Sizes,
        places: (Place, Option<Place>),
        buffer: usize,
    ) -> Link<'a> {
        let (from, residual) = places;
        let Input { dtype, zero_point } = self.conv.input;
        Link {
            shape: &sizes.plane,
            weights: &self.conv.weights,
            from,
            input: ConvInput { values: no_values(dtype), zero_point },
            to: self.codes.without_values(),
            residual,
            signed: self.codes.dtype == DType::I8,
            buffer,
        }
    }

    /// Multiply-accumulates.
    pub fn macs(&self, sizes: &Sizes) -> u64 {
        self.conv.geometry.macs(sizes.len())
    }
}

impl Sizes {
    /// Whether each result comes from one pixel.
    pub fn is_pointwise(&self) -> bool {
        self.plane.is_pointwise()
    }

    /// Number of results, which are bytes; 0 where they are too many.
    pub fn len(&self) -> usize {
        element_count(&self.output).unwrap_or(0)
    }
}
