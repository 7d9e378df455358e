//! Geometry of sliding windows: what `Conv`, `ConvTranspose` and the pools have in common.

use fewbit_core::{Dim, Error, Node, Result};

/// How padding is chosen (ONNX attribute `auto_pad`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AutoPad {
    Explicit,
    SameUpper,
    SameLower,
    Valid,
}

/// The window attributes of a node, one entry for each spatial axis.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub begin: Vec<usize>,
    pub end: Vec<usize>,
    pub auto_pad: AutoPad,
    pub ceil: bool,
}

/// Sizes beyond this cannot come from a sound model; below it all products fit.
const MAX_SIZE: i64 = 1 << 31;

impl Window {
    /// Reads the attributes of a node with the given kernel size (for `Conv`, that of the weight).
    ///
    /// # Errors
    /// When an attribute has another length, or a number that no window can have.
    pub fn new(node: &Node, kernel: &[usize]) -> Result<Window> {
        let rank = kernel.len();
        if let Some(declared) = node.ints("kernel_shape")?
            && (declared.len() != rank || declared.iter().zip(kernel).any(|(&a, &b)| a != b as i64))
        {
            return Err(Error::bad_input(format!(
                "kernel_shape is {declared:?}, but the weight has {kernel:?}"
            )));
        }
        if kernel.iter().any(|&k| k == 0 || k as i64 > MAX_SIZE) {
            return Err(Error::bad_input(format!(
                "kernel size {kernel:?}; each must be at least 1"
            )));
        }
        let mut begin = sizes(node, "pads", 2 * rank, 0, 0)?;
        let end = begin.split_off(rank);
        Ok(Window {
            kernel: kernel.to_vec(),
            strides: sizes(node, "strides", rank, 1, 1)?,
            dilations: sizes(node, "dilations", rank, 1, 1)?,
            begin,
            end,
            auto_pad: auto_pad(node)?,
            ceil: false,
        })
    }

    /// Reads the attributes of a pool, whose kernel size is an attribute.
    ///
    /// # Errors
    /// As [`new`](Window::new), or when `kernel_shape` is missing.
    pub fn of_pool(node: &Node) -> Result<Window> {
        if node.ints("kernel_shape")?.is_none() {
            return Err(Error::bad_input("attribute `kernel_shape` is missing"));
        }
        let rank = node.ints("kernel_shape")?.map_or(0, <[i64]>::len);
        let window = Window::new(node, &sizes(node, "kernel_shape", rank, 1, 1)?)?;
        Ok(Window { ceil: node.int("ceil_mode")?.unwrap_or(0) != 0, ..window })
    }

    /// The window that covers a plane once.
    pub fn whole(sizes: &[usize]) -> Window {
        let rank = sizes.len();
        Window {
            kernel: sizes.to_vec(),
            strides: vec![1; rank],
            dilations: vec![1; rank],
            begin: vec![0; rank],
            end: vec![0; rank],
            auto_pad: AutoPad::Explicit,
            ceil: false,
        }
    }

    /// Number of spatial axes.
    pub fn rank(&self) -> usize {
        self.kernel.len()
    }

    /// Elements between the first and the last tap, both included.
    pub fn reach(&self, axis: usize) -> usize {
        self.dilations[axis] * (self.kernel[axis] - 1) + 1
    }

    /// Padding before and after, for an input of `size` elements along `axis`.
    pub fn pads(&self, axis: usize, size: usize) -> (usize, usize) {
        let stride = self.strides[axis];
        let total = || {
            let outputs = size.div_ceil(stride);
            (outputs.saturating_sub(1) * stride + self.reach(axis)).saturating_sub(size)
        };
        match self.auto_pad {
            AutoPad::Explicit => (self.begin[axis], self.end[axis]),
            AutoPad::Valid => (0, 0),
            AutoPad::SameUpper => (total() / 2, total() - total() / 2),
            AutoPad::SameLower => (total() - total() / 2, total() / 2),
        }
    }

