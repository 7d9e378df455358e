//! Targets: what an engine or device can run, as data (TOML).

use fewbit_core::{DType, Error, Granularity, QuantScheme, Result, ZeroPoint};
use serde::{Deserialize, Serialize};

/// Limits of an engine that decide how a model must be quantized for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name used on the command line and in reports.
    pub name: String,
    /// One line on what it is.
    pub description: String,
    /// Storage types of activations that run on integers, best first.
    pub activations: Vec<String>,
    /// Whether activations may have a zero point.
    pub asymmetric_activations: bool,
    /// Whether weights may have a scale for each output channel.
    pub per_channel_weights: bool,
    /// Whether a bias is stored as int32 codes (otherwise as float).
    pub int32_bias: bool,
    /// Operators that run on integers; others stay in float.
    pub operators: Vec<String>,
}

/// The targets that come with fewbit: name and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("fewbit", include_str!("../../../targets/fewbit.toml")),
    ("onnxruntime", include_str!("../../../targets/onnxruntime.toml")),
    ("openvino", include_str!("../../../targets/openvino.toml")),
    ("tensorrt", include_str!("../../../targets/tensorrt.toml")),
];

impl Target {
    /// A built-in target.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn built_in(name: &str) -> Result<Self> {
        match BUILT_IN.iter().find(|(n, _)| *n == name) {
            Some((_, text)) => Self::parse(text),
            None => {
                let names: Vec<&str> = BUILT_IN.iter().map(|(n, _)| *n).collect();
                Err(Error::usage(format!("unknown target `{name}`")).hint(format!(
                    "built-in targets: {}; or give the path of a .toml file",
                    names.join(", ")
                )))
            }
        }
    }

    /// Reads a target from TOML.
    ///
    /// # Errors
    /// With line and column when the text is no target.
    pub fn parse(text: &str) -> Result<Self> {
        let target: Target =
            toml::from_str(text).map_err(|e| Error::usage(e.to_string()).at("target"))?;
        for name in &target.activations {
            match name.parse::<DType>()? {
                DType::U8 | DType::I8 => {}
                other => {
                    return Err(Error::usage(format!("activations cannot be {other}")).at("target"));
                }
            }
        }
        Ok(target)
    }

    /// Whether the target computes this operator on integers.
    pub fn runs(&self, op: &str) -> bool {
        self.operators.iter().any(|o| o == op)
    }

    /// Bends the activation scheme of a recipe to what the target takes; the second part says
    /// what was changed and is empty when nothing was.
    ///
    /// # Errors
    /// When the target takes no integer activations at all.
    pub fn fit_activations(&self, wanted: QuantScheme) -> Result<(QuantScheme, String)> {
        let mut scheme = wanted;
        let mut changes = Vec::new();
        if !self.activations.iter().any(|a| *a == wanted.storage.to_string()) {
            let first = self.activations.first().ok_or_else(|| {
                Error::unsupported(format!("target {} takes no integer activations", self.name))
            })?;
            scheme.storage = first.parse()?;
            changes.push(format!("stored as {}", scheme.storage));
        }
        if !self.asymmetric_activations && scheme.zero_point == ZeroPoint::Asymmetric {
            scheme.zero_point = ZeroPoint::Symmetric;
            changes.push("symmetric".to_string());
        }
        Ok((scheme, self.changes(changes)))
    }

    /// Bends the weight scheme of a recipe to what the target takes, as
    /// [`fit_activations`](Target::fit_activations).
    pub fn fit_weights(&self, wanted: QuantScheme) -> (QuantScheme, String) {
        let per_channel = matches!(wanted.granularity, Granularity::Axis(_));
        if per_channel && !self.per_channel_weights {
            let scheme = QuantScheme { granularity: Granularity::Tensor, ..wanted };
            return (scheme, self.changes(vec!["one scale for the tensor".to_string()]));
        }
        (wanted, String::new())
    }

    fn changes(&self, list: Vec<String>) -> String {
        if list.is_empty() {
            String::new()
        } else {
            format!("{} for {}", list.join(", "), self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_targets_parse() {
        for (name, _) in BUILT_IN {
            assert_eq!(Target::built_in(name).unwrap().name, *name);
        }
    }

    #[test]
    fn tensorrt_bends_a_recipe_to_signed_and_symmetric() {
        let target = Target::built_in("tensorrt").unwrap();
        let (scheme, why) = target.fit_activations(QuantScheme::U8_TENSOR).unwrap();
        assert_eq!(scheme, QuantScheme::I8_TENSOR);
        assert_eq!(why, "stored as i8, symmetric for tensorrt");
    }
}
