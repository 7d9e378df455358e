//! `GraphProto` to [`Graph`].

use super::types::{Declared, declared};
use super::{Context, attribute, constant, tensor};
use crate::onnx::schema::{
    AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto,
    attribute_type,
};
use fewbit_core::{Attr, Error, Graph, Node, Result, ResultExt, ValueId, ValueType};
use prost::Message;
use std::collections::{HashMap, HashSet};

/// Builds a graph and its subgraphs; [`Graph::verify`] is left to the caller of the outermost.
///
/// # Errors
/// The first damaged part, with its place.
pub(super) fn build(mut proto: GraphProto, context: &Context) -> Result<Graph> {
    let mut builder = Builder {
        context,
        graph: Graph::new(proto.name.take().unwrap_or_default()),
        origin: Vec::new(),
        declared: HashMap::new(),
    };
    builder.graph.doc = proto.doc_string.take().unwrap_or_default();
    builder.graph.carried = carried(&mut proto);
    builder.initializers(proto.initializer)?;
    builder.inputs(&proto.input)?;
    builder.declare("output", &proto.output)?;
    builder.declare("value_info", &proto.value_info)?;
    for (index, sparse) in proto.sparse_initializer.into_iter().enumerate() {
        builder.sparse(sparse).at(|| format!("sparse_initializer[{index}]"))?;
    }
    for (index, node) in proto.node.into_iter().enumerate() {
        let label = format!("node[{index}] {} {:?}", node.op_type(), node.name());
        builder.node(node).at(|| label)?;
    }
    builder.outputs(&proto.output)?;
    builder.finish()
}

fn carried(proto: &mut GraphProto) -> Vec<u8> {
    let rest = GraphProto {
        quantization_annotation: std::mem::take(&mut proto.quantization_annotation),
        metadata_props: std::mem::take(&mut proto.metadata_props),
        ..Default::default()
    };
    rest.encode_to_vec()
}

struct Builder<'a> {
    context: &'a Context,
    graph: Graph,
    /// Whether a value has an origin, by index.
    origin: Vec<bool>,
    declared: HashMap<String, Declared>,
}