    /// Outputs along `axis`.
    ///
    /// # Errors
    /// When the window does not fit once.
    pub fn outputs(&self, axis: usize, size: usize) -> Result<usize> {
        let (begin, end) = self.pads(axis, size);
        let (reach, stride) = (self.reach(axis), self.strides[axis]);
        let ceil = self.ceil && self.auto_pad == AutoPad::Explicit;
        // With `ceil_mode`, the last window may hang over by less than a stride, be it the only one.
        let over = if ceil { stride - 1 } else { 0 };
        let Some(room) = (size + begin + end + over).checked_sub(reach) else {
            return Err(Error::bad_input(format!(
                "a window of {reach} does not fit {size} elements with padding {begin} and {end}"
            ))
            .code("FB-3210"));
        };
        let outputs = room / stride + 1;
        if !ceil {
            return Ok(outputs);
        }
        // A window that would start in the padding after the input is left out.
        Ok(if (outputs - 1) * stride >= size + begin { outputs - 1 } else { outputs })
    }

    /// Output sizes for all spatial axes.
    ///
    /// # Errors
    /// When the input has another rank or a window does not fit.
    pub fn output_sizes(&self, input: &[usize]) -> Result<Vec<usize>> {
        let mut sizes = Vec::with_capacity(input.len());
        self.extend_outputs(input, &mut sizes)?;
        Ok(sizes)
    }

    /// As [`output_sizes`](Window::output_sizes), behind what `sizes` has already.
    ///
    /// # Errors
    /// As [`output_sizes`](Window::output_sizes).
    pub fn extend_outputs(&self, input: &[usize], sizes: &mut Vec<usize>) -> Result<()> {
        if input.len() != self.rank() {
            return Err(Error::bad_input(format!(
                "{} spatial dimensions in the input, {} in the kernel",
                input.len(),
                self.rank()
            )));
        }
        if input.iter().any(|&size| size as i64 > MAX_SIZE) {
            return Err(Error::bad_input(format!("spatial size {input:?} is too large")));
        }
        for (axis, &size) in input.iter().enumerate() {
            sizes.push(self.outputs(axis, size)?);
        }
        Ok(())
    }

    /// Output dimensions as far as they are known.
    ///
    /// # Errors
    /// As [`output_sizes`](Window::output_sizes).
    pub fn output_dims(&self, input: &[Dim]) -> Result<Vec<Dim>> {
        if input.len() != self.rank() {
            return Err(Error::bad_input("the input has another rank than the kernel"));
        }
        let one = |(axis, dim): (usize, &Dim)| match dim.known() {
            Some(size) => self.outputs(axis, size).map(Dim::Known),
            None => Ok(Dim::Unknown),
        };
        input.iter().enumerate().map(one).collect()
    }
}

/// A list of sizes, or its default.
pub(crate) fn sizes(
    node: &Node,
    name: &str,
    len: usize,
    default: usize,
    least: i64,
) -> Result<Vec<usize>> {
    let Some(values) = node.ints(name)? else { return Ok(vec![default; len]) };
    if values.is_empty() && name == "pads" {
        return Ok(vec![default; len]);
    }
    let sound = |v: &i64| (least..=MAX_SIZE).contains(v);
    if values.len() != len || !values.iter().all(sound) {
        return Err(Error::bad_input(format!(
            "attribute `{name}` is {values:?}; {len} numbers of at least {least} are expected"
        ))
        .code("FB-3211"));
    }
    Ok(values.iter().map(|&v| v as usize).collect())
}

fn auto_pad(node: &Node) -> Result<AutoPad> {
    match node.string("auto_pad")?.unwrap_or("NOTSET") {
        "NOTSET" | "" => Ok(AutoPad::Explicit),
        "SAME_UPPER" => Ok(AutoPad::SameUpper),
        "SAME_LOWER" => Ok(AutoPad::SameLower),
        "VALID" => Ok(AutoPad::Valid),
        other => Err(Error::bad_input(format!("auto_pad `{other}` is not known"))),
    }
}
