//! A piece of a tensor on its way: read, made numbers, encoded.

use super::source::Source;
use super::{Target, isa};
use fewbit_core::{Error, Result};
use fewbit_formats::gguf::TensorInfo;
use fewbit_kernels::encode::Loss;
use fewbit_quant::algo::blocks::decode;

/// Elements of a chunk, few enough for a core's own cache; a longer row is a chunk of its own.
const ELEMENTS: usize = 1 << 16;

/// Rows of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) tensor: usize,
    pub(super) first: usize,
    pub(super) rows: usize,
}

/// All chunks of a tensor, in order; none crosses from one matrix into the next.
pub(super) fn chunks(tensor: usize, info: &TensorInfo, matrices: usize) -> Vec<Chunk> {
    let (rows, step) = (info.rows(), (ELEMENTS / info.row_elements().max(1)).max(1));
    let matrix = (rows / matrices.max(1)).max(1);
    let mut chunks = Vec::new();
    let mut first = 0;
    while first < rows && info.row_elements() > 0 {
        let end = rows.min((first / matrix + 1) * matrix);
        let count = step.min(end - first);
        chunks.push(Chunk { tensor, first, rows: count });
        first += count;
    }
    chunks
}

/// Buffers for one chunk, used again and again.
#[derive(Default)]
pub(super) struct Slot {
    raw: Vec<u8>,
    numbers: Vec<f32>,
    /// The bytes to write.
    pub(super) out: Vec<u8>,
    pub(super) chunk: Option<Chunk>,
    /// What encoding lost; `None` where bytes were copied.
    pub(super) loss: Option<Loss>,
    pub(super) error: Option<Error>,
}

impl Slot {
    /// Reads and encodes the chunk; an error waits in the slot.
    pub(super) fn work(&mut self, source: &Source, targets: &[Target]) {
        let Some(chunk) = self.chunk else { return };
        let info = &source.infos()[chunk.tensor];
        let result = self.encode(chunk, info, source, &targets[chunk.tensor]);
        self.error = result.err().map(|e| e.at(format!("tensor {:?}", info.name)));
    }

    fn encode(
        &mut self,
        chunk: Chunk,
        info: &TensorInfo,
        source: &Source,
        target: &Target,
    ) -> Result<()> {
        self.loss = None;
        let columns = info.row_elements();
        if let Some(rounded) = &target.rounded {
            let row = target.ty.row_bytes(columns)?;
            self.out.resize(chunk.rows * row, 0);
            return rounded.read(chunk.first.saturating_mul(row), &mut self.out);
        }
        let row = info.ty.row_bytes(columns)?;
        if target.encoders.is_empty() {
            self.out.resize(chunk.rows * row, 0);
            return source.read(chunk.tensor, chunk.first, &mut self.out);
        }
        self.raw.resize(chunk.rows * row, 0);
        source.read(chunk.tensor, chunk.first, &mut self.raw)?;
        self.numbers.resize(chunk.rows * columns, 0.0);
        decode(isa(), info.ty, &self.raw, &mut self.numbers)?;
        let matrix = chunk.first / (info.rows() / target.encoders.len()).max(1);
        let encoder = &target.encoders[matrix.min(target.encoders.len() - 1)];
        self.out.resize(chunk.rows * encoder.row_bytes(), 0);
        let loss = encoder.encode(isa(), &self.numbers, &mut self.out);
        self.loss = Some(loss.map_err(|e| e.at(format!("rows from {}", chunk.first)))?);
        Ok(())
    }
}
