//! Small models of every architecture, with pseudo-random weights.

#![allow(dead_code, reason = "each test file uses its own part")]

use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{Result, Tensor};
use fewbit_exec::kernels::blocks::quantize_activations;
use fewbit_exec::kernels::{Ctx, Isa, Pool};
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::safetensors;
use fewbit_llm::arch;
use fewbit_llm::{Settings, Weight, Weights};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const HIDDEN: usize = 32;
const VOCABULARY: usize = 20;
const INNER: usize = 64;

/// Weights that are made when asked for; the same name always gives the same numbers.
pub struct RandomWeights {
    /// Shape of each tensor.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Whether matrices are stored in blocks of 8 bits, or as the numbers that such blocks hold.
    pub blocks: Option<Blocks>,
    transposed: bool,
}

/// See [`RandomWeights::blocks`].
#[derive(Clone, Copy, PartialEq)]
pub enum Blocks {
    Stored,
    Decoded,
}

impl Weights for RandomWeights {
    fn get(&self, name: &str) -> Result<Option<Weight>> {
        let Some(shape) = self.shapes.get(name) else { return Ok(None) };
        let mut state = name.bytes().fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let len: usize = shape.iter().product();
        let values: Vec<f32> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let value = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
                // Scales of norms lie around 1.
                if name.ends_with("norm.weight") { 1.0 + value } else { value }
            })
            .collect();
        if let (Some(blocks), [rows, columns]) = (self.blocks, shape.as_slice()) {
            return in_blocks(blocks, [*rows, *columns], &values).map(Some);
        }
        let weight = Weight::plain(Tensor::from_slice(shape.clone(), &values)?);
        let matrix = self.transposed && name.starts_with("blk.");
        Ok(Some(Weight { transposed: matrix, ..weight }))
    }

    fn stored_name(&self, name: &str) -> String {
        name.to_string()
    }
}

fn in_blocks(blocks: Blocks, [rows, columns]: [usize; 2], values: &[f32]) -> Result<Weight> {
    let width = BlockType::Q8_0.row_bytes(columns)?;
    let mut bytes = vec![0; rows * width];
    let pool = Pool::single();
    quantize_activations(Ctx { isa: Isa::best(), pool: &pool }, values, &mut bytes);
    if blocks == Blocks::Decoded {
        let mut values = vec![0.0; rows * columns];
        dequantize(BlockType::Q8_0, &bytes, &mut values)?;
        return Ok(Weight::plain(Tensor::from_slice(vec![rows, columns], &values)?));
    }
    Ok(Weight {
        tensor: Tensor::from_slice(vec![rows, width], &bytes)?,
        block: Some(BlockType::Q8_0),
        shape: vec![rows, columns],
        transposed: false,
        coded: None,
    })
}

impl RandomWeights {
    /// The tensors that an architecture has.
    pub fn of(name: &str) -> RandomWeights {
        let mut weights =
            RandomWeights { shapes: BTreeMap::new(), blocks: None, transposed: name == "gpt2" };
        let fused = matches!(name, "phi3" | "gpt2");
        weights.add("token_embd.weight", &[VOCABULARY, HIDDEN]);
        weights.norm("output_norm", HIDDEN, name);
        if matches!(name, "gpt2" | "bert") {
            weights.add("position_embd.weight", &[64, HIDDEN]);
        }
        if name == "bert" {
            weights.add("token_types.weight", &[2, HIDDEN]);
            weights.norm("token_embd_norm", HIDDEN, name);
        }
        let keys = if matches!(name, "gpt2" | "bert") { HIDDEN } else { HIDDEN / 2 };
        for layer in 0..2 {
            let at = |part: &str| format!("blk.{layer}.{part}");
            for part in norms(name) {
                let len =
                    if part.contains("_q_") || part.contains("_k_") { HIDDEN / 4 } else { HIDDEN };
                weights.norm(&at(part), len, name);
            }
            if fused {
                weights.matrix(&at("attn_qkv"), HIDDEN + 2 * keys, HIDDEN, name);
            } else {
                weights.matrix(&at("attn_q"), HIDDEN, HIDDEN, name);
                weights.matrix(&at("attn_k"), keys, HIDDEN, name);
                weights.matrix(&at("attn_v"), keys, HIDDEN, name);
            }
            weights.matrix(&at("attn_output"), HIDDEN, HIDDEN, name);
            let gated = !matches!(name, "gpt2" | "bert");
            let up = if name == "phi3" { 2 * INNER } else { INNER };
            weights.matrix(&at("ffn_up"), up, HIDDEN, name);
            if gated && !fused {
                weights.matrix(&at("ffn_gate"), INNER, HIDDEN, name);
            }
            weights.matrix(&at("ffn_down"), HIDDEN, INNER, name);
        }
        weights
    }

