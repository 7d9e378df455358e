//! A graph as text, one node a line.

use super::{Graph, Node};
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &input in &self.inputs {
            writeln!(f, "in  {}: {}", self.name_of(input), self.value(input).ty)?;
        }
        for (_, node) in self.nodes() {
            writeln!(f, "    {}", line(self, node))?;
        }
        for &output in &self.outputs {
            writeln!(f, "out {}: {}", self.name_of(output), self.value(output).ty)?;
        }
        Ok(())
    }
}

fn line(graph: &Graph, node: &Node) -> String {
    let name = |v: &Option<_>| v.map_or("_", |v| graph.name_of(v)).to_string();
    let inputs: Vec<String> = node.inputs.iter().map(name).collect();
    let outputs: Vec<String> = node.outputs.iter().map(name).collect();
    format!("{} = {}({})", outputs.join(", "), node.op, inputs.join(", "))
}
