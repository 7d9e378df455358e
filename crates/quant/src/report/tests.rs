//! A report with everything in it, and what every rendering must say.

use super::{Latency, to_html, to_text};
use crate::explain::Bars;
use crate::metric::Comparison;
use crate::report::{DataFacts, FileFacts, LayerCard, Report, Reproduction, Seconds, Verdict};
use crate::search::Attempt;

pub(super) const EVIL: &str = "<script>alert(1)</script>\"'&\x1b[31m\u{202e}";

pub(super) fn layer(name: &str) -> LayerCard {
    let bars = Bars { low: -1.0, high: 1.0, counts: vec![0, 3, 1000], chosen: Some((-0.5, 2.0)) };
    LayerCard {
        name: name.to_string(),
        op: "Conv".to_string(),
        quantized: true,
        reason: "computes on codes".to_string(),
        weights: Some("i8:axis(0):sym".to_string()),
        sqnr_db: Some(12.0),
        weight_sqnr_db: None,
        weight_bars: Some(bars.clone()),
        activation_bars: Some(bars),
        range: Some((-0.5, 2.0)),
    }
}

pub(super) fn report(name: &str) -> Report {
    let metric = Comparison {
        name: "top1".to_string(),
        float: 0.9,
        quantized: 0.89,
        drop_points: 1.0,
        interval_points: 0.4,
        samples: 100,
        flips: 3,
        float_not_finite: 0,
        quantized_not_finite: 0,
        top5: Some((1.0, 1.0)),
        mse: None,
    };
    Report {
        schema: 1,
        verdict: Verdict::Missed,
        max_drop_points: Some(0.5),
        float: FileFacts { path: "a.onnx".to_string(), bytes: 1000, sha256: "00".to_string() },
        quantized: FileFacts { path: name.to_string(), bytes: 270, sha256: "11".to_string() },
        recipe: "int8".to_string(),
        target: "fewbit".to_string(),
        metric: Some(metric),
        latency: None,
        layers: vec![layer("first"), LayerCard { quantized: false, ..layer(name) }],
        attempts: Vec::new(),
        data: Vec::new(),
        warnings: vec![format!("constant `{name}` holds NaN")],
        advice: Vec::new(),
        peak_rss_bytes: 1 << 20,
        seconds: Seconds::default(),
        reproduce: Reproduction { command: vec![name.to_string()], ..Reproduction::default() },
    }
}

pub(super) fn attempt(change: &str, drop_points: f64, kept: bool) -> Attempt {
    let comparison =
        Comparison { drop_points, ..report("b.onnx").metric.expect("the sample has a metric") };
    Attempt {
        change: change.to_string(),
        comparison,
        constant_bytes: 2000,
        float_layers: 1,
        kept,
        seconds: 0.5,
    }
}

fn both(report: &Report) -> [String; 2] {
    [to_html(report, "{}"), to_text(report)]
}

#[test]
fn each_verdict_has_its_words() {
    let words = [
        (Verdict::Met, "within the bound"),
        (Verdict::Missed, "the bound is missed"),
        (Verdict::Measured, "measured, without a bound"),
        (Verdict::Unmeasured, "accuracy not measured"),
    ];
    for (verdict, expected) in words {
        for rendering in both(&Report { verdict, ..report("b.onnx") }) {
            for (_, word) in words {
                assert_eq!(rendering.contains(word), word == expected, "{verdict:?}: {word}");
            }
        }
    }
}

#[test]
fn every_rendering_tells_the_facts() {
    let mut full = report("b.onnx");
    full.latency = Some(Latency { float_ms: 3.0, quantized_ms: 1.0, threads: 2, runs: 9 });
    full.attempts = vec![attempt("start", 2.0, false), attempt("bias correction", 0.3, true)];
    full.data = vec![DataFacts { name: "cal".to_string(), samples: 7, sha256: "ab".to_string() }];
    full.advice = vec!["measure more samples".to_string()];
    full.reproduce.command = vec!["fewbit".to_string(), "my model.onnx".to_string()];
    let facts = [
        "27.0% of the size",
        "90.00%",
        "1.00 ± 0.40 points",
        "3 of 100",
        "3.00 times as fast",
        "bias correction",
        "stayed in float",
        "measure more samples",
        "7 samples, sha256:ab",
        "my model.onnx",
    ];
    for rendering in both(&full) {
        for fact in facts {
            assert!(rendering.contains(fact), "{fact}\n{rendering}");
        }
    }
}

#[test]
fn an_unbounded_interval_and_a_missing_time_are_left_out() {
    let mut odd = report("b.onnx");
    odd.latency = Some(Latency { float_ms: f64::NAN, quantized_ms: 1.0, threads: 2, runs: 9 });
    odd.metric.as_mut().expect("the sample has a metric").interval_points = f64::INFINITY;
    for rendering in both(&odd) {
        assert!(!rendering.contains("inf ") && !rendering.contains("NaN ms"), "{rendering}");
        assert!(!rendering.contains("times as fast"));
    }
}

#[test]
fn names_cannot_act_on_a_terminal() {
    let text = to_text(&report(EVIL));
    assert!(text.contains("\\u{1b}[31m\\u{202e}"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn a_report_of_nothing_is_rendered() {
    let empty =
        Report { metric: None, layers: Vec::new(), max_drop_points: None, ..report("b.onnx") };
    for rendering in both(&empty) {
        assert!(rendering.contains("270 B") && !rendering.contains("stayed in float"));
    }
}

#[test]
fn the_command_is_quoted_for_a_shell() {
    let words = ["fewbit", "it's", "", "a.onnx"].map(str::to_string);
    assert_eq!(super::quantities::command_line(&words), "fewbit 'it'\\''s' '' a.onnx");
}
