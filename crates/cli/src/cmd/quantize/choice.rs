//! Flags that say what to quantize and how, shared by `quantize` and `plan`.

use crate::flags::selector;
use clap::ValueEnum;
use fewbit::{
    Calibration, DType, Error, Method, Plan, QuantScheme, Recipe, Result, Selector, Target,
};

#[derive(clap::Args)]
pub struct Choice {
    /// A built-in recipe (int8, int8-per-tensor, int8-dynamic, int8-weights, int4-weights, fp16, bf16) or a .toml file
    /// [default: int8]
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    /// What the model will run on: fewbit, onnxruntime, openvino, tensorrt, or a .toml file
    /// [default: fewbit]
    #[arg(long, value_name = "NAME|FILE")]
    target: Option<String>,
    /// Leave nodes in float: op=TYPE, name=PATTERN, index=N, joined by commas; repeatable
    #[arg(long, value_name = "SELECTOR", value_parser = selector)]
    keep_float: Vec<Selector>,
    /// How activation ranges are found
    #[arg(long, value_enum)]
    calibration: Option<CalibrationFlag>,
    /// One scale for a whole weight instead of one for each output channel
    #[arg(long)]
    per_tensor: bool,
    /// Activation ranges symmetric around zero
    #[arg(long)]
    symmetric: bool,
    /// Storage of activations
    #[arg(long, value_enum)]
    activations: Option<ActivationFlag>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CalibrationFlag {
    Minmax,
    MovingAverage,
    Percentile,
    Entropy,
    Mse,
}

#[derive(Clone, Copy, ValueEnum)]
enum ActivationFlag {
    U8,
    I8,
}

impl Choice {
    /// The recipe with what other flags change in it.
    ///
    /// # Errors
    /// When there is no such recipe, or the changes contradict it.
    pub fn recipe(&self) -> Result<Recipe> {
        let mut recipe = fewbit::recipe(self.recipe.as_deref().unwrap_or("int8"))?;
        recipe.keep_float.extend(self.keep_float.iter().cloned());
        if let Some(method) = self.calibration {
            let name =
                method.to_possible_value().map_or(String::new(), |v| v.get_name().to_string());
            recipe.calibration = Calibration::named(&name)?;
        }
        if self.per_tensor {
            recipe.weights.granularity = fewbit::Granularity::Tensor;
        }
        self.change_activations(&mut recipe.activations);
        self.refuse_idle(&recipe)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The target that the flags name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn target(&self) -> Result<Target> {
        fewbit::target(self.target.as_deref().unwrap_or("fewbit"))
    }

    /// The target that a plan was made for: a built-in one, or the one that the flag names.
    ///
    /// # Errors
    /// When there is none of that name, or the flag names another one.
    pub fn target_of(&self, plan: &Plan) -> Result<Target> {
        let Some(flag) = &self.target else {
            return fewbit::target(&plan.target).map_err(|e| {
                let known = e.advice().unwrap_or_default().to_string();
                e.hint(format!("{known}, with --target FILE as for the plan"))
            });
        };
        let target = fewbit::target(flag)?;
        if target.name != plan.target {
            let what = format!("the plan is for `{}`, --target is `{}`", plan.target, target.name);
            return Err(Error::usage(what).hint("make a plan for this target, or leave it out"));
        }
        Ok(target)
    }

    /// What to add to a command that runs a plan made with these flags.
    pub fn target_flag(&self) -> String {
        self.target.as_ref().map_or(String::new(), |target| format!(" --target {target}"))
    }

    /// The first of these flags that is given.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [
            (self.recipe.is_some(), "--recipe"),
            (self.target.is_some(), "--target"),
            (!self.keep_float.is_empty(), "--keep-float"),
            (self.calibration.is_some(), "--calibration"),
            (self.per_tensor, "--per-tensor"),
            (self.symmetric, "--symmetric"),
            (self.activations.is_some(), "--activations"),
        ];
        flags.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }

    fn change_activations(&self, scheme: &mut QuantScheme) {
        if let Some(storage) = self.activations {
            scheme.storage = match storage {
                ActivationFlag::U8 => DType::U8,
                ActivationFlag::I8 => DType::I8,
            };
        }
        if self.symmetric {
            scheme.zero_point = fewbit::ZeroPoint::Symmetric;
            // Codes around 0 are what engines without zero points take.
            if self.activations.is_none() {
                scheme.storage = DType::I8;
            }
        }
    }

    /// Flags about activations have no effect where activations stay in float.
    fn refuse_idle(&self, recipe: &Recipe) -> Result<()> {
        let given = [
            (self.calibration.is_some(), "--calibration"),
            (self.symmetric, "--symmetric"),
            (self.activations.is_some(), "--activations"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, flag)) if recipe.method != Method::Static => Err(Error::usage(format!(
                "{flag} has no effect with recipe `{}`, which does not calibrate activations",
                recipe.name
            ))
            .hint("leave it out, or choose a static recipe such as int8")),
            _ if self.per_tensor && matches!(recipe.method, Method::Fp16 | Method::Bf16) => Err(
                Error::usage(format!("--per-tensor has no effect with recipe `{}`", recipe.name)),
            ),
            _ => Ok(()),
        }
    }
}
