//! How large the output is, and the scale of every axis.

use super::coordinates::Transform;
use super::is_old;
use crate::ops::params::{distinct_axes, size};
use fewbit_core::{Dim, Error, Node, Result, Tensor};

/// What a node asks for: scales or sizes of some axes.
#[derive(Debug)]
pub(super) struct Request {
    axes: Option<Vec<i64>>,
    goal: Goal,
    policy: Policy,
    roi: Vec<f64>,
}

#[derive(Debug)]
enum Goal {
    Scales(Vec<f32>),
    Sizes(Vec<usize>),
}

/// What `sizes` mean when they would distort (attribute `keep_aspect_ratio_policy`).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

/// One axis of a resize.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    pub scale: f64,
    /// Start and end of the region to crop, for `tf_crop_and_resize`.
    pub roi: (f64, f64),
}

/// All axes of a resize.
#[derive(Debug)]
pub(super) struct Plan {
    pub axes: Vec<Axis>,
}

impl Request {
    /// Reads attributes and, through `input`, the inputs of a node.
    pub fn of<'t>(
        node: &Node,
        opset: i64,
        input: &dyn Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<Request> {
        let filled = |i: usize| input(i).filter(|t| !t.is_empty());
        let policy = match node.string("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
            "stretch" => Policy::Stretch,
            "not_larger" => Policy::NotLarger,
            "not_smaller" => Policy::NotSmaller,
            other => {
                return Err(Error::bad_input(format!("unknown policy `{other}`"))
                    .at("attribute `keep_aspect_ratio_policy`"));
            }
        };
        let axes = node.ints("axes")?.map(<[i64]>::to_vec);
        let (scales, sizes, roi) = match is_old(node, opset) {
            true => (filled(1), None, None),
            false => (filled(2), filled(3), filled(1)),
        };
        let goal = match (node.floats("scales")?, scales, sizes) {
            (Some(scales), None, None) => Goal::Scales(scales.to_vec()),
            (None, Some(scales), None) => Goal::Scales(scales.to_f32()?),
            (None, None, Some(sizes)) => {
                let sizes = sizes.to_i64()?;
                Goal::Sizes(sizes.into_iter().map(|n| size(n, "a size")).collect::<Result<_>>()?)
            }
            _ => return Err(Error::bad_input("exactly one of scales and sizes must be given")),
        };
        if let Goal::Scales(scales) = &goal
            && let Some(scale) = scales.iter().find(|s| !s.is_finite() || **s <= 0.0)
        {
            return Err(Error::bad_input(format!("a scale is {scale}; scales are above 0")));
        }
        let roi = roi.map_or(Ok(Vec::new()), Tensor::to_f64)?;
        Ok(Request { axes, goal, policy, roi })
    }

    /// The axes that are resized, in the order of scales, sizes and regions.
    fn axes(&self, rank: usize) -> Result<Vec<usize>> {
        let axes = match &self.axes {
            Some(axes) => distinct_axes(axes, rank)?,
            None => (0..rank).collect(),
        };
        let given = match &self.goal {
            Goal::Scales(scales) => scales.len(),
            Goal::Sizes(sizes) => sizes.len(),
        };
        if given != axes.len() {
            return Err(Error::bad_input(format!(
                "{given} scales or sizes for {} axes",
                axes.len()
            )));
        }
        Ok(axes)
    }

    /// The region of the `i`-th resized axis of `count`.
    fn region(&self, i: usize, count: usize) -> (f64, f64) {
        match self.roi.len() == 2 * count {
            true => (self.roi[i], self.roi[i + count]),
            false => (0.0, 1.0),
        }
    }

    /// Sizes and scales of the resized axes.
    fn targets(&self, inputs: &[usize]) -> Result<Vec<(usize, f64)>> {
        match &self.goal {
            Goal::Scales(scales) => {
                inputs.iter().zip(scales).map(|(&n, &s)| Ok((scaled(n, s)?, s as f64))).collect()
            }
            Goal::Sizes(sizes) => Ok(self.fitted(inputs, sizes)),
        }
    }

    fn fitted(&self, inputs: &[usize], sizes: &[usize]) -> Vec<(usize, f64)> {
        let scale = |(&n, &size): (&usize, &usize)| size as f64 / n.max(1) as f64;
        let scales = inputs.iter().zip(sizes).map(scale);
        let common = match self.policy {
            Policy::Stretch => return sizes.iter().copied().zip(scales).collect(),
            Policy::NotLarger => scales.fold(f64::INFINITY, f64::min),
            Policy::NotSmaller => scales.fold(0.0, f64::max),
        };
        inputs.iter().map(|&n| ((common * n as f64 + 0.5).floor() as usize, common)).collect()
    }
}

/// The size an axis is scaled to, rounded down. The product is of single precision, so that
/// 10 times 0.7 is 7.
fn scaled(dim: usize, scale: f32) -> Result<usize> {
    let size = (dim as f32 * scale).floor();
    if size < i64::MAX as f32 {
        return Ok(size as usize);
    }
    Err(Error::bad_input(format!("an axis of {dim} scaled by {scale} is too large")))
}

impl Plan {
    /// The axes of a resize of a tensor of this shape.
    pub fn new(shape: &[usize], request: &Request) -> Result<Plan> {
        let identity = |&n: &usize| Axis { input: n, output: n, scale: 1.0, roi: (0.0, 1.0) };
        let mut all: Vec<Axis> = shape.iter().map(identity).collect();
        let axes = request.axes(shape.len())?;
        let inputs: Vec<usize> = axes.iter().map(|&a| shape[a]).collect();
        for (i, (output, scale)) in request.targets(&inputs)?.into_iter().enumerate() {
            let roi = request.region(i, axes.len());
            all[axes[i]] = Axis { input: inputs[i], output, scale, roi };
        }
        Ok(Plan { axes: all })
    }

    /// The output's shape.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.output).collect()
    }

    /// Whether every element stays where it is.
    pub fn is_identity(&self, transform: Transform) -> bool {
        self.axes.iter().all(|a| a.is_identity(transform))
    }
}

impl Axis {
    /// Whether elements stay where they are along this axis.
    pub fn is_identity(&self, transform: Transform) -> bool {
        let whole = transform != Transform::CropAndResize || self.roi == (0.0, 1.0);
        self.input == self.output && (self.scale - 1.0).abs() < 1e-9 && whole
    }
}

/// The output's dimensions as far as they are known.
pub(super) fn output_dims(dims: &[Dim], request: &Request) -> Result<Vec<Dim>> {
    if let Some(shape) = crate::ops::params::all_known(dims) {
        return Ok(crate::ops::params::fixed(&Plan::new(&shape, request)?.shape()));
    }
    let mut out = dims.to_vec();
    for (i, axis) in request.axes(dims.len())?.into_iter().enumerate() {
        let dim = &mut out[axis];
        *dim = match (&request.goal, dim.known()) {
            (Goal::Sizes(sizes), _) if request.policy == Policy::Stretch => Dim::Known(sizes[i]),
            (Goal::Scales(scales), Some(n)) => Dim::Known(scaled(n, scales[i])?),
            (Goal::Scales(scales), None) if scales[i] == 1.0 => dim.clone(),
            _ => Dim::Unknown,
        };
    }
    Ok(out)
}
