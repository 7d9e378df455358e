//! Data cards: a small TOML file that says where samples are and how one becomes a model input.

use super::file::{read_limited, show};
use super::spelling;
use fewbit_core::{Error, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Cards are written by hand; a longer one is something else.
const MAX_CARD_BYTES: u64 = 1 << 20;
/// Largest `resize` and `crop`, in pixels.
const MAX_SIDE: u32 = 16_384;

const CARD_KEYS: &[&str] = &["path", "task", "x", "y", "separator", "input"];
const INPUT_KEYS: &[&str] = &[
    "resize",
    "interpolation",
    "crop",
    "channels",
    "scale",
    "mean",
    "std",
    "zero_point",
    "multiply",
    "stored",
    "layout",
];

/// What is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One class of several: top-1, top-5.
    Classify,
    /// Numbers: mean squared error, cosine.
    Regress,
    /// No labels: agreement with the float model only.
    None,
    /// Sentence pairs: rank correlation of cosine and score.
    Similarity,
    /// Text: perplexity.
    Perplexity,
}

impl Task {
    const NAMES: &[&str] = &["classify", "regress", "none", "similarity", "perplexity"];

    /// The name used in cards and reports.
    pub fn name(self) -> &'static str {
        Task::NAMES[self as usize]
    }

    /// Refuses the tasks of language models, whose data is a [`Corpus`](super::Corpus).
    pub(crate) fn supported(self) -> Result<Task> {
        if !matches!(self, Task::Similarity | Task::Perplexity) {
            return Ok(self);
        }
        let error =
            Error::unsupported(format!("the task `{}` needs a language model", self.name()));
        let hint = "give `fewbit eval` a folder with config.json, or a GGUF file";
        Err(error.code("FB-4301").at("task").hint(hint))
    }
}

/// How [`InputSteps::resize`] interpolates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Nearest pixel.
    Nearest,
    /// Triangle filter, widened when shrinking.
    Bilinear,
    /// Keys' cubic with a = -0.5, widened when shrinking.
    #[default]
    Bicubic,
}

/// Colour channels that the model expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Channels {
    /// Red, green, blue.
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue, green, red.
    #[serde(rename = "BGR")]
    Bgr,
    /// One channel, the luma of ITU-R BT.601.
    #[serde(rename = "L")]
    Luma,
}

/// Where the channels of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Layout {
    /// One plane per channel.
    #[serde(rename = "NCHW")]
    Nchw,
    /// Channels side by side.
    #[serde(rename = "NHWC")]
    Nhwc,
}

/// One number for all channels, or one each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
pub enum PerChannel {
    /// The same for every channel.
    All(f64),
    /// One per channel.
    Each(Vec<f64>),
}

impl PerChannel {
    /// The numbers; one means all channels.
    pub fn values(&self) -> &[f64] {
        match self {
            PerChannel::All(v) => std::slice::from_ref(v),
            PerChannel::Each(list) => list,
        }
    }
}

/// The `[input]` steps, applied to every sample in the order of these fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputSteps {
    /// Length of the shorter side in pixels; the longer one keeps the aspect ratio, rounded down.
    pub resize: Option<u32>,
    /// How `resize` interpolates; bicubic unless given.
    pub interpolation: Option<Interpolation>,
    /// Side of the square cut from the centre, in pixels.
    pub crop: Option<u32>,
    /// Channels the model expects. Image files give RGB unless given.
    pub channels: Option<Channels>,
    /// Every value is divided by this.
    pub scale: Option<f64>,
    /// Subtracted, per channel, after `scale`.
    pub mean: Option<PerChannel>,
    /// Divided by, per channel, after `mean`.
    pub std: Option<PerChannel>,
    /// For stored integers: real value = (x - zero_point) * multiply.
    pub zero_point: Option<i64>,
    /// For stored integers: the step between two of them.
    pub multiply: Option<f64>,
    /// Layout of the stored arrays, where their shape does not tell.
    pub stored: Option<Layout>,
    /// Layout that the model expects; as stored unless given.
    pub layout: Option<Layout>,
}

impl InputSteps {
    /// Whether any step works on pixels.
    pub fn has_pixel_steps(&self) -> bool {
        self.resize.is_some() || self.crop.is_some() || self.channels.is_some()
    }

