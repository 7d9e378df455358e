//! Equality nearly as the runner of the suite has it.

use fewbit_core::Tensor;

const RELATIVE: f64 = 1e-3;

/// Ten times that of the runner: many expected values are computed where the tests run, and what
/// should be 0 differs with the processor.
const ABSOLUTE: f64 = 1e-6;

/// Equal element type and shape; equal values, where floats may differ by what the suite allows.
pub fn compare(found: &Tensor, expected: &Tensor) -> Result<(), String> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return Err(format!("found {found:?}, expected {expected:?}"));
    }
    if let (Some(found), Some(expected)) = (found.strings(), expected.strings()) {
        return first_difference(found, expected, |a, b| a == b);
    }
    if !found.dtype().is_float() {
        return first_difference(found.bytes(), expected.bytes(), |a, b| a == b);
    }
    let (found, expected) = (found.to_f64(), expected.to_f64());
    first_difference(&found.map_err(text)?, &expected.map_err(text)?, |&a, &b| close(a, b))
}

fn text(error: fewbit_core::Error) -> String {
    error.to_string()
}

fn close(found: f64, expected: f64) -> bool {
    found == expected
        || (found.is_nan() && expected.is_nan())
        || (found - expected).abs() <= ABSOLUTE + RELATIVE * expected.abs() && expected.is_finite()
}

fn first_difference<T: std::fmt::Debug>(
    found: &[T],
    expected: &[T],
    equal: impl Fn(&T, &T) -> bool,
) -> Result<(), String> {
    match found.iter().zip(expected).position(|(a, b)| !equal(a, b)) {
        None => Ok(()),
        Some(at) => Err(format!("[{at}] is {:?}, expected {:?}", found[at], expected[at])),
    }
}
