//! Flags that several commands share, and the texts they take.

use clap::{Args, ValueEnum};
use fewbit::formats::atomic::{OutputOptions, try_destination};
use fewbit::formats::gguf::PartLimits;
use fewbit::{Error, Mode, Result, Selector, estimate};
use fewbit::{Model, cores};
use std::path::{Path, PathBuf};

/// More threads than this are a slip of the finger.
const MAX_THREADS: usize = 1024;

/// How much of the machine a command may use, and what it prints.
#[derive(Args)]
pub struct Work {
    /// Print one JSON object (docs/json.md) instead of text
    #[arg(long)]
    pub json: bool,
    /// Threads; 0 takes all cores. Results do not depend on it
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub threads: usize,
    /// Refuse work that would take more memory than this, such as 1G or 512M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_memory: Option<u64>,
}

impl Work {
    /// Bounds single tensors, and refuses work that is known not to fit.
    ///
    /// # Errors
    /// With what the work would need, when that is more than allowed.
    pub fn check_memory(&self, models: &[&Model], shapes: &[(String, Vec<usize>)]) -> Result<()> {
        let Some(limit) = self.max_memory else {
            return Ok(());
        };
        let in_flight = if self.threads == 0 { cores() } else { self.threads };
        let mut need = 0u64;
        for model in models {
            need = need.saturating_add(estimate(model, shapes, in_flight)?.total);
        }
        if need <= limit {
            return Ok(());
        }
        let text = |n: u64| crate::ui::bytes(n);
        Err(Error::resource(format!(
            "needs about {}, --max-memory allows {}",
            text(need),
            text(limit)
        ))
        .code("FB-5101")
        .hint(format!(
            "allow {} or more, or run fewer samples at once with --threads 1",
            text(need)
        )))
    }

    /// Applies the limit to single tensors; call it before files are read.
    pub fn limit_tensors(&self) {
        if let Some(limit) = self.max_memory.and_then(|m| usize::try_from(m).ok()) {
            fewbit::set_max_tensor_bytes(limit.min(fewbit::max_tensor_bytes()));
        }
    }
}

/// How the meaning of a quantized graph is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ModeFlag {
    /// As if activations were not quantized
    Float,
    /// What the Q/DQ nodes say, in float
    Simulate,
    /// Integer kernels; float models run in float
    #[default]
    Integer,
}

impl From<ModeFlag> for Mode {
    fn from(flag: ModeFlag) -> Mode {
        match flag {
            ModeFlag::Float => Mode::Float,
            ModeFlag::Simulate => Mode::Simulate,
            ModeFlag::Integer => Mode::Integer,
        }
    }
}

/// Checks a destination before any work is done for it: not an input, not there already (unless
/// forced), and in a folder that can be written.
///
/// # Errors
/// When it could not be written later.
pub fn check_output(path: &Path, inputs: &[PathBuf], force: bool) -> Result<()> {
    let options =
        OutputOptions { inputs: inputs.to_vec(), keep_existing: !force, expected_bytes: 0 };
    try_destination(path, &options)
}

fn threads(text: &str) -> Result<usize, String> {
    let n: usize =
        text.parse().map_err(|_| "expected a whole number, 0 for all cores".to_string())?;
    if n > MAX_THREADS {
        return Err(format!("at most {MAX_THREADS}; this machine has {} cores", cores()));
    }
    Ok(n)
}

/// Into how many files a GGUF model is written.
#[derive(Args)]
pub struct Parts {
    /// GGUF files: write NAME-00001-of-0000N.gguf and so on, of at most this size each, such as
    /// 2G or 500M (units count by 1000, as in llama.cpp)
    #[arg(long, value_name = "SIZE", value_parser = part_size)]
    split_max_size: Option<u64>,
    /// GGUF files: write several files, of at most N tensors each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    split_max_tensors: Option<u32>,
}

impl Parts {
    /// What one file may hold.
    pub fn limits(&self) -> PartLimits {
        let tensors = self.split_max_tensors.map(|n| n as usize);
        PartLimits { bytes: self.split_max_size, tensors }
    }

    /// Refuses these flags for outputs that are no GGUF file.
    ///
    /// # Errors
    /// When one is given.
    pub fn refuse(&self) -> Result<()> {
        match (self.split_max_size, self.split_max_tensors) {
            (None, None) => Ok(()),
            (Some(_), _) => Err(not_gguf("--split-max-size")),
            (None, Some(_)) => Err(not_gguf("--split-max-tensors")),
        }
    }
}

