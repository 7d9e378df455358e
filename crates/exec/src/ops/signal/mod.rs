//! Signals: Fourier transforms, windows, mel bands.

mod dft;
mod fourier;
mod mel;
pub(super) mod precise;
mod stft;
mod window;

use crate::def::OpDef;

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("BlackmanWindow", window::infer, window::blackman).since(17),
    OpDef::new("DFT", dft::infer, dft::eval).since(17),
    OpDef::new("HammingWindow", window::infer, window::hamming).since(17),
    OpDef::new("HannWindow", window::infer, window::hann).since(17),
    OpDef::new("MelWeightMatrix", mel::infer, mel::eval).since(17),
    OpDef::new("STFT", stft::infer, stft::eval).since(17),
];
