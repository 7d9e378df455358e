//! What the checkpoints of Hugging Face call the tensors that have their GGUF names here.

/// Names of one architecture: pairs of GGUF name and Hugging Face name, without `.weight`.
#[derive(Debug)]
pub struct TensorNames {
    /// Prefixes that checkpoints put before everything; the first that fits is taken.
    pub roots: &'static [&'static str],
    /// Tensors outside of layers.
    pub outer: &'static [(&'static str, &'static str)],
    /// What stands before the number of a layer.
    pub layer: &'static str,
    /// Tensors of a layer.
    pub inner: &'static [(&'static str, &'static str)],
    /// Whether matrices are `[inputs, outputs]` (`Conv1D` of GPT-2).
    pub transposed: bool,
}

/// The head has no root, or one of its own.
const HEAD: &str = "output";

impl TensorNames {
    /// The name in a checkpoint whose names begin with `root`; `None` for tensors that this
    /// architecture has not.
    pub fn stored(&self, root: &str, name: &str) -> Option<String> {
        if let Some(rest) = name.strip_prefix("blk.") {
            let (index, part) = rest.split_once('.')?;
            let (stem, suffix) = part.rsplit_once('.')?;
            let stored = find(self.inner, stem)?;
            return Some(format!("{root}{}{index}.{stored}.{suffix}", self.layer));
        }
        let (stem, suffix) = name.rsplit_once('.')?;
        let stored = find(self.outer, stem)?;
        let root = if stem == HEAD { "" } else { root };
        Some(format!("{root}{stored}.{suffix}"))
    }

    /// What stands before the name of the head, in a checkpoint whose names begin with `root` and
    /// where `has` tells of names that begin so.
    pub fn head_root<'r>(&self, root: &'r str, has: impl Fn(&str) -> bool) -> &'r str {
        let Some(head) = find(self.outer, HEAD) else { return "" };
        let found = |before: &&str| has(&format!("{before}{head}."));
        ["", root, "language_model."].into_iter().find(found).unwrap_or_default()
    }

    /// Whether a tensor is a part of the head.
    pub fn is_head(name: &str) -> bool {
        name.split_once('.').is_some_and(|(stem, _)| stem == HEAD)
    }

    /// Whether a matrix of that name is `[inputs, outputs]`.
    pub fn is_transposed(&self, name: &str) -> bool {
        self.transposed && name.starts_with("blk.")
    }
}

fn find(table: &'static [(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(key, _)| *key == name).map(|(_, stored)| *stored)
}

/// Llama and everything built like it.
pub const LLAMA: TensorNames = TensorNames {
    roots: &["model.", "", "model.language_model.", "language_model.model."],
    outer: &[("token_embd", "embed_tokens"), ("output_norm", "norm"), (HEAD, "lm_head")],
    layer: "layers.",
    inner: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_qkv", "self_attn.qkv_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    transposed: false,
};

/// Gemma 2 and 3, with norms behind attention and feed-forward too.
pub const GEMMA: TensorNames = TensorNames {
    inner: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
    ],
    ..LLAMA
};

/// Phi-3: joined projections.
pub const PHI3: TensorNames = TensorNames {
    inner: &[
        ("attn_norm", "input_layernorm"),
        ("attn_qkv", "self_attn.qkv_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_up", "mlp.gate_up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    ..LLAMA
};

/// GPT-2.
pub const GPT2: TensorNames = TensorNames {
    roots: &["", "transformer."],
    outer: &[
        ("token_embd", "wte"),
        ("position_embd", "wpe"),
        ("output_norm", "ln_f"),
        (HEAD, "lm_head"),
    ],
    layer: "h.",
    inner: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
    transposed: true,
};

/// BERT.
pub const BERT: TensorNames = TensorNames {
    roots: &["", "bert."],
    outer: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
    ],
    layer: "encoder.layer.",
    inner: &[
        ("attn_q", "attention.self.query"),
        ("attn_k", "attention.self.key"),
        ("attn_v", "attention.self.value"),
        ("attn_output", "attention.output.dense"),
        ("attn_output_norm", "attention.output.LayerNorm"),
        ("ffn_up", "intermediate.dense"),
        ("ffn_down", "output.dense"),
        ("layer_output_norm", "output.LayerNorm"),
    ],
    transposed: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate() {
        let cases = [
            (&LLAMA, "model.", "blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
            (&LLAMA, "model.", "token_embd.weight", "model.embed_tokens.weight"),
            (&LLAMA, "model.", "output.weight", "lm_head.weight"),
            (&GPT2, "", "blk.0.attn_qkv.bias", "h.0.attn.c_attn.bias"),
            (&BERT, "bert.", "token_embd_norm.bias", "bert.embeddings.LayerNorm.bias"),
        ];
        for (table, root, name, stored) in cases {
            assert_eq!(table.stored(root, name).as_deref(), Some(stored));
        }
        assert_eq!(PHI3.stored("model.", "blk.0.attn_q.weight"), None);
    }

    #[test]
    fn the_head_is_found_wherever_checkpoints_put_it() {
        for (root, stored, before) in [
            ("model.", "lm_head.weight", ""),
            ("language_model.model.", "language_model.lm_head.weight", "language_model."),
            ("model.language_model.", "lm_head.qweight", ""),
            (
                "model.language_model.",
                "model.language_model.lm_head.weight",
                "model.language_model.",
            ),
            ("model.", "lm_heads.weight", ""),
        ] {
            assert_eq!(LLAMA.head_root(root, |name| stored.starts_with(name)), before, "{stored}");
        }
        assert!(
            TensorNames::is_head("output.weight") && !TensorNames::is_head("output_norm.weight")
        );
    }
}
