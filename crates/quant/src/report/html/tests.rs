use super::render;
use crate::explain::Bars;
use crate::metric::Comparison;
use crate::report::{FileFacts, LayerCard, Report, Reproduction, Seconds, Verdict};

fn layer(name: &str) -> LayerCard {
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

fn report(name: &str) -> Report {
    let metric = Comparison {
        name: "top1".to_string(),
        float: 0.9,
        quantized: 0.89,
        drop_points: 1.0,
        interval_points: 0.4,
        samples: 100,
        flips: 3,
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

#[test]
fn the_page_tells_the_verdict_and_stands_alone() {
    let page = render(&report("b.onnx"), "{}");
    for text in ["the bound is missed", "27.0% of the size", "1.00 points", "3 of 100", "12.0"] {
        assert!(page.contains(text), "{text}");
    }
    for text in ["http://", "https://", "url(", "@import", "<link", "<img"] {
        assert!(!page.contains(text), "{text} reaches outside");
    }
    assert_eq!(page.matches("<section>").count(), page.matches("</section>").count());
    assert_eq!(page.matches("<details>").count(), 2);
}

#[test]
fn names_from_a_file_cannot_become_markup() {
    let evil = "<script>alert(1)</script>\"'&\x1b\u{202e}";
    let page = render(&report(evil), "{\"name\": \"</script><script>alert(1)</script>\"}");
    assert!(!page.contains("<script>alert"));
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains('\x1b') && !page.contains('\u{202e}'));
}
