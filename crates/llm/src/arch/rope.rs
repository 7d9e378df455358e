//! Rotation of positions as the settings ask for it, with the ways to stretch it.

use crate::graph::{Long, Rotary};
use crate::source::{Settings, Weights};
use fewbit_core::{Error, Result, ResultExt};
use std::f64::consts::PI;

/// A base of rotation, checked.
fn theta(value: f64) -> Result<f64> {
    if value.is_finite() && value >= 1.0 {
        return Ok(value);
    }
    Err(Error::bad_input(format!("a rotation of base {value}")).code("FB-3705"))
}

/// Everything the settings say of rotation, in the layers that see the whole text.
pub(crate) fn scaling(settings: &Settings) -> Settings {
    // transformers 5 keeps it in one object, or in one for each kind of layer.
    let all = settings.object("rope_parameters").or_else(|| settings.object("rope_scaling"));
    let all = all.unwrap_or_default();
    all.object("full_attention").unwrap_or(all)
}

/// The way to stretch; `default` for none.
pub(crate) fn kind(scaling: &Settings) -> &str {
    scaling.text("rope_type").or_else(|| scaling.text("type")).unwrap_or("default")
}

/// The base of rotation, in the layers that see the whole text.
pub(crate) fn base(settings: &Settings) -> Result<f64> {
    theta(match scaling(settings).opt_number("rope_theta")? {
        Some(base) => base,
        None => settings.number_or("rope_theta", 10_000.0)?,
    })
}

/// The base of rotation in the layers that see a window.
pub(crate) fn local_base(settings: &Settings) -> Result<f64> {
    let layers = settings.object("rope_parameters").and_then(|all| all.object("sliding_attention"));
    theta(match layers.unwrap_or_default().opt_number("rope_theta")? {
        Some(base) => base,
        None => settings.number_or("rope_local_base_freq", 10_000.0)?,
    })
}

/// The rotation that the settings describe, for heads of `size` elements.
pub(super) fn rotary(settings: &Settings, weights: &dyn Weights, size: usize) -> Result<Rotary> {
    let scaling = scaling(settings);
    let base = base(settings)?;
    let rotary = plain(settings, size, base)?;
    let stretch = Stretch { settings, scaling: &scaling, base, rotary };
    let rotary = match kind(&scaling) {
        // `dynamic` changes the base in texts beyond the context only.
        "default" | "none" | "dynamic" => Ok(stretch.rotary),
        "linear" => stretch.linear(),
        "llama3" => stretch.llama3(),
        "yarn" => stretch.yarn(),
        "longrope" | "su" => stretch.long(weights),
        other => Err(Error::unsupported(format!("rotation of the kind `{other}`"))
            .code("FB-4706")
            .hint("known are default, linear, dynamic, llama3, yarn and longrope")),
    };
    divided(rotary.at(|| "rope_scaling")?, weights)
}

/// Unscaled rotation of a head, or of the part of it that is turned.
pub(super) fn plain(settings: &Settings, size: usize, base: f64) -> Result<Rotary> {
    let part = match scaling(settings).opt_number("partial_rotary_factor")? {
        Some(part) => part,
        None => settings.number_or("partial_rotary_factor", 1.0)?,
    };
    let turned = settings.size_or("rotary_dim", (size as f64 * part.clamp(0.0, 1.0)) as usize)?;
    if turned > size || turned == 0 || turned % 2 != 0 {
        let what = format!("{turned} of the {size} elements of a head are to be turned");
        return Err(Error::bad_input(what).code("FB-3705"));
    }
    let interleaved = settings.flag("rope_interleaved");
    Ok(Rotary { interleaved, ..Rotary::plain(turned, base) })
}

/// GGUF files of Llama 3 hold the divisors of the frequencies as a tensor.
fn divided(mut rotary: Rotary, weights: &dyn Weights) -> Result<Rotary> {
    let Some(divisors) = weights.get("rope_freqs.weight")? else { return Ok(rotary) };
    apply(&mut rotary, &divisors.tensor.to_f32()?).at(|| "tensor `rope_freqs.weight`")?;
    Ok(rotary)
}

