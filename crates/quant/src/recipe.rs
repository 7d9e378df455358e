//! Recipes: what the user wants, as data (TOML).

use fewbit_core::{DType, Error, Granularity, QuantScheme, Result};
use serde::{Deserialize, Serialize};
use serde::{Deserializer, Serializer, de};

/// Which family of quantization a recipe asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Weights and activations in integers, activation scales fixed by calibration.
    Static,
    /// Weights in integers, activation scales computed for every run (no calibration).
    Dynamic,
    /// Weights in few bits, activations in float.
    WeightOnly,
    /// All float32 tensors stored as float16.
    Fp16,
    /// All float32 weights stored as bfloat16.
    Bf16,
}

/// How calibration turns the observed values of a tensor into a range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "method", deny_unknown_fields)]
pub enum Calibration {
    /// Smallest and largest value seen.
    Minmax,
    /// Exponential moving average of the extremes of each sample.
    MovingAverage {
        /// Weight of the newest sample, 0..1.
        #[serde(default = "default_momentum")]
        momentum: f32,
    },
    /// The range that holds this share of all values.
    Percentile {
        /// Share in percent, for example 99.999.
        #[serde(default = "default_percentile")]
        percentile: f64,
    },
    /// The range with the smallest Kullback-Leibler divergence after quantization.
    Entropy,
    /// The range with the smallest mean squared error after quantization.
    Mse,
}

fn default_momentum() -> f32 {
    0.1
}

fn default_percentile() -> f64 {
    99.999
}

impl Calibration {
    /// Word used in reports and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Calibration::Minmax => "minmax",
            Calibration::MovingAverage { .. } => "moving-average",
            Calibration::Percentile { .. } => "percentile",
            Calibration::Entropy => "entropy",
            Calibration::Mse => "mse",
        }
    }

    /// The inverse of [`name`](Calibration::name), with default parameters.
    ///
    /// # Errors
    /// When there is no method of that name.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "minmax" => Calibration::Minmax,
            "moving-average" => Calibration::MovingAverage { momentum: default_momentum() },
            "percentile" => Calibration::Percentile { percentile: default_percentile() },
            "entropy" => Calibration::Entropy,
            "mse" => Calibration::Mse,
            _ => {
                return Err(Error::usage(format!("unknown calibration method `{name}`"))
                    .hint("use minmax, moving-average, percentile, entropy or mse"));
            }
        })
    }

    fn check(&self) -> Result<()> {
        let fault = match *self {
            Calibration::MovingAverage { momentum } if !(momentum > 0.0 && momentum <= 1.0) => {
                format!("momentum {momentum} is outside 0..1")
            }
            Calibration::Percentile { percentile }
                if !(percentile > 50.0 && percentile <= 100.0) =>
            {
                format!("percentile {percentile} is outside 50..100")
            }
            _ => return Ok(()),
        };
        Err(Error::usage(fault).at("calibration"))
    }
}

/// How a weight finds its scale and its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Scale from the largest magnitude, codes by rounding to nearest.
    Nearest,
    /// Scale with the smallest squared error, codes by rounding to nearest.
    Mse,
}

/// Nodes chosen by operator type, name pattern or index; all given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Operator type, such as `Conv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// Node name; `*` stands for any run of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Position among the nodes of that operator type (among all nodes without `op`);
    /// negative counts from the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
}

/// As `--keep-float` takes it: `op=Conv,name=head*,index=-1`.
impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            self.op.as_ref().map(|op| format!("op={op}")),
            self.name.as_ref().map(|name| format!("name={name}")),
            self.index.map(|index| format!("index={index}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(","))
    }
}

/// What to do with a model, independent of any particular one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name used in reports.
    #[serde(default = "default_name")]
    pub name: String,
    /// Family of quantization.
    pub method: Method,
    /// Scheme of activations.
    #[serde(default = "default_activations", with = "scheme_text")]
    pub activations: QuantScheme,
    /// Scheme of weights; `axis(0)` means the output-channel axis, wherever it is.
    #[serde(default = "default_weights", with = "scheme_text")]
    pub weights: QuantScheme,
    /// How activation ranges are found.
    #[serde(default = "default_calibration")]
    pub calibration: Calibration,
    /// How weight codes are found.
    #[serde(default = "default_rounding")]
    pub rounding: Rounding,
    /// Scale channels between layers so that their ranges agree (Nagel et al. 2019).
    #[serde(default)]
    pub equalize: bool,
    /// Take the mean error of quantized weights out of the bias (Nagel et al. 2019).
    #[serde(default)]
    pub bias_correction: bool,
    /// Nodes that stay in float.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_float: Vec<Selector>,
}

