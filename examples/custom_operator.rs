//! A row of one's own in the operator table: a model with an operator that ONNX does not have.
//!
//! `cargo run --release --example custom_operator`

use fewbit::{
    DType, EvalCtx, Graph, Mode, Model, Node, OpDef, OpTable, Result, Session, SessionOptions,
    Tensor, ValueType, same_as_input,
};

/// `y = |x| + 1`, element by element.
fn abs_plus_one(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let x = ctx.input(0)?;
    let values: Vec<f32> = x.cow::<f32>()?.iter().map(|v| v.abs() + 1.0).collect();
    Ok(vec![Tensor::from_slice(x.shape().to_vec(), &values)?])
}

fn model() -> Result<Model> {
    let mut graph = Graph::new("custom");
    let x = graph.add_value("x", ValueType::fixed(DType::F32, &[3]))?;
    let y = graph.add_value("y", ValueType::fixed(DType::F32, &[3]))?;
    let mut node = Node::new("AbsPlusOne", "mine", &[x], &[y]);
    node.domain = "example".to_string();
    graph.add_node(node);
    graph.add_input(x);
    graph.add_output(y);
    let mut model = Model { graph, ir_version: 8, ..Model::default() };
    model.set_opset("", 17);
    model.set_opset("example", 1);
    Ok(model)
}

fn main() -> Result<()> {
    let model = model()?;
    let options = SessionOptions::new(Mode::Float);
    if let Err(error) = Session::new(&model, &options) {
        println!("without the row: {error}");
    }

    let mut table = OpTable::standard();
    table.add(OpDef::new("AbsPlusOne", same_as_input, abs_plus_one).domain("example"));
    let session = Session::with_table(&model, &options, &table)?;
    let outputs = session.run(&[("x", Tensor::vector(&[-2.0f32, 0.0, 0.5]))])?;
    for (name, tensor) in outputs {
        println!("{name} = {:?}", tensor.to_f32()?);
    }
    Ok(())
}
