//! The activation functions that recurrent layers choose from by name.

use fewbit_core::{Error, Node, Result};
use fewbit_kernels::math;

/// A function and its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Activation {
    kind: Kind,
    alpha: f32,
    beta: f32,
    /// Inputs are clipped to this distance from 0.
    clip: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Affine,
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    ScaledTanh,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu,
}

/// Name, kind, and the defaults of alpha and beta where the function has them.
type Row = (&'static str, Kind, Option<f32>, Option<f32>);

const KINDS: [Row; 11] = [
    ("affine", Kind::Affine, Some(1.0), Some(0.0)),
    ("elu", Kind::Elu, Some(1.0), None),
    ("hardsigmoid", Kind::HardSigmoid, Some(0.2), Some(0.5)),
    ("leakyrelu", Kind::LeakyRelu, Some(0.01), None),
    ("relu", Kind::Relu, None, None),
    ("scaledtanh", Kind::ScaledTanh, Some(1.0), Some(1.0)),
    ("sigmoid", Kind::Sigmoid, None, None),
    ("softplus", Kind::Softplus, None, None),
    ("softsign", Kind::Softsign, None, None),
    ("tanh", Kind::Tanh, None, None),
    ("thresholdedrelu", Kind::ThresholdedRelu, Some(1.0), None),
];

impl Activation {
    pub fn apply(self, x: f32) -> f32 {
        let x = math::clip(x, -self.clip, self.clip);
        let (alpha, beta) = (self.alpha, self.beta);
        match self.kind {
            Kind::Affine => alpha * x + beta,
            Kind::Elu => math::elu(x, alpha),
            Kind::HardSigmoid => math::hard_sigmoid(x, alpha, beta),
            Kind::LeakyRelu => x * if x < 0.0 { alpha } else { 1.0 },
            Kind::Relu => math::max(x, 0.0),
            Kind::ScaledTanh => alpha * math::tanh(beta * x),
            Kind::Sigmoid => math::sigmoid(x),
            Kind::Softplus => math::softplus(x),
            Kind::Softsign => math::softsign(x),
            Kind::Tanh => math::tanh(x),
            Kind::ThresholdedRelu => x * f32::from(x > alpha),
        }
    }
}

/// The functions of a node, those of the first direction first.
///
/// # Errors
/// When one is unknown, or their number is not that of the defaults for each direction.
pub(super) fn activations(
    node: &Node,
    defaults: &[&str],
    directions: usize,
) -> Result<Vec<Activation>> {
    let clip = node.float("clip")?.unwrap_or(f32::INFINITY);
    let mut alphas = node.floats("activation_alpha")?.unwrap_or_default().iter();
    let mut betas = node.floats("activation_beta")?.unwrap_or_default().iter();
    let mut found = Vec::new();
    for name in names(node, defaults, directions)? {
        let &(_, kind, alpha, beta) = row(&name)?;
        let next = |default: Option<f32>, given: &mut std::slice::Iter<f32>| match default {
            Some(default) => given.next().copied().unwrap_or(default),
            None => 0.0,
        };
        let (alpha, beta) = (next(alpha, &mut alphas), next(beta, &mut betas));
        found.push(Activation { kind, alpha, beta, clip });
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
        assert_eq!(found[1].apply(-4.0), -2.0);
        assert_eq!((found[2].alpha, found[2].beta), (2.0, 1.0));
        assert!(activations(&node, &["sigmoid"], 1).is_err());
    }
}
