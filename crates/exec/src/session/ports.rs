//! Inputs and outputs of a session, and the checks on what a caller gives.

use super::Port;
use fewbit_core::{AlignedBytes, Dim, Error, Graph, Result, Tensor, ValueId, ValueType};

pub(super) fn ports(graph: &Graph) -> (Vec<Port>, Vec<Port>) {
    let port = |id: ValueId| {
        let value = graph.value(id);
        Port { name: value.name.clone(), ty: value.ty.clone() }
    };
    let inputs = graph.required_inputs().map(port).collect();
    (inputs, graph.outputs().iter().copied().map(port).collect())
}

/// Brings the caller's tensors into the order of the ports.
pub(super) fn arrange(ports: &[Port], given: Vec<(&str, Tensor)>) -> Result<Vec<Tensor>> {
    for (index, (name, _)) in given.iter().enumerate() {
        if !ports.iter().any(|port| port.name == *name) {
            return Err(unexpected(ports, format!("the model has no input `{name}`")));
        }
        if given[..index].iter().any(|(other, _)| other == name) {
            return Err(unexpected(ports, format!("input `{name}` is given twice")));
        }
    }
    let mut given = given;
    let find = |port: &Port| match given.iter().position(|(name, _)| *name == port.name) {
        Some(index) => {
            // Moved, not cloned: a tensor that nobody else holds can be written in place.
            let (_, tensor) = given.swap_remove(index);
            port.check(&tensor).and_then(|()| aligned(tensor))
        }
        None => Err(unexpected(ports, format!("input `{}` is not given", port.name))),
    };
    ports.iter().map(find).collect()
}

/// Tensors read in place from a file may lie anywhere; kernels see whole elements.
fn aligned(tensor: Tensor) -> Result<Tensor> {
    let size = tensor.dtype().size().unwrap_or(1);
    if (tensor.bytes().as_ptr() as usize).is_multiple_of(size) {
        return Ok(tensor);
    }
    let bytes = AlignedBytes::copy_of(tensor.bytes());
    Tensor::from_bytes(tensor.dtype(), tensor.shape().to_vec(), bytes.into())
}

fn unexpected(ports: &[Port], what: String) -> Error {
    let list: Vec<String> = ports.iter().map(|p| format!("{} {}", p.name, p.ty)).collect();
    Error::usage(what).code("FB-2101").hint(format!("the inputs are: {}", list.join(", ")))
}

impl Port {
    /// Checks that a tensor is of this port's type, and of its shape as far as that is known.
    ///
    /// # Errors
    /// With what is wanted and what was found.
    pub fn check(&self, tensor: &Tensor) -> Result<()> {
        let fits_dtype = self.ty.dtype.is_none_or(|dtype| dtype == tensor.dtype());
        if fits_dtype && fits_shape(&self.ty, tensor.shape()) {
            return Ok(());
        }
        let message = format!("input `{}` must be {}, found {tensor:?}", self.name, self.ty);
        Err(Error::bad_input(message).code("FB-3204"))
    }
}

// Names of dimensions are not compared: exporters give one name to sizes that differ.
pub(super) fn fits_shape(ty: &ValueType, shape: &[usize]) -> bool {
    let Some(dims) = &ty.shape else { return true };
    let fits = |(dim, &size): (&Dim, &usize)| dim.known().is_none_or(|known| known == size);
    dims.len() == shape.len() && dims.iter().zip(shape).all(fits)
}