    /// Whether any step computes with numbers; samples are `f32` then, as stored otherwise.
    pub fn has_numeric_steps(&self) -> bool {
        self.scale.is_some()
            || self.mean.is_some()
            || self.std.is_some()
            || self.zero_point.is_some()
            || self.multiply.is_some()
    }

    /// Checks the values against each other and against what arithmetic allows.
    ///
    /// # Errors
    /// `FB-3303`, at the key.
    pub fn validate(&self) -> Result<()> {
        side("resize", self.resize)?;
        side("crop", self.crop)?;
        nonzero("scale", self.scale.as_ref().map(std::slice::from_ref))?;
        nonzero("multiply", self.multiply.as_ref().map(std::slice::from_ref))?;
        nonzero("std", self.std.as_ref().map(PerChannel::values))?;
        finite("mean", self.mean.as_ref().map(PerChannel::values))?;
        if self.interpolation.is_some() && self.resize.is_none() {
            return Err(value("interpolation", "has no effect without `resize`"));
        }
        let normalizes = self.scale.is_some() || self.mean.is_some() || self.std.is_some();
        if normalizes && (self.zero_point.is_some() || self.multiply.is_some()) {
            let what = "`zero_point` and `multiply` exclude `scale`, `mean` and `std`";
            return Err(value("zero_point", what));
        }
        Ok(())
    }
}

fn value(key: &str, what: &str) -> Error {
    Error::bad_input(what).code("FB-3303").at(format!("`{key}`")).at("[input]")
}

fn side(key: &str, side: Option<u32>) -> Result<()> {
    match side {
        Some(s) if s == 0 || s > MAX_SIDE => {
            Err(value(key, &format!("{s} pixels; allowed are 1 to {MAX_SIDE}")))
        }
        _ => Ok(()),
    }
}

fn finite(key: &str, values: Option<&[f64]>) -> Result<()> {
    let Some(values) = values else { return Ok(()) };
    if values.is_empty() {
        return Err(value(key, "the list is empty"));
    }
    // The arithmetic is in f32, so the number must exist there too.
    match values.iter().find(|v| !(**v as f32).is_finite()) {
        Some(v) => Err(value(key, &format!("{v} is not a finite f32 number"))),
        None => Ok(()),
    }
}

fn nonzero(key: &str, values: Option<&[f64]>) -> Result<()> {
    finite(key, values)?;
    match values.unwrap_or_default().iter().find(|v| **v as f32 == 0.0) {
        Some(v) => Err(value(key, &format!("{v} is no divisor or factor"))),
        None => Ok(()),
    }
}

/// A data card.
///
/// ```toml
/// path = "photos"            # relative to the card
/// task = "classify"          # classify, regress, none; for language models perplexity, similarity
/// [input]                    # every step is optional; the order is always this one
/// resize = 256               # shorter side; interpolation = "bicubic" | "bilinear" | "nearest"
/// crop   = 224               # square from the centre
/// channels = "RGB"           # or "BGR", "L"
/// scale  = 255.0             # divide
/// mean   = [0.485, 0.456, 0.406]
/// std    = [0.229, 0.224, 0.225]
/// layout = "NCHW"            # or "NHWC"
/// ```
///
/// Images are taken as their pixels lie in the file: an orientation in their EXIF data is not
/// applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The data, relative to the folder of the card.
    pub path: String,
    /// What is scored; told by the data when left out.
    #[serde(default)]
    pub task: Option<Task>,
    /// Name of the samples' array in an `.npz`, `x` unless given.
    #[serde(default)]
    pub x: Option<String>,
    /// Name of the labels' array in an `.npz` or column in a `.csv`, `y` unless given.
    #[serde(default)]
    pub y: Option<String>,
    /// For texts: what stands between documents, each of which is predicted as a whole.
    #[serde(default)]
    pub separator: Option<String>,
    /// How one sample becomes a model input.
    #[serde(default)]
    pub input: InputSteps,
}

impl Card {
    /// Reads a card from a file.
    ///
    /// # Errors
    /// As [`parse`](Card::parse), and when the file cannot be read.
    pub fn read(path: &Path) -> Result<Card> {
        let bytes = read_limited(path, MAX_CARD_BYTES)?;
        let text = super::text::utf8(&bytes).at(|| show(path))?;
        Card::parse(text).at(|| show(path))
    }

