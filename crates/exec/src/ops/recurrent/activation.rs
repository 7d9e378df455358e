//! The activation functions that recurrent layers choose from by name.

use fewbit_core::{Error, Node, Result};
use fewbit_kernels::elementwise::Unary;
use fewbit_kernels::recurrent::Function;

/// Name, function of alpha and beta, and the defaults of those that it has.
type Row = (&'static str, fn(f32, f32) -> Unary, Option<f32>, Option<f32>);

const KINDS: [Row; 11] = [
    ("affine", |alpha, beta| Unary::Affine { alpha, beta }, Some(1.0), Some(0.0)),
    ("elu", |alpha, _| Unary::Elu { alpha }, Some(1.0), None),
    ("hardsigmoid", |alpha, beta| Unary::HardSigmoid { alpha, beta }, Some(0.2), Some(0.5)),
    ("leakyrelu", |alpha, _| Unary::LeakyRelu { alpha }, Some(0.01), None),
    ("relu", |_, _| Unary::Relu, None, None),
    ("scaledtanh", |alpha, beta| Unary::ScaledTanh { alpha, beta }, Some(1.0), Some(1.0)),
    ("sigmoid", |_, _| Unary::Sigmoid, None, None),
    ("softplus", |_, _| Unary::Softplus, None, None),
    ("softsign", |_, _| Unary::Softsign, None, None),
    ("tanh", |_, _| Unary::Tanh, None, None),
    ("thresholdedrelu", |alpha, _| Unary::ThresholdedRelu { alpha }, Some(1.0), None),
];

/// The functions of a node, those of the first direction first.
///
/// # Errors
/// When one is unknown, or their number is not that of the defaults for each direction.
pub(super) fn activations(
    node: &Node,
    defaults: &[&str],
    directions: usize,
) -> Result<Vec<Function>> {
    let clip = node.float("clip")?.unwrap_or(f32::INFINITY);
    let mut alphas = node.floats("activation_alpha")?.unwrap_or_default().iter();
    let mut betas = node.floats("activation_beta")?.unwrap_or_default().iter();
    let mut found = Vec::new();
    for name in names(node, defaults, directions)? {
        let &(_, of, alpha, beta) = row(&name)?;
        let next = |default: Option<f32>, given: &mut std::slice::Iter<f32>| match default {
            Some(default) => given.next().copied().unwrap_or(default),
            None => 0.0,
        };
        let (alpha, beta) = (next(alpha, &mut alphas), next(beta, &mut betas));
        found.push(Function { of: of(alpha, beta), clip });
    }
    Ok(found)
}

fn names(node: &Node, defaults: &[&str], directions: usize) -> Result<Vec<String>> {
    let count = defaults.len() * directions;
    let names = match node.attr("activations") {
        Some(fewbit_core::Attr::Strings(names)) => {
            names.iter().map(|name| String::from_utf8_lossy(name).to_lowercase()).collect()
        }
        _ => defaults.repeat(directions).iter().map(|name| name.to_string()).collect(),
    };
    let names: Vec<String> = names;
    match names.len() == count {
        true => Ok(names),
        false => Err(Error::bad_input(format!("{} activations; {count} are needed", names.len()))),
    }
}

fn row(name: &str) -> Result<&'static Row> {
    KINDS.iter().find(|row| row.0 == name).ok_or_else(|| {
        let allowed: Vec<&str> = KINDS.iter().map(|row| row.0).collect();
        Error::bad_input(format!("activation `{name}`; allowed: {}", allowed.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbit_core::Attr;

    #[test]
    fn parameters_go_to_the_functions_that_have_them() {
        let names = ["Sigmoid", "LeakyRelu", "ScaledTanh"].map(|name| name.as_bytes().to_vec());
        let node = Node::new("LSTM", "", &[], &[])
            .with("activations", Attr::Strings(names.to_vec()))
            .with("activation_alpha", Attr::Floats(vec![0.5, 2.0]));
        let found = activations(&node, &["sigmoid", "tanh", "tanh"], 1).unwrap();
        assert_eq!(found[1].of, Unary::LeakyRelu { alpha: 0.5 });
        assert_eq!(found[2].of, Unary::ScaledTanh { alpha: 2.0, beta: 1.0 });
        assert!(activations(&node, &["sigmoid"], 1).is_err());
    }
}
