//! Run a model in two modes, and watch a value inside it.
//!
//! `cargo run --release --example run_model [MODEL.onnx]`

use fewbit::{Mode, Result, Session, SessionOptions, TapEvent, Tensor, load};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/digits/digits.onnx");
    let model = load(&std::env::args_os().nth(1).map_or(digits, PathBuf::from))?.model;

    // Every value can be tapped by name; fusion leaves tapped values in place.
    let graph = &model.graph;
    let first = graph.nodes().find_map(|(_, node)| node.output(0)).map(|v| graph.name_of(v));
    let mut options = SessionOptions::new(Mode::Float);
    options.taps.extend(first.map(str::to_string));
    let session = Session::new(&model, &options)?;

    let mut inputs = Vec::new();
    for port in session.inputs() {
        let dims = port.ty.shape.iter().flatten().map(|d| d.known().unwrap_or(1)).collect();
        let zeros = Tensor::zeros(port.ty.dtype.unwrap_or(fewbit::DType::F32), dims)?;
        inputs.push((port.name.as_str(), zeros));
    }
    let outputs = session.run_tapped(&inputs, &mut |event: &TapEvent| {
        println!("inside: {} {:?}", event.name, event.to_onnx_layout()?);
        Ok(())
    })?;
    for (name, tensor) in &outputs {
        println!("output: {name} {tensor:?} {:.4?}", tensor.to_f32()?);
    }

    // Without taps, and on integers wherever the model is quantized.
    let session = Session::new(&model, &SessionOptions::new(Mode::Integer))?;
    session.run(&inputs)?;
    let integer = session.plan().iter().filter(|line| line.integer).count();
    println!("{integer} of {} nodes run on integers", session.plan().len());
    Ok(())
}
