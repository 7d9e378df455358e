use super::render;
use crate::explain::Bars;
use crate::report::tests::{EVIL, attempt, layer, report};
use crate::report::{LayerCard, Report};

/// The page as it is written: with the report itself inside.
fn page(report: &Report) -> String {
    render(report, &serde_json::to_string(report).expect("a report is JSON"))
}

#[test]
fn the_page_stands_alone() {
    let page = page(&report("b.onnx"));
    for text in ["http://", "https://", "src=", "url(", "@import", "<link", "<img", "<iframe"] {
        assert!(!page.contains(text), "{text} reaches outside");
    }
    assert_eq!(page.matches("<section>").count(), page.matches("</section>").count());
    assert_eq!(page.matches("<details id=").count(), 2);
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("@media print"));
}

#[test]
fn names_from_a_file_cannot_become_markup() {
    let mut evil = report(EVIL);
    evil.attempts = vec![attempt(EVIL, 1.0, false), attempt(EVIL, 2.0, true)];
    evil.recipe = EVIL.to_string();
    evil.target = EVIL.to_string();
    evil.advice = vec![EVIL.to_string()];
    evil.layers[1].reason = EVIL.to_string();
    evil.layers[1].op = EVIL.to_string();
    evil.layers[1].weights = Some(EVIL.to_string());
    evil.float.path = EVIL.to_string();
    evil.reproduce.machine = EVIL.to_string();
    let page = page(&evil);
    assert!(!page.contains("<script>alert"));
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains('\x1b') && !page.contains('\u{202e}'));
}

#[test]
fn the_embedded_report_is_the_report() {
    let report = report(EVIL);
    let page = page(&report);
    let (_, rest) = page.split_once("id=\"report\">").expect("a script element");
    let (inside, _) = rest.split_once("</script>").expect("its end");
    let read: serde_json::Value = serde_json::from_str(inside).expect("JSON");
    assert_eq!(read, serde_json::to_value(&report).expect("JSON"));
    assert_eq!(read["quantized"]["path"], EVIL);
}

#[test]
fn rows_of_the_loss_table_lead_to_their_cards_worst_first() {
    let mut both = report("worse");
    both.layers[1].sqnr_db = Some(3.0);
    let page = page(&both);
    assert!(page.contains("<a href=\"#layer-0\">worse</a>"));
    assert!(page.contains("<details id=\"layer-0\"><summary>worse"));
    assert!(page.contains("<a href=\"#layer-1\">first</a>"));
}

#[test]
fn a_search_is_drawn_with_its_bound() {
    let mut searched = report("b.onnx");
    assert!(!page(&searched).contains("<circle"));
    searched.attempts = vec![attempt("a", 2.0, false), attempt("b", 0.3, true)];
    let page = page(&searched);
    assert_eq!(page.matches("<circle class=\"kept\"").count(), 1);
    assert_eq!(page.matches("<circle class=\"tried\"").count(), 1);
    assert!(page.contains("drop (0.30 points to 2.00 points"));
}

#[test]
fn a_page_of_two_hundred_layers_is_small() {
    let counts: Vec<u64> = (0..64).map(|i| 100_000 + 7919 * i).collect();
    let bars = Bars { low: -1.0, high: 1.0, counts, chosen: Some((-0.5, 2.0)) };
    let named = |i: usize| LayerCard {
        weight_bars: Some(bars.clone()),
        activation_bars: Some(bars.clone()),
        ..layer(&format!("/model/encoder/layers.{i}/attention/projection/Conv"))
    };
    let mut large = report("b.onnx");
    large.layers = (0..200).map(named).collect();
    let page = page(&large);
    assert_eq!(page.matches("<details id=").count(), 200);
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}