fn not_gguf(flag: &str) -> Error {
    Error::usage(format!("{flag} is for GGUF files")).hint(
        "folders are written in files of at most 5 GB; an ONNX file has its weights beside it",
    )
}

/// `1G`, `512M`, `1.5GB`, `256MiB`, or bytes; units count by 1024.
fn size(text: &str) -> Result<u64, String> {
    bytes_of(text, 1024)
}

/// As [`size`], but units count by 1000.
fn part_size(text: &str) -> Result<u64, String> {
    bytes_of(text, 1000)
}

fn bytes_of(text: &str, unit_of: u64) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = (digits.trim(), text[digits.len()..].to_ascii_lowercase());
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(format!("unknown unit `{unit}`; use K, M, G or T")),
    };
    let value: f64 =
        number.parse().map_err(|_| "expected a size such as 1G or 512M".to_string())?;
    let bytes = value * unit_of.pow(power) as f64;
    if !(1.0..9e18).contains(&bytes) {
        return Err("expected a size of at least one byte, and less than 8 million T".to_string());
    }
    Ok(bytes as u64)
}

/// `1%`, `0.5`, `1 point`: percentage points.
pub fn points(text: &str) -> Result<f64, String> {
    let number = ["%", "points", "point", "pp"]
        .iter()
        .find_map(|unit| text.trim().strip_suffix(unit))
        .unwrap_or(text)
        .trim();
    let value: f64 =
        number.parse().map_err(|_| "expected percentage points such as 1% or 0.5".to_string())?;
    if !(0.0..=100.0).contains(&value) {
        return Err("expected 0 to 100 percentage points".to_string());
    }
    Ok(value)
}

/// `op=Conv,name=layer1.*,index=-1`; every part is optional.
pub fn selector(text: &str) -> Result<Selector, String> {
    let mut selector = Selector::default();
    for part in parts(text) {
        match part.split_once('=') {
            Some(("op", value)) => selector.op = Some(value.to_string()),
            Some(("name", value)) => selector.name = Some(value.to_string()),
            Some(("index", value)) => {
                let index = value.parse().map_err(|_| format!("`{value}` is no index"))?;
                selector.index = Some(index);
            }
            _ => return Err(format!("`{part}` is none of op=TYPE, name=PATTERN, index=N")),
        }
    }
    Ok(selector)
}

/// Splits at commas that begin a new key; names may hold others.
fn parts(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for piece in text.split(',') {
        let begins = ["op=", "name=", "index="].iter().any(|k| piece.starts_with(k));
        match parts.last_mut() {
            Some(last) if !begins => {
                last.push(',');
                last.push_str(piece);
            }
            _ => parts.push(piece.to_string()),
        }
    }
    parts
}

/// `NAME=1,3,224,224`.
pub fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.rsplit_once('=').ok_or("expected NAME=1,3,224,224")?;
    let dims: Result<Vec<usize>, _> = dims.split(',').map(|d| d.trim().parse()).collect();
    let dims = dims.map_err(|_| "expected sizes such as 1,3,224,224".to_string())?;
    Ok((name.to_string(), dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_points_take_their_usual_spellings() {
        assert_eq!(size("1G"), Ok(1 << 30));
        assert_eq!(size("1.5 KiB"), Ok(1536));
        assert_eq!(size("300MB"), Ok(300 << 20));
        assert_eq!((part_size("2G"), part_size("0.5 M")), (Ok(2_000_000_000), Ok(500_000)));
        for wrong in ["", "G", "-1G", "1X", "nan", "1e300T", "0"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for (text, value) in [("1%", 1.0), ("0.5", 0.5), ("1 point", 1.0), ("2 points", 2.0)] {
            assert_eq!(points(text), Ok(value), "{text}");
        }
        for wrong in ["-1", "nan", "inf", "101", "a", ""] {
            assert!(points(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn selectors_have_three_keys() {
        let s = selector("op=Conv,name=a,b*,index=-1").unwrap();
        assert_eq!(
            (s.op.as_deref(), s.name.as_deref(), s.index),
            (Some("Conv"), Some("a,b*"), Some(-1))
        );
        assert!(selector("Conv").is_err());
        assert!(selector("index=x").is_err());
    }

    #[test]
    fn shapes() {
        assert_eq!(shape("x:0=1,3"), Ok(("x:0".to_string(), vec![1, 3])));
        assert!(shape("x=1,-3").is_err());
        assert!(shape("1,3").is_err());
    }
}
