//! What a user should do next, from what came out.

use super::QuantizeJob;
use fewbit_quant::Method;
use fewbit_quant::report::{Report, Verdict};

/// Fewer calibration samples than this leave ranges to chance.
const ENOUGH_SAMPLES: usize = 32;

pub(super) fn advice(job: &QuantizeJob, report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    match report.verdict {
        Verdict::Missed => missed(job, report, &mut lines),
        Verdict::Unmeasured => lines.push(
            "nothing was measured: give labelled samples with --evaluate, and a bound with --max-drop 1%"
                .to_string(),
        ),
        Verdict::Measured => lines.push(
            "the drop was measured but not bounded: --max-drop 1% climbs until it fits".to_string(),
        ),
        Verdict::Met => {}
    }
    few_samples(job, &mut lines);
    wide_interval(report, &mut lines);
    lines
}

fn missed(job: &QuantizeJob, report: &Report, lines: &mut Vec<String>) {
    let drop = report.metric.as_ref().map_or(f64::NAN, |m| m.drop_points);
    let bound = job.max_drop.unwrap_or_default();
    lines.push(format!(
        "the best attempt loses {drop:.2} points, more than the {bound} allowed; it was written all the same"
    ));
    lines.push(match (&job.plan, job.method()) {
        (Some(_), _) => {
            "a plan is run as it is; without --plan the search leaves layers in float".to_string()
        }
        (None, Method::Static) => {
            "try more calibration samples, or --recipe fp16, which halves the size".to_string()
        }
        (None, _) => "try a recipe with more bits, such as fp16".to_string(),
    });
}

fn few_samples(job: &QuantizeJob, lines: &mut Vec<String>) {
    if let Some(data) = job.calibration.filter(|d| d.len() < ENOUGH_SAMPLES) {
        lines.push(format!(
            "only {} calibration samples: 100 or more give ranges that hold",
            data.len()
        ));
    }
}

/// A drop that is known less well than it is bounded proves nothing.
fn wide_interval(report: &Report, lines: &mut Vec<String>) {
    let (Some(metric), Some(bound)) = (&report.metric, report.max_drop_points) else {
        return;
    };
    if report.verdict == Verdict::Met && metric.drop_points + metric.interval_points > bound {
        lines.push(format!(
            "with {} samples the drop is known to ± {:.2} points: more samples make the verdict certain",
            metric.samples, metric.interval_points
        ));
    }
}
