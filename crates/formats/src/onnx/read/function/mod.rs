//! Model-local functions: every call is replaced by the body of what it calls.
//!
//! Done on the messages, before a graph is built, so that nothing behind the reader ever meets
//! a function. Names of the body get the call's own prefix; attribute references take the
//! caller's value, else the function's default, else they vanish.

mod budget;
mod names;

use crate::limits::{MAX_CALL_DEPTH, MAX_GRAPH_DEPTH};
use crate::onnx::schema::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    ValueInfoProto,
};
use budget::{Budget, Size};
use fewbit_core::{Error, Result, ResultExt};
use names::Names;
use std::collections::{HashMap, HashSet};

/// Call names longer than this give way to the function's name, lest names grow with depth.
const MAX_PREFIX_BASE: usize = 128;

/// Domain, name, overload.
type Key = (String, String, String);

/// Inlines all calls of the main graph, its subgraphs and the functions themselves.
///
/// # Errors
/// When functions call each other in a circle, are defined twice, are called with too many
/// inputs, need another version of an operator set than the model, or expand without bound.
pub(super) fn inline(model: &mut ModelProto) -> Result<()> {
    let functions = std::mem::take(&mut model.functions);
    let Some(graph) = &mut model.graph else { return Ok(()) };
    if functions.is_empty() {
        return Ok(());
    }
    let mut inliner = Inliner {
        functions: index(&functions)?,
        opsets: &mut model.opset_import,
        taken: HashSet::new(),
        stack: Vec::new(),
        calls: 0,
        depth: 0,
        budget: Budget::new(graph, &functions),
    };
    collect_names(graph, &mut inliner.taken);
    inliner.graph(graph)
}

fn index(functions: &[FunctionProto]) -> Result<HashMap<Key, &FunctionProto>> {
    let mut map = HashMap::new();
    for function in functions {
        let key = (
            normal(&function.domain),
            function.name.clone().unwrap_or_default(),
            function.overload.clone().unwrap_or_default(),
        );
        let label = label(function);
        if map.insert(key, function).is_some() {
            return Err(Error::bad_input(format!("{label} is defined twice")).code("FB-3240"));
        }
    }
    Ok(map)
}

fn normal(domain: &Option<String>) -> String {
    domain.clone().filter(|d| d != "ai.onnx").unwrap_or_default()
}

fn label(function: &FunctionProto) -> String {
    let part = |s: &Option<String>| s.clone().unwrap_or_default();
    format!("function `{}::{}`", part(&function.domain), part(&function.name))
}

fn collect_names(graph: &GraphProto, names: &mut HashSet<String>) {
    let infos = graph.input.iter().chain(&graph.output).filter_map(|v| v.name.clone());
    names.extend(infos);
    names.extend(graph.initializer.iter().filter_map(|t| t.name.clone()));
    for node in &graph.node {
        names.extend(node.output.iter().cloned());
        node.attribute.iter().flat_map(subgraphs).for_each(|g| collect_names(g, names));
    }
}

fn subgraphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.iter().chain(&attribute.graphs)
}

fn subgraphs_mut(attribute: &mut AttributeProto) -> impl Iterator<Item = &mut GraphProto> {
    attribute.g.iter_mut().chain(&mut attribute.graphs)
}

