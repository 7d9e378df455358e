//! Chunks through the threads and into the file, in order.

use super::chunk::{Chunk, Slot, chunks};
use super::source::Source;
use super::{Target, lanes};
use fewbit_core::{Error, Result};
use fewbit_formats::gguf::Writer;
use fewbit_kernels::Pool;
use fewbit_kernels::encode::Loss;
use fewbit_quant::Progress;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Chunks that each thread works on before the batch is handed on.
const PER_THREAD: usize = 16;

/// Losses by tensor.
pub(super) type Losses = BTreeMap<usize, Loss>;

/// Encodes chunks and keeps only what they lost.
///
/// # Errors
/// When one cannot be read or encoded.
pub(super) fn losses(
    source: &Source,
    targets: &[Target],
    chunks: &[Chunk],
    pool: &Pool,
) -> Result<Losses> {
    let mut losses = Losses::new();
    let mut batch: Batch = batch(pool);
    for part in chunks.chunks(batch.len().max(1)) {
        fill(&mut batch, part, source, targets, pool)?;
        count(&batch, &mut losses);
    }
    Ok(losses)
}

type Batch = Vec<Slot>;

fn batch(pool: &Pool) -> Batch {
    (0..lanes(pool) * PER_THREAD).map(|_| Slot::default()).collect()
}

/// Works on one chunk in each slot; slots beyond stay empty.
fn fill(
    batch: &mut Batch,
    chunks: &[Chunk],
    source: &Source,
    targets: &[Target],
    pool: &Pool,
) -> Result<()> {
    for (i, slot) in batch.iter_mut().enumerate() {
        slot.chunk = chunks.get(i).copied();
    }
    pool.for_each_chunk(batch, 1, |_, slots| {
        slots.iter_mut().for_each(|slot| slot.work(source, targets));
    });
    match batch.iter_mut().find_map(|slot| slot.error.take()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn count(batch: &Batch, losses: &mut Losses) {
    for slot in batch {
        if let (Some(chunk), Some(loss)) = (slot.chunk, slot.loss) {
            let sum = losses.entry(chunk.tensor).or_default();
            *sum = sum.merge(loss);
        }
    }
}

/// Encodes everything and writes it. While one batch is written the next is computed.
///
/// # Errors
/// When a chunk cannot be read or encoded, or writing fails.
pub(super) fn write(
    source: &Source,
    targets: &[Target],
    writer: Writer,
    pool: &Pool,
    progress: &dyn Progress,
) -> Result<(Writer, Vec<Losses>)> {
    let (to_writer, full) = sync_channel::<Batch>(1);
    let (to_worker, free) = sync_channel::<Batch>(2);
    let closed = |_| Error::internal("a channel of the quantizer closed");
    for _ in 0..2 {
        to_worker.send(batch(pool)).map_err(closed)?;
    }
    progress.start("quantize", targets.len());
    let result = thread::scope(|scope| {
        let written = scope.spawn(move || drain(writer, source, &full, &to_worker));
        let losses = feed(source, targets, pool, (&free, &to_writer), progress);
        drop(to_writer);
        let writer = written.join().map_err(|_| Error::internal("the writing thread died"))?;
        // A failure to write ends the feed too, and is the one to tell of.
        let writer = writer?;
        Ok((writer, vec![losses?]))
    });
    progress.finish();
    result
}

/// Computes batch after batch.
fn feed(
    source: &Source,
    targets: &[Target],
    pool: &Pool,
    (free, full): (&Receiver<Batch>, &SyncSender<Batch>),
    progress: &dyn Progress,
) -> Result<Losses> {
    let mut losses = Losses::new();
    let mut todo: Vec<Chunk> = Vec::new();
    let mut waiting = source.infos().iter().zip(targets).enumerate();
    while let Ok(mut batch) = free.recv() {
        while todo.len() < batch.len() {
            let Some((tensor, (info, target))) = waiting.next() else { break };
            progress.step();
            todo.extend(chunks(tensor, info, target.encoders.len()));
        }
        if todo.is_empty() {
            break;
        }
        let rest = todo.split_off(todo.len().min(batch.len()));
        fill(&mut batch, &todo, source, targets, pool)?;
        todo = rest;
        count(&batch, &mut losses);
        if full.send(batch).is_err() {
            break;
        }
    }
    Ok(losses)
}

/// Writes batch after batch and hands the buffers back.
fn drain(
    mut writer: Writer,
    source: &Source,
    full: &Receiver<Batch>,
    free: &SyncSender<Batch>,
) -> Result<Writer> {
    for batch in full {
        for slot in &batch {
            if let Some(chunk) = slot.chunk {
                writer.write(&source.infos()[chunk.tensor].name, &slot.out)?;
            }
        }
        // Nobody waits for the last ones.
        let _ = free.send(batch);
    }
    Ok(writer)
}
