//! Where the results of a part go.

use super::part::Part;
use fewbit_kernels::threads::Pool;

/// One axis of a part's results.
pub(super) struct Line {
    /// Padding of the input, such that all results that are wanted are computed.
    pub pads: (usize, usize),
    /// Number of results.
    pub len: usize,
    lanes: usize,
    /// For each output its lane and the result of the lane, where it belongs to this part.
    sources: Vec<Option<(usize, usize)>>,
}

impl Line {
    /// For `size` elements of input, and `outputs` of which `begin` are cut before the first one.
    /// `None` where none belongs to the part.
    pub fn new(part: &Part, axis: usize, size: usize, begin: i64, outputs: usize) -> Option<Line> {
        let (lanes, reach) = (part.axes[axis], part.conv.window.reach(axis) as i64 - 1);
        let (stride, size) = (lanes.stride as i64, size as i64);
        // Result `v` of a lane belongs to output `v * stride + shift`.
        let shift = |lane: usize| ((lanes.first + lane) * lanes.dilation) as i64 - begin;
        let all = || (0..lanes.count).map(shift);
        let first = all().map(|shift| -shift.div_euclid(stride)).min()?;
        let last = all().map(|shift| (outputs as i64 - 1 - shift).div_euclid(stride)).max()?;
        if last < first {
            return None;
        }
        // Without padding, the results would begin at `reach` and end with the input.
        let pads = ((reach - first).max(0), (last + 1 - size).max(0));
        let (start, end) = (reach - pads.0, size + pads.1);
        let mut sources = vec![None; outputs];
        for lane in 0..lanes.count {
            let from = start.max(-shift(lane).div_euclid(stride));
            for (at, v) in (from..end).map(|v| (v * stride + shift(lane), v)) {
                let Some(source) = usize::try_from(at).ok().and_then(|at| sources.get_mut(at))
                else {
                    break;
                };
                *source = Some((lane, (v - start) as usize));
            }
        }
        let count = |n: i64| usize::try_from(n).unwrap_or(0);
        let pads = (count(pads.0), count(pads.1));
        Some(Line { pads, len: count(end - start), lanes: lanes.count, sources })
    }

    /// An axis that is not there.
    fn none() -> Line {
        Line { pads: (0, 0), len: 1, lanes: 1, sources: vec![Some((0, 0))] }
    }
}

/// Where the results of a part go, over three axes.
pub(super) struct Places {
    lines: [Line; 3],
    /// Along the last axis.
    runs: Vec<Run>,
    groups: usize,
    /// Bytes of a pixel of output, and of all that is computed for it in the part.
    pixel: usize,
    lanes: usize,
}

/// Bytes that lie one behind the other in results and output.
struct Run {
    from: usize,
    to: usize,
    len: usize,
}

/// As many bytes of output are worth a task.
const TASK: usize = 1 << 15;

impl Places {
    /// For results of `size` bytes each.
    pub fn new(part: &Part, lines: Vec<Line>, size: usize) -> Places {
        let lanes = part.lanes();
        let pixel = part.conv.out_c / lanes * size;
        let mut all = [Line::none(), Line::none(), Line::none()];
        for (to, line) in all.iter_mut().rev().zip(lines.into_iter().rev()) {
            *to = line;
        }
        let groups = part.conv.groups;
        let runs = runs(&all[2].sources, pixel, lanes, groups);
        Places { lines: all, runs, groups, pixel, lanes }
    }

    /// Writes the outputs that belong to the part.
    pub fn fill(&self, pool: &Pool, results: &[u8], output: &mut [u8]) {
        let line = self.lines[2].sources.len() * self.pixel;
        let lines = TASK.div_ceil(line);
        pool.for_each_chunk(output, lines * line, |chunk, output| {
            for (index, output) in output.chunks_exact_mut(line).enumerate() {
                if let Some(from) = self.start(chunk * lines + index) {
                    self.copy(&results[from..], output);
                }
            }
        });
    }

    /// Where the results for a line of output begin.
    fn start(&self, index: usize) -> Option<usize> {
        let [deep, down, across] = &self.lines;
        let (rest, y) = (index / down.sources.len(), index % down.sources.len());
        let (image, z) = (rest / deep.sources.len(), rest % deep.sources.len());
        let ((deep_lane, z), (lane, y)) = (deep.sources[z]?, down.sources[y]?);
        let pixel = ((image * deep.len + z) * down.len + y) * across.len;
        let lane = (deep_lane * down.lanes + lane) * across.lanes;
        Some(pixel * self.lanes * self.pixel + lane * (self.pixel / self.groups))
    }

    fn copy(&self, results: &[u8], output: &mut [u8]) {
        let of_group = self.pixel / self.groups;
        for Run { from, to, len } in &self.runs {
            for group in 0..self.groups {
                let (from, to) = (from + group * self.lanes * of_group, to + group * of_group);
                output[to..to + len].copy_from_slice(&results[from..from + len]);
            }
        }
    }
}

/// What is copied for each group, with neighbours in one piece where there is one group.
fn runs(sources: &[Option<(usize, usize)>], pixel: usize, lanes: usize, groups: usize) -> Vec<Run> {
    let len = pixel / groups;
    let mut runs: Vec<Run> = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let Some((lane, v)) = *source else { continue };
        let (from, to) = (v * lanes * pixel + lane * len, at * pixel);
        match runs.last_mut() {
            Some(run) if groups == 1 && (run.from + run.len, run.to + run.len) == (from, to) => {
                run.len += len;
            }
            _ => runs.push(Run { from, to, len }),
        }
    }
    runs
}

/// Writes a pixel to all places.
pub(super) fn repeat(pixel: &[u8], output: &mut [u8]) {
    output.chunks_exact_mut(pixel.len()).for_each(|to| to.copy_from_slice(pixel));
}