struct Inliner<'a> {
    functions: HashMap<Key, &'a FunctionProto>,
    opsets: &'a mut Vec<OperatorSetIdProto>,
    taken: HashSet<String>,
    stack: Vec<Key>,
    calls: usize,
    depth: usize,
    budget: Budget,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<()> {
        // Functions can nest what stands side by side in the file.
        if self.depth > MAX_GRAPH_DEPTH {
            let what = format!("subgraphs nest deeper than {MAX_GRAPH_DEPTH}");
            return Err(Error::bad_input(what).code("FB-3105"));
        }
        self.depth += 1;
        let nodes = std::mem::take(&mut graph.node);
        graph.node.reserve(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            self.node(node, &mut graph.node, &mut graph.value_info)
                .at(|| format!("node[{index}]"))?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn node(
        &mut self,
        mut node: NodeProto,
        out: &mut Vec<NodeProto>,
        infos: &mut Vec<ValueInfoProto>,
    ) -> Result<()> {
        for graph in node.attribute.iter_mut().flat_map(subgraphs_mut) {
            self.graph(graph)?;
        }
        let key = (normal(&node.domain), node.op_type().to_string(), node.overload().to_string());
        match self.functions.get(&key).copied() {
            None => out.push(node),
            Some(function) => {
                self.enter(&key).at(|| label(function))?;
                self.call(function, &node, out, infos).at(|| label(function))?;
                self.stack.pop();
            }
        }
        Ok(())
    }

    fn enter(&mut self, key: &Key) -> Result<()> {
        if self.stack.contains(key) {
            return Err(Error::bad_input("the function calls itself").code("FB-3241"));
        }
        if self.stack.len() == MAX_CALL_DEPTH {
            let what = format!("functions call each other deeper than {MAX_CALL_DEPTH}");
            return Err(Error::unsupported(what).code("FB-4107"));
        }
        self.stack.push(key.clone());
        self.calls += 1;
        Ok(())
    }

    fn call(
        &mut self,
        function: &FunctionProto,
        call: &NodeProto,
        out: &mut Vec<NodeProto>,
        infos: &mut Vec<ValueInfoProto>,
    ) -> Result<()> {
        self.import(function)?;
        let prefix = self.prefix(function, call);
        self.budget.take(Size::of_body(function, &prefix))?;
        let mut names = Names { map: bind(function, call)?, prefix, taken: &mut self.taken };
        let mut body = function.node.clone();
        body.iter_mut().for_each(|node| names.node(node));
        let mut types = function.value_info.clone();
        types.iter_mut().for_each(|info| names.slot(info.name.get_or_insert_default()));
        infos.append(&mut types);
        for node in body {
            let node = self.resolve(node, function, call)?;
            self.node(node, out, infos)?;
        }
        out.extend(passed_through(function, call));
        Ok(())
    }

    /// Tells where a name comes from: `call#3/`, and for calls in calls `outer#2/call#3/`.
    fn prefix(&self, function: &FunctionProto, call: &NodeProto) -> String {
        let base = match call.name() {
            "" => function.name(),
            long if long.len() > MAX_PREFIX_BASE => function.name(),
            name => name,
        };
        format!("{base}#{}/", self.calls)
    }

    /// Puts values in the place of attribute references.
    fn resolve(
        &mut self,
        mut node: NodeProto,
        function: &FunctionProto,
        call: &NodeProto,
    ) -> Result<NodeProto> {
        for mut attribute in std::mem::take(&mut node.attribute) {
            if attribute.ref_attr_name().is_empty() {
                for graph in subgraphs_mut(&mut attribute) {
                    let nodes = std::mem::take(&mut graph.node).into_iter();
                    let nodes = nodes.map(|n| self.resolve(n, function, call));
                    graph.node = nodes.collect::<Result<_>>()?;
                }
                node.attribute.push(attribute);
                continue;
            }
            let mut given = call.attribute.iter().chain(&function.attribute_proto);
            if let Some(value) = given.find(|a| a.name() == attribute.ref_attr_name()) {
                self.budget.take(Size::of_attribute(value))?;
                node.attribute.push(AttributeProto { name: attribute.name, ..value.clone() });
            }
        }
        Ok(node)
    }

    /// The body must mean the same under the model's operator sets as under its own.
    fn import(&mut self, function: &FunctionProto) -> Result<()> {
        for wanted in &function.opset_import {
            let domain = normal(&wanted.domain);
            let mut imported = self.opsets.iter();
            let Some(have) = imported.find(|o| normal(&o.domain) == domain) else {
                self.opsets.push(wanted.clone());
                continue;
            };
            let used = function.node.iter().any(|n| normal(&n.domain) == domain);
            if used && have.version != wanted.version {
                let (need, found) = (wanted.version(), have.version());
                let what =
                    format!("needs version {need} of domain {domain:?}, the model has {found}");
                return Err(Error::unsupported(what).code("FB-4106").hint(
                    "export the model with one opset, or inline its functions with onnx.inliner",
                ));
            }
        }
        Ok(())
    }
}

/// Inputs and outputs of the body under the names of the call.
fn bind(function: &FunctionProto, call: &NodeProto) -> Result<HashMap<String, String>> {
    let sides =
        [("inputs", &function.input, &call.input), ("outputs", &function.output, &call.output)];
    let mut map = HashMap::new();
    for (what, formal, actual) in sides {
        if actual.len() > formal.len() {
            let what = format!("takes {} {what}, the call gives {}", formal.len(), actual.len());
            return Err(Error::bad_input(what).code("FB-3242"));
        }
        for (index, name) in formal.iter().enumerate() {
            let given = actual.get(index).filter(|name| !name.is_empty());
            match given {
                // A left-out input stays left out; a left-out output gets a name of its own.
                None if what == "outputs" => {}
                _ => {
                    map.entry(name.clone()).or_insert(given.cloned().unwrap_or_default());
                }
            }
        }
    }
    Ok(map)
}

/// An output that is an input of the function has no node of its own; give it one.
fn passed_through(function: &FunctionProto, call: &NodeProto) -> Vec<NodeProto> {
    let pairs = function.output.iter().zip(&call.output);
    let identity = |(formal, actual): (&String, &String)| {
        let index = function.input.iter().position(|input| input == formal)?;
        (!actual.is_empty()).then(|| NodeProto {
            op_type: Some("Identity".to_string()),
            input: vec![call.input.get(index).cloned().unwrap_or_default()],
            output: vec![actual.clone()],
            ..Default::default()
        })
    };
    pairs.filter_map(identity).collect()
}
