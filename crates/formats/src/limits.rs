//! What a file may make us do, at most. Sound models stay far below every one of these.

/// Messages nested in each other, where protobuf's own limit is 100.
///
/// A subgraph takes three levels (graph, node, attribute), so this allows 32 nested subgraphs.
pub const MAX_MESSAGE_DEPTH: usize = 97;

/// Subgraphs nested in each other, also after functions are inlined.
pub const MAX_GRAPH_DEPTH: usize = 32;

/// Nodes, attributes, tensors and other messages in one file, so that memory stays bounded.
pub const MAX_MESSAGES: usize = 32 << 20;

/// Dimensions of one tensor; the operators know at most a handful.
pub const MAX_RANK: usize = 64;

/// Nodes that the model-local functions of any file may expand to.
pub const MAX_INLINED_NODES: usize = 1 << 15;

/// Encoded bytes that the calls of model-local functions may add to any model.
pub const MAX_INLINED_BYTES: usize = 16 << 20;

/// Large files may expand further, by this factor of what stands in them.
pub const MAX_INLINE_GROWTH: usize = 64;

/// Functions that call each other, one inside the other.
pub const MAX_CALL_DEPTH: usize = 64;

/// Largest encoded protobuf message that every reader takes (2 GiB less one byte).
pub const MAX_PROTOBUF_BYTES: u64 = i32::MAX as u64;

/// Tensors smaller than this stay in the model file when weights go to a file of their own.
pub const MIN_EXTERNAL_BYTES: usize = 1024;

/// Files up to this size are read instead of mapped.
pub const MAX_READ_BYTES: u64 = 4 << 20;

/// Largest header of a safetensors file that its reference implementation takes.
pub const MAX_HEADER_BYTES: usize = 100_000_000;

/// Tensors of one file or one split model.
pub const MAX_TENSORS: usize = 1 << 21;

/// Entries of the metadata of one file.
pub const MAX_METADATA_ENTRIES: usize = 1 << 16;

/// Largest file of JSON or text beside a model: an index, a configuration, a tokenizer.
pub const MAX_TEXT_BYTES: usize = 256 << 20;

/// Largest padding of tensors in a GGUF file; 32 is usual.
pub const MAX_ALIGNMENT: usize = 1 << 16;