    fn add(&mut self, name: &str, shape: &[usize]) {
        self.shapes.insert(name.to_string(), shape.to_vec());
    }

    fn norm(&mut self, name: &str, len: usize, architecture: &str) {
        self.add(&format!("{name}.weight"), &[len]);
        if matches!(architecture, "gpt2" | "bert") {
            self.add(&format!("{name}.bias"), &[len]);
        }
    }

    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize, architecture: &str) {
        let shape = if self.transposed { [inputs, outputs] } else { [outputs, inputs] };
        self.add(&format!("{name}.weight"), &shape);
        let biased = matches!(architecture, "gpt2" | "bert")
            || (architecture == "qwen2" && name.contains("attn_") && !name.contains("output"));
        if biased {
            self.add(&format!("{name}.bias"), &[outputs]);
        }
    }
}

fn norms(name: &str) -> &'static [&'static str] {
    match name {
        "bert" => &["attn_output_norm", "layer_output_norm"],
        "gemma2" => &["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"],
        "gemma3_text" => &[
            "attn_norm",
            "post_attention_norm",
            "ffn_norm",
            "post_ffw_norm",
            "attn_q_norm",
            "attn_k_norm",
        ],
        "qwen3" => &["attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"],
        _ => &["attn_norm", "ffn_norm"],
    }
}

/// `config.json` of a small model: 4 heads of 8 elements, 2 for keys where they are grouped.
pub fn settings(name: &str) -> Settings {
    let mut fields = json!({
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "sliding_window": 4,
        "tie_word_embeddings": true,
    });
    let more = match name {
        "llama" => json!({
            "num_key_value_heads": 2,
            "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
            },
        }),
        "qwen2" => json!({"num_key_value_heads": 2, "rope_interleaved": true}),
        "gemma3_text" => json!({
            "num_key_value_heads": 2, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        }),
        "phi3" => json!({
            "num_key_value_heads": 2, "partial_rotary_factor": 0.5,
            "original_max_position_embeddings": 32,
            "rope_scaling": {"type": "longrope", "long_factor": [2.0, 3.0], "short_factor": [1.0, 1.0]},
        }),
        "smollm3" => json!({
            "num_key_value_heads": 2, "no_rope_layer_interval": 2,
            "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0},
        }),
        "gpt2" | "bert" => json!({}),
        _ => json!({"num_key_value_heads": 2}),
    };
    let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) else {
        unreachable!("both are objects");
    };
    fields.extend(more);
    Settings::new(fields.clone())
}

/// Writes a folder as Hugging Face lays it out.
pub fn folder(path: &Path, name: &str, weights: &RandomWeights, config: &Value, tokenizer: &Value) {
    let table = arch::find(name).unwrap().tensors;
    let stored = |key: &String| {
        let stored = table.stored(table.roots[0], key)?;
        Some((stored, weights.get(key).unwrap()?.tensor))
    };
    let tensors: Vec<(String, Tensor)> = weights.shapes.keys().filter_map(stored).collect();
    folder_of(path, &tensors, config, tokenizer);
}

/// Writes a folder with tensors of any names and types.
pub fn folder_of(path: &Path, tensors: &[(String, Tensor)], config: &Value, tokenizer: &Value) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::write(path.join("config.json"), config.to_string()).unwrap();
    std::fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let spec = |(name, tensor): &(String, Tensor)| safetensors::TensorSpec {
        name: name.clone(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
    };
    let specs: Vec<_> = tensors.iter().map(spec).collect();
    let (file, options) = (path.join("model.safetensors"), OutputOptions::default());
    let mut writer = safetensors::Writer::create(&file, &[], &specs, &options).unwrap();
    for (name, tensor) in tensors {
        writer.write(name, tensor.bytes()).unwrap();
    }
    writer.finish().unwrap();
}