    /// Parses the text of a card.
    ///
    /// # Errors
    /// `FB-3301` for TOML that does not parse or has the wrong type, `FB-3302` for an unknown
    /// key (with the nearest known one), `FB-3303` for a value that is not allowed.
    pub fn parse(text: &str) -> Result<Card> {
        let table = DeTable::parse(text).map_err(|e| syntax(text, &e))?;
        check_keys(text, table.get_ref(), CARD_KEYS, "")?;
        if let Some(DeValue::Table(input)) = table.get_ref().get("input").map(|v| v.get_ref()) {
            check_keys(text, input, INPUT_KEYS, "[input] ")?;
        }
        let card: Card = toml::from_str(text).map_err(|e| syntax(text, &e))?;
        card.input.validate()?;
        Ok(card)
    }
}

fn check_keys(text: &str, table: &DeTable<'_>, known: &[&str], section: &str) -> Result<()> {
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        if !known.contains(&name) {
            let error = Error::bad_input(format!("unknown key `{}`", super::file::show_text(name)));
            let place = format!("{section}{}", line(text, Some(key.span())));
            return Err(error.code("FB-3302").at(place).hint(spelling::hint(name, known)));
        }
    }
    Ok(())
}

fn syntax(text: &str, error: &toml::de::Error) -> Error {
    let what = error.message().trim().replace('\n', "; ");
    Error::bad_input(what).code("FB-3301").at(line(text, error.span()))
}

fn line(text: &str, span: Option<Range<usize>>) -> String {
    let start = span.map_or(0, |s| s.start).min(text.len());
    let before = text.as_bytes().get(..start).unwrap_or_default();
    format!("line {}", before.iter().filter(|b| **b == b'\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, code: &str) -> Error {
        let e = Card::parse(text).unwrap_err();
        assert_eq!((e.stable_code(), e.kind().exit_code()), (code, 3), "{e:?}");
        e
    }

    #[test]
    fn a_full_card_parses() {
        let card = Card::parse(
            "path = 'a'\ntask = 'classify'\n[input]\nresize = 256\ncrop = 224\nchannels = 'BGR'\n\
             scale = 255\nmean = [0.1, 0.2, 0.3]\nstd = 2\nlayout = 'NHWC'\n",
        )
        .unwrap();
        assert_eq!(card.task, Some(Task::Classify));
        assert_eq!(card.input.channels, Some(Channels::Bgr));
        assert_eq!(card.input.mean.unwrap().values().len(), 3);
        assert_eq!(card.input.std, Some(PerChannel::All(2.0)));
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_one() {
        let e = refused("path = 'a'\n[input]\nmaen = [1.0]\n", "FB-3302");
        assert_eq!(e.place(), "[input] line 3");
        assert_eq!(e.advice(), Some("did you mean `mean`?"));
        let e = refused("pth = 'a'\n", "FB-3302");
        assert_eq!((e.place().as_str(), e.advice()), ("line 1", Some("did you mean `path`?")));
    }

    #[test]
    fn wrong_types_and_values_name_their_line() {
        assert_eq!(refused("path = 'a'\n[input]\ncrop = 'x'\n", "FB-3301").place(), "line 3");
        assert_eq!(refused("path = 'a'\ntask = 'clasify'\n", "FB-3301").place(), "line 2");
        assert_eq!(refused("path = \n", "FB-3301").place(), "line 1");
        refused("task = 'none'\n", "FB-3301");
    }

    #[test]
    fn impossible_steps_are_refused() {
        for (steps, key) in [
            ("scale = 0", "`scale`"),
            ("std = [1.0, 0.0]", "`std`"),
            ("std = []", "`std`"),
            ("mean = [nan]", "`mean`"),
            ("multiply = inf", "`multiply`"),
            ("crop = 0", "`crop`"),
            ("resize = 100000", "`resize`"),
            ("interpolation = 'nearest'", "`interpolation`"),
            ("zero_point = 3\nscale = 2.0", "`zero_point`"),
        ] {
            let e = refused(&format!("path = 'a'\n[input]\n{steps}\n"), "FB-3303");
            assert_eq!(e.place(), format!("[input]: {key}"));
        }
    }

    #[test]
    fn later_tasks_are_read_and_refused_by_name() {
        let card = Card::parse("path = 'a'\ntask = 'perplexity'\n").unwrap();
        let e = card.task.unwrap().supported().unwrap_err();
        assert_eq!((e.stable_code(), e.kind().exit_code()), ("FB-4301", 4));
        assert!(e.what().contains("`perplexity`"));
    }
}
