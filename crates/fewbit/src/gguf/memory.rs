//! What calibrated rounding will need of memory, before it starts.

use super::GgufJob;
use super::source::Source;
use fewbit_core::{Error, Result};
use fewbit_llm::graph::decoder::Decoder;
use fewbit_quant::algo::factor::Factor;
use fewbit_quant::algo::hessian::Hessian;
use std::fs;

/// The process without a model, and the tokenizer's tables.
const BASE: u64 = 96 << 20;
/// Bytes for each element of the matrix that is being rounded: its numbers, what they lost, codes.
const ROUNDING: u64 = 12;
/// Bytes for each element of a layer: as it is read, as kernels hold it, as it becomes.
const LAYER: u64 = 8;

/// Bytes at the peak: the states of all windows before and behind a layer, the layer, the moments
/// of its widest matrix.
pub(super) fn needed(source: &Source, decoder: &Decoder, windows: &[Vec<u32>]) -> u64 {
    let tokens: usize = windows.iter().map(Vec::len).sum();
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0) as u64;
    let states = (tokens as u64).saturating_mul(decoder.hidden as u64).saturating_mul(8);
    let mut layer = 0u64;
    let (mut widest, mut largest) = (0usize, 0u64);
    for info in source.infos().iter().filter(|info| info.name.starts_with("blk.")) {
        let elements = (info.rows() as u64).saturating_mul(info.row_elements() as u64);
        layer += if info.name.starts_with("blk.0.") { elements } else { 0 };
        largest = largest.max(elements);
        if info.rows() > 1 {
            widest = widest.max(info.row_elements());
        }
    }
    let scores = longest.saturating_mul(longest).saturating_mul(4 * decoder.heads.queries as u64);
    let run = longest.saturating_mul(widest as u64).saturating_mul(32).saturating_add(scores);
    let moments = Hessian::bytes(widest).max(Hessian::bytes(widest) / 2 + Factor::bytes(widest));
    [states, layer.saturating_mul(LAYER), largest.saturating_mul(ROUNDING), run, moments]
        .into_iter()
        .fold(BASE, u64::saturating_add)
}

/// # Errors
/// When more is needed than allowed, or than the machine has left.
pub(super) fn check(job: &GgufJob, need: u64) -> Result<()> {
    let (limit, what) = match (job.max_memory, available()) {
        (Some(limit), _) => (limit, "are allowed"),
        (None, Some(free)) => (free, "are free"),
        (None, None) => return Ok(()),
    };
    if need <= limit {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::resource(format!(
        "calibrated rounding needs about {} MiB of memory, {} {what}",
        mib(need),
        mib(limit)
    ))
    .code("FB-5101")
    .hint("calibrate on fewer windows, such as text.txt@0..16, or use --rounding nearest"))
}

/// Memory that the system can still give; `None` where it does not tell.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
