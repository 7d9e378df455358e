//! Readers of data sets, and of the single arrays and images that `run` takes.
//!
//! [`Dataset::open`] takes `PATH` or `PATH@A..B`. The path is a data card ([`Card`]), or data
//! that needs none:
//!
//! | data | samples | labels |
//! |---|---|---|
//! | folder with `labels.csv` (`file,label`) | images, in the order of the lines | `label` |
//! | folder of class folders | images, the classes taking turns | sorted folder names: 0, 1, 2, ... |
//! | folder of images | images, sorted by name | none |
//! | `.txt` | image files, one per line | second field, if there |
//! | `.npz` | array `x`, or one array per input of the model | array `y`, if there |
//! | `.npy` | along the first dimension | none |
//! | `.csv` | lines of numbers | column `label` or `y`, if there |
//!
//! [`Corpus::open`] takes the texts and sentence pairs of language models in the same way.
//!
//! What others wrote is checked before memory is spent on it: sizes against the file, shapes
//! against overflow, archives against bombs, text against NUL, invalid UTF-8 and endless lines.
//!
//! Stable codes: `FB-23xx` usage, `FB-3300` files, `FB-3301..=3304` cards and kinds, `FB-331x` npy,
//! `FB-332x` npz, `FB-333x` images and shapes, `FB-334x` labels and lists, `FB-335x` text,
//! `FB-43xx` not supported, `FB-53xx` input and output.

mod card;
mod corpus;
mod dataset;
mod file;
pub mod image;
pub mod npy;
pub mod npz;
mod preprocess;
mod source;
mod spec;
mod spelling;
mod text;

pub use card::{Card, Channels, InputSteps, Interpolation, Layout, PerChannel, Task};
pub use corpus::{Corpus, CorpusKind, SentencePair};
pub use dataset::{Dataset, Sample};
pub use preprocess::Preprocess;
pub use spec::{DataSpec, SampleRange};