fn default_name() -> String {
    "custom".to_string()
}

fn default_activations() -> QuantScheme {
    QuantScheme::U8_TENSOR
}

fn default_weights() -> QuantScheme {
    QuantScheme::i8_weights(0)
}

fn default_calibration() -> Calibration {
    Calibration::Minmax
}

fn default_rounding() -> Rounding {
    Rounding::Nearest
}

/// The recipes that come with fewbit: name and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("int8", include_str!("../../../recipes/int8.toml")),
    ("int8-per-tensor", include_str!("../../../recipes/int8-per-tensor.toml")),
    ("int8-dynamic", include_str!("../../../recipes/int8-dynamic.toml")),
    ("int8-weights", include_str!("../../../recipes/int8-weights.toml")),
    ("int4-weights", include_str!("../../../recipes/int4-weights.toml")),
    ("fp16", include_str!("../../../recipes/fp16.toml")),
    ("bf16", include_str!("../../../recipes/bf16.toml")),
];

impl Recipe {
    /// A built-in recipe.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn built_in(name: &str) -> Result<Self> {
        match BUILT_IN.iter().find(|(n, _)| *n == name) {
            Some((_, text)) => Self::parse(text),
            None => {
                let names: Vec<&str> = BUILT_IN.iter().map(|(n, _)| *n).collect();
                Err(Error::usage(format!("unknown recipe `{name}`")).hint(format!(
                    "built-in recipes: {}; or give the path of a .toml file",
                    names.join(", ")
                )))
            }
        }
    }

    /// Reads a recipe from TOML.
    ///
    /// # Errors
    /// With line and column when the text is no recipe, or a value makes no sense.
    pub fn parse(text: &str) -> Result<Self> {
        let recipe: Recipe =
            toml::from_str(text).map_err(|e| Error::usage(e.to_string()).at("recipe"))?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The recipe as TOML.
    ///
    /// # Errors
    /// Never for a recipe that was parsed or built in.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal(e.to_string()))
    }

    /// Whether activation ranges have to be calibrated.
    pub fn needs_calibration(&self) -> bool {
        self.method == Method::Static
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> Result<()> {
        self.calibration.check()?;
        let int8 = |d: DType| matches!(d, DType::I8 | DType::U8);
        if self.method == Method::Static && !int8(self.activations.storage) {
            return Err(Error::usage(format!(
                "activations are stored as u8 or i8, not {}",
                self.activations.storage
            )));
        }
        if self.activations.granularity != Granularity::Tensor {
            return Err(Error::usage("activations have one scale for the tensor").at("activations"));
        }
        let blocked = matches!(self.weights.granularity, Granularity::Block { .. });
        if blocked && self.method != Method::WeightOnly {
            return Err(Error::usage("blocked weights need method = \"weight-only\"").at("weights"));
        }
        let weight_ok = match self.method {
            Method::Static | Method::Dynamic => self.weights.storage == DType::I8,
            Method::WeightOnly => {
                int8(self.weights.storage) || matches!(self.weights.storage, DType::I4 | DType::U4)
            }
            Method::Fp16 | Method::Bf16 => true,
        };
        if !weight_ok {
            return Err(Error::usage(format!(
                "weights of type {} do not go with this method",
                self.weights.storage
            ))
            .at("weights")
            .hint("static and dynamic take i8; weight-only takes i8, u8, i4, u4"));
        }
        Ok(())
    }
}

/// Schemes in their text form.
pub(crate) mod scheme_text {
    use super::*;

    pub fn serialize<S: Serializer>(scheme: &QuantScheme, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(scheme)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<QuantScheme, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(|e: Error| de::Error::custom(e.what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_recipes_parse_and_round_trip() {
        for (name, _) in BUILT_IN {
            let recipe = Recipe::built_in(name).unwrap();
            assert_eq!(recipe.name, *name);
            assert_eq!(Recipe::parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for text in [
            "method = \"static\"\nactivations = \"i4:tensor:sym\"",
            "method = \"static\"\nweights = \"i4:block(1,32):sym\"",
            "method = \"static\"\nunknown = 1",
            "method = \"static\"\n[calibration]\nmethod = \"percentile\"\npercentile = 10.0",
        ] {
            assert!(Recipe::parse(text).is_err(), "{text}");
        }
    }
}
