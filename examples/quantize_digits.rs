//! The whole job from a program: load, calibrate, hold a bound, write, look at the outcome.
//!
//! `cargo run --release --example quantize_digits [OUT.onnx]`

use fewbit::{Data, QuantizeJob, Recipe, Result, Silent, load};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/digits");
    let file = |name: &str| digits.join(name);
    let out = std::env::args_os().nth(1).map(PathBuf::from);
    let out = out.unwrap_or_else(|| std::env::temp_dir().join("digits-int8.onnx"));

    let source = load(&file("digits.onnx"))?;
    let calibration = Data::open(&file("digits-calib.toml").to_string_lossy())?;
    let evaluation = Data::open(&file("digits.toml").to_string_lossy())?;

    let mut job = QuantizeJob::new(&source, Recipe::built_in("int8")?)?;
    job.calibration = Some(&calibration);
    job.evaluation = Some(&evaluation);
    job.max_drop = Some(0.5);
    let mut quantized = job.run(&Silent)?;
    quantized.write(&out, true)?;

    let report = &quantized.report;
    println!("{} bytes became {}", report.float.bytes, report.quantized.bytes);
    if let Some(metric) = &report.metric {
        println!(
            "{}: {:.3} became {:.3}, {} of {} predictions changed",
            metric.name, metric.float, metric.quantized, metric.flips, metric.samples
        );
    }
    for layer in report.layers.iter().filter(|l| !l.quantized) {
        println!("in float: {} {}: {}", layer.op, layer.name, layer.reason);
    }
    Ok(())
}