fn apply(rotary: &mut Rotary, divisors: &[f32]) -> Result<()> {
    let sound = divisors.iter().all(|d| d.is_finite() && *d > 0.0);
    if divisors.len() != rotary.frequencies.len() || !sound {
        let what = format!("{} divisors for {} pairs", divisors.len(), rotary.frequencies.len());
        return Err(Error::bad_input(what).code("FB-3702"));
    }
    rotary.frequencies.iter_mut().zip(divisors).for_each(|(f, d)| *f /= d);
    Ok(())
}

struct Stretch<'a> {
    settings: &'a Settings,
    scaling: &'a Settings,
    base: f64,
    rotary: Rotary,
}

impl Stretch<'_> {
    /// All positions closer together (Chen et al. 2023).
    fn linear(mut self) -> Result<Rotary> {
        let factor = self.scaling.positive("factor")?;
        self.rotary.frequencies.iter_mut().for_each(|f| *f = (f64::from(*f) / factor) as f32);
        Ok(self.rotary)
    }

    /// Slow pairs stretched, fast ones kept (Llama 3.1).
    fn llama3(mut self) -> Result<Rotary> {
        let factor = self.scaling.positive("factor")?;
        let (low, high) =
            (self.scaling.positive("low_freq_factor")?, self.scaling.positive("high_freq_factor")?);
        let original = self.scaling.positive("original_max_position_embeddings")?;
        for f in &mut self.rotary.frequencies {
            let frequency = f64::from(*f);
            let length = 2.0 * PI / frequency;
            *f = if length < original / high {
                frequency
            } else if length > original / low {
                frequency / factor
            } else {
                let smooth = (original / length - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            } as f32;
        }
        Ok(self.rotary)
    }

    /// A ramp between stretched and kept pairs (Peng et al. 2023, "YaRN").
    fn yarn(mut self) -> Result<Rotary> {
        let factor = self.scaling.positive("factor")?;
        let context = self.settings.size_or("max_position_embeddings", 4096)? as f64;
        let original = self.scaling.number_or("original_max_position_embeddings", context)?;
        let size = 2.0 * self.rotary.frequencies.len() as f64;
        let pair =
            |turns: f64| size * (original / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln());
        let first = pair(self.scaling.number_or("beta_fast", 32.0)?).floor().max(0.0);
        let last = pair(self.scaling.number_or("beta_slow", 1.0)?).ceil().min(size - 1.0);
        for (i, f) in self.rotary.frequencies.iter_mut().enumerate() {
            let ramp = ((i as f64 - first) / (last - first).max(1e-3)).clamp(0.0, 1.0);
            let frequency = f64::from(*f);
            *f = (frequency / factor * ramp + frequency * (1.0 - ramp)) as f32;
        }
        let usual = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
        self.rotary.magnitude = self.scaling.number_or("attention_factor", usual)? as f32;
        Ok(self.rotary)
    }

    /// A divisor for each pair (Ding et al. 2024, "LongRoPE"), another one in texts beyond the
    /// context before.
    fn long(mut self, weights: &dyn Weights) -> Result<Rotary> {
        let context = self.settings.size_or("max_position_embeddings", 4096)?;
        let original = match self.scaling.opt_size("original_max_position_embeddings")? {
            Some(original) => original,
            None => self.settings.size_or("original_max_position_embeddings", context)?,
        };
        let (short, mut long) = (self.divisors("short", weights)?, self.rotary.clone());
        apply(&mut self.rotary, &short)?;
        if context > original {
            apply(&mut long, &self.divisors("long", weights)?)?;
            self.rotary.long = Some(Long { beyond: original, frequencies: long.frequencies });
        }
        let ratio = context as f64 / original.max(1) as f64;
        let usual = match ratio > 1.0 {
            true => (1.0 + ratio.ln() / (original.max(2) as f64).ln()).sqrt(),
            false => 1.0,
        };
        self.rotary.magnitude = self.scaling.number_or("attention_factor", usual)? as f32;
        Ok(self.rotary)
    }

    /// The divisors of texts of a kind, from the settings or a GGUF file.
    fn divisors(&self, kind: &str, weights: &dyn Weights) -> Result<Vec<f32>> {
        if let Some(list) = self.scaling.numbers(&format!("{kind}_factor"))? {
            return Ok(list.into_iter().map(|v| v as f32).collect());
        }
        match weights.get(&format!("rope_factors_{kind}.weight"))? {
            Some(stored) => stored.tensor.to_f32(),
            None => Err(Error::bad_input(format!("`{kind}_factor` is missing")).code("FB-3705")),
        }
    }
}
