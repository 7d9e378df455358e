//! Watching values while a session runs.

use crate::plan::permute;
use fewbit_core::{Result, Tensor};
use fewbit_kernels::Ctx;

/// A value seen while a session runs.
pub struct TapEvent<'a> {
    /// Name of the value.
    pub name: &'a str,
    /// Its elements. The order of dimensions is that of memory; see `channels_last`.
    pub tensor: &'a Tensor,
    /// Whether a `[N,C,...]` value is stored as `[N,...,C]`. Statistics over all elements need
    /// not care.
    pub channels_last: bool,
    /// For work on the value with the session's own threads.
    pub kernels: &'a Ctx<'a>,
}

impl TapEvent<'_> {
    /// The value with its dimensions in the order of the ONNX graph; shares the bytes where
    /// that is the order of memory already.
    ///
    /// # Errors
    /// When there is no memory for the copy.
    pub fn to_onnx_layout(&self) -> Result<Tensor> {
        if !self.channels_last {
            return Ok(self.tensor.clone());
        }
        permute::to_default(self.tensor)
    }
}

/// Called for each tapped value, in the order of execution.
pub type Tap<'t> = dyn FnMut(&TapEvent) -> Result<()> + 't;