impl Builder<'_> {
    fn initializers(&mut self, protos: Vec<TensorProto>) -> Result<()> {
        for (index, proto) in protos.into_iter().enumerate() {
            let place = || format!("initializer[{index}] {:?}", proto.name());
            let tensor = tensor::decode(&proto, &self.context.external).at(place)?;
            let id = self.graph.add_constant(proto.name(), tensor).at(place)?;
            self.give_origin(id).at(place)?;
            let rest = TensorProto {
                doc_string: proto.doc_string.filter(|s| !s.is_empty()),
                metadata_props: proto.metadata_props,
                ..Default::default()
            };
            if rest != TensorProto::default() {
                let rest = GraphProto { initializer: vec![rest], ..Default::default() };
                self.graph.set_carried(id, rest.encode_to_vec());
            }
        }
        Ok(())
    }

    fn inputs(&mut self, infos: &[ValueInfoProto]) -> Result<()> {
        let mut seen = HashSet::new();
        for (index, info) in infos.iter().enumerate() {
            let place = || format!("input[{index}] {:?}", info.name());
            if !seen.insert(info.name()) {
                return Err(twice(info.name())).at(place);
            }
            self.input(info).at(place)?;
        }
        Ok(())
    }

    fn input(&mut self, info: &ValueInfoProto) -> Result<()> {
        let declared = declared(info)?;
        let id = self.graph.value_named_or_new(info.name())?;
        if let Some(default) = self.graph.constant(id)
            && declared.ty.dtype.is_some_and(|dtype| dtype != default.dtype())
        {
            let what = format!("declared as {}, its default is {default:?}", declared.ty);
            return Err(Error::bad_input(what).code("FB-3108"));
        }
        if self.graph.constant(id).is_none() {
            self.give_origin(id)?;
        }
        self.graph.add_input(id);
        self.describe(id, declared);
        Ok(())
    }

    fn declare(&mut self, field: &str, infos: &[ValueInfoProto]) -> Result<()> {
        for (index, info) in infos.iter().enumerate() {
            let place = || format!("{field}[{index}] {:?}", info.name());
            let declared = declared(info).at(place)?;
            // What is said of an output counts more than what is said of values between.
            self.declared.entry(info.name().to_string()).or_insert(declared);
        }
        Ok(())
    }

    /// A sparse initializer stands in the graph as a `Constant` that has the tensor's own name.
    fn sparse(&mut self, mut sparse: SparseTensorProto) -> Result<()> {
        for part in [&mut sparse.values, &mut sparse.indices].into_iter().flatten() {
            super::embed(part, &self.context.external)?;
        }
        let name = sparse.values.as_ref().map(|v| v.name().to_string()).unwrap_or_default();
        let id = self.graph.value_named_or_new(&name)?;
        self.give_origin(id)?;
        let attribute = AttributeProto {
            name: Some("sparse_value".to_string()),
            r#type: Some(attribute_type::SPARSE_TENSOR),
            sparse_tensor: Some(sparse),
            ..Default::default()
        };
        let opaque = Attr::Opaque(attribute.encode_to_vec());
        self.graph.add_node(Node::new("Constant", "", &[], &[id]).with("sparse_value", opaque));
        Ok(())
    }

    fn node(&mut self, mut proto: NodeProto) -> Result<()> {
        if proto.op_type().is_empty() {
            return Err(Error::bad_input("the node has no operator").code("FB-3109"));
        }
        let carried = rest_of(&mut proto);
        let inputs = self.slots(&proto.input)?;
        let outputs = self.slots(&proto.output)?;
        for id in outputs.iter().flatten() {
            self.give_origin(*id)?;
        }
        let node = Node {
            attrs: self.attributes(proto.attribute)?,
            name: proto.name.unwrap_or_default(),
            op: proto.op_type.unwrap_or_default(),
            domain: proto.domain.unwrap_or_default(),
            doc: proto.doc_string.unwrap_or_default(),
            inputs,
            outputs,
            carried,
        };
        match (constant::fold(&node)?, node.output(0)) {
            (Some(tensor), Some(id)) => self.graph.set_constant(id, tensor),
            _ => {
                self.graph.add_node(node);
            }
        }
        Ok(())
    }

    fn slots(&mut self, names: &[String]) -> Result<Vec<Option<ValueId>>> {
        let slot = |name: &String| match name.as_str() {
            "" => Ok(None),
            name => self.graph.value_named_or_new(name).map(Some),
        };
        names.iter().map(slot).collect()
    }

    fn attributes(&self, protos: Vec<AttributeProto>) -> Result<Vec<(String, Attr)>> {
        let mut attrs: Vec<(String, Attr)> = Vec::with_capacity(protos.len());
        let mut names = HashSet::new();
        for mut proto in protos {
            let name = proto.name.take().unwrap_or_default();
            let place = || format!("attribute {name:?}");
            if !names.insert(name.clone()) {
                return Err(Error::bad_input("stands twice").code("FB-3110").at(place()));
            }
            let attr = attribute::decode(proto, self.context).at(place)?;
            attrs.push((name, attr));
        }
        Ok(attrs)
    }

    fn outputs(&mut self, infos: &[ValueInfoProto]) -> Result<()> {
        let mut seen = HashSet::new();
        for (index, info) in infos.iter().enumerate() {
            let place = || format!("output[{index}] {:?}", info.name());
            let id = self.graph.value_named_or_new(info.name()).at(place)?;
            if !seen.insert(id) {
                return Err(twice(info.name())).at(place);
            }
            self.graph.add_output(id);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Graph> {
        for id in self.graph.value_ids() {
            let known = self.graph.constant(id).is_some()
                || self.graph.value(id).ty != ValueType::default();
            if let Some(declared) = self.declared.remove(self.graph.name_of(id))
                && !known
            {
                self.describe(id, declared);
            }
        }
        self.graph.sort()?;
        Ok(self.graph)
    }

    fn describe(&mut self, id: ValueId, declared: Declared) {
        if declared.ty != ValueType::default() {
            self.graph.set_type(id, declared.ty);
        }
        let Some(rest) = declared.rest else { return };
        // An initializer may have left something here before; encoded messages join by appending.
        let mut carried = self.graph.value(id).carried.clone();
        let rest = GraphProto { value_info: vec![rest], ..Default::default() };
        carried.extend(rest.encode_to_vec());
        self.graph.set_carried(id, carried);
    }

    fn give_origin(&mut self, id: ValueId) -> Result<()> {
        if self.origin.len() <= id.index() {
            self.origin.resize(id.index() + 1, false);
        }
        if std::mem::replace(&mut self.origin[id.index()], true) {
            return Err(twice(self.graph.name_of(id)));
        }
        Ok(())
    }
}

fn twice(name: &str) -> Error {
    Error::bad_input(format!("value `{name}` is defined twice")).code("FB-3102")
}

/// Splits off what [`Node`] cannot say: overload, metadata, placement, notes on attributes.
fn rest_of(proto: &mut NodeProto) -> Vec<u8> {
    let note = |a: &AttributeProto| {
        let doc = a.doc_string.clone().filter(|doc| !doc.is_empty())?;
        Some(AttributeProto { name: a.name.clone(), doc_string: Some(doc), ..Default::default() })
    };
    let rest = NodeProto {
        attribute: proto.attribute.iter().filter_map(note).collect(),
        overload: proto.overload.take().filter(|o| !o.is_empty()),
        metadata_props: std::mem::take(&mut proto.metadata_props),
        device_configurations: std::mem::take(&mut proto.device_configurations),
        ..Default::default()
    };
    rest.encode_to_vec()
}
