//! Which block type each tensor of a language model gets: the mixes of llama.cpp, as data.
//!
//! A file type such as Q4_K_M is a default type and exceptions to it: tensors that suffer more
//! get more bits. The rules are those of llama-quantize (`llama_tensor_get_type_impl`), so that a
//! file of ours has the layout that its name promises.

use fewbit_core::codec::block::BlockType;
use fewbit_core::{Error, Result};

/// Declares [`FileType`]: variant, name, number in `general.file_type`, default block type.
macro_rules! file_types {
    ($($(#[$doc:meta])* $variant:ident $name:literal $id:literal $default:ident;)*) => {
        /// What a GGUF file is mostly made of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FileType { $($(#[$doc])* $variant,)* }

        impl FileType {
            /// Every file type that can be written.
            pub const ALL: &'static [FileType] = &[$(FileType::$variant,)*];

            /// The name that llama-quantize takes.
            pub const fn name(self) -> &'static str {
                match self { $(FileType::$variant => $name,)* }
            }

            /// The number in `general.file_type` (`enum llama_ftype`).
            pub const fn id(self) -> u32 {
                match self { $(FileType::$variant => $id,)* }
            }

            /// The type of tensors without a rule of their own.
            pub const fn default_type(self) -> BlockType {
                match self { $(FileType::$variant => BlockType::$default,)* }
            }
        }
    };
}

file_types! {
    /// 32-bit floats.
    F32 "F32" 0 F32;
    /// 16-bit floats.
    F16 "F16" 1 F16;
    /// Upper halves of 32-bit floats.
    Bf16 "BF16" 32 BF16;
    /// 8.5 bits.
    Q8_0 "Q8_0" 7 Q8_0;
    /// 6.6 bits.
    Q6K "Q6_K" 18 Q6K;
    /// 5.7 bits; sensitive tensors in 6.6.
    Q5KM "Q5_K_M" 17 Q5K;
    /// 5.5 bits.
    Q5KS "Q5_K_S" 16 Q5K;
    /// 6 bits, with minima.
    Q5_1 "Q5_1" 9 Q5_1;
    /// 5.5 bits.
    Q5_0 "Q5_0" 8 Q5_0;
    /// 4.5 bits; sensitive tensors in 6.6.
    Q4KM "Q4_K_M" 15 Q4K;
    /// 4.5 bits; a few tensors in 5.5.
    Q4KS "Q4_K_S" 14 Q4K;
    /// 5 bits, with minima.
    Q4_1 "Q4_1" 3 Q4_1;
    /// 4.5 bits.
    Q4_0 "Q4_0" 2 Q4_0;
    /// 4.5 bits into 16 fixed values.
    Iq4Nl "IQ4_NL" 25 Iq4Nl;
    /// 4.25 bits into 16 fixed values.
    Iq4Xs "IQ4_XS" 30 Iq4Xs;
    /// 4.25 bits, floats of 4 bits.
    Mxfp4 "MXFP4" 38 Mxfp4;
    /// 3.4 bits; sensitive tensors in 5.5.
    Q3KL "Q3_K_L" 13 Q3K;
    /// 3.4 bits; sensitive tensors in 4.5.
    Q3KM "Q3_K_M" 12 Q3K;
    /// 3.4 bits.
    Q3KS "Q3_K_S" 11 Q3K;
    /// 3.4 bits by codebook; sensitive tensors in 4.5.
    Iq3M "IQ3_M" 27 Iq3S;
    /// 3.4 bits by codebook.
    Iq3S "IQ3_S" 26 Iq3S;
    /// 2.6 bits; sensitive tensors in 3.4 and 4.5.
    Q2K "Q2_K" 10 Q2K;
    /// 2.6 bits; a few tensors in 4.5.
    Q2KS "Q2_K_S" 21 Q2K;
    /// 2.06 bits, for networks trained to three values.
    Tq2_0 "TQ2_0" 37 Tq2_0;
    /// 1.7 bits, for networks trained to three values.
    Tq1_0 "TQ1_0" 36 Tq1_0;
}

impl FileType {
    /// The file type called `name`, in upper or lower case.
    ///
    /// # Errors
    /// When none is called so.
    pub fn from_name(name: &str) -> Result<FileType> {
        let alias = match name.to_ascii_uppercase().as_str() {
            "Q4_K" => "Q4_K_M".to_string(),
            "Q5_K" => "Q5_K_M".to_string(),
            "Q3_K" => "Q3_K_M".to_string(),
            other => other.to_string(),
        };
        let known = FileType::ALL.iter().find(|t| t.name() == alias);
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = FileType::ALL.iter().map(|t| t.name()).collect();
            Error::usage(format!("there is no file type `{name}`"))
                .code("FB-2701")
                .hint(format!("one of: {}", names.join(", ")))
        })
    }

    /// Whether this is a float type, so that every matrix gets it.
    pub fn is_float(self) -> bool {
        matches!(self, FileType::F32 | FileType::F16 | FileType::Bf16)
    }
}

/// What a tensor does in the model, as far as the mixes tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// From hidden states to the vocabulary; also the embedding where both are one.
    Output,
    /// From tokens to hidden states.
    Embedding,
    /// Values of attention, alone or with queries and keys.
    AttentionValue,
    /// Output of attention.
    AttentionOutput,
    /// The second matrix of the feed-forward network.
    FeedForwardDown,
    /// Any other matrix.
    Other,
}

/// What the mixes know of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// `general.architecture`.
    pub architecture: String,
    /// Layers.
    pub layers: usize,
    /// Query heads that share a key and value head.
    pub heads_per_kv: usize,
    /// Whether the embedding is also the output matrix.
    pub tied: bool,
    /// Whether there is an importance matrix.
    pub importance: bool,
}

impl ModelShape {
    /// The role of the tensor called `name`.
    pub fn role(&self, name: &str) -> Role {
        match name {
            "output.weight" => Role::Output,
            "token_embd.weight" if self.tied => Role::Output,
            "token_embd.weight" => Role::Embedding,
            _ if ["attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"]
                .iter()
                .any(|part| name.contains(part)) =>
            {
                Role::AttentionValue
            }
            _ if name.contains("attn_output.weight") => Role::AttentionOutput,
            _ if name.contains("ffn_down") => Role::FeedForwardDown,
            _ => Role::Other,
        }
    }
}

/// When a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// At least four query heads share a value head, so that the tensor is small.
    Grouped,
    /// Layers below the number.
    Below(usize),
    /// The first of so many parts of the layers.
    First(usize),
    /// As `First`, where there is an importance matrix.
    FirstImportant(usize),
    /// As `First`, where there is none.
    FirstUnimportant(usize),
    /// The first and last eighth of the layers, and every third between.
    MoreBits,
    /// The 80 layers of the 70-billion model with shared value heads.
    Large,
}

impl When {
    fn holds(self, model: &ModelShape, layer: usize) -> bool {
        let n = model.layers;
        match self {
            When::Always => true,
            When::Grouped => model.heads_per_kv >= 4,
            When::Below(number) => layer < number,
            When::First(parts) => layer < n / parts,
            When::FirstImportant(parts) => model.importance && layer < n / parts,
            When::FirstUnimportant(parts) => !model.importance && layer < n / parts,
            When::MoreBits => {
                let first = n / 8;
                layer < first || layer >= 7 * n / 8 || (layer - first) % 3 == 2
            }
            When::Large => model.architecture == "llama" && n == 80 && model.heads_per_kv > 1,
        }
    }

    fn reason(self) -> String {
        match self {
            When::Always => String::new(),
            When::Grouped => ", small as heads share it".to_string(),
            When::Below(number) => format!(", one of the first {number} layers"),
            When::First(n) | When::FirstImportant(n) | When::FirstUnimportant(n) => {
                format!(", in the first 1/{n} of the layers")
            }
            When::MoreBits => ", in a layer that gets more bits".to_string(),
            When::Large => ", small as 8 heads share it".to_string(),
        }
    }
}

type Rule = (Role, &'static [FileType], When, BlockType);

/// The exceptions to the default type; the first that applies counts.
const RULES: &[Rule] = {
    use BlockType as B;
    use FileType::*;
    use Role::*;
    const IQ4: &[FileType] = &[Iq4Nl, Iq4Xs];
    &[
        (Embedding, &[Tq1_0, Tq2_0], When::Always, B::Q4K),
        (AttentionValue, &[Q2K, Q2KS], When::Grouped, B::Q4K),
        (AttentionValue, &[Q2K], When::Always, B::Q3K),
        (AttentionValue, &[Iq3S], When::Grouped, B::Q4K),
        (AttentionValue, &[Iq3M], When::Large, B::Q5K),
        (AttentionValue, &[Iq3M], When::Always, B::Q4K),
        (AttentionValue, &[Q3KM], When::Below(2), B::Q5K),
        (AttentionValue, &[Q3KM], When::Large, B::Q5K),
        (AttentionValue, &[Q3KM], When::Always, B::Q4K),
        (AttentionValue, &[Q3KL], When::Always, B::Q5K),
        (AttentionValue, IQ4, When::Grouped, B::Q5K),
        (AttentionValue, &[Q4KM, Q5KM], When::MoreBits, B::Q6K),
        (AttentionValue, &[Q4KS], When::Below(4), B::Q5K),
        (AttentionValue, &[Q3KS, Q4KS, Q4KM], When::Large, B::Q5K),
        (FeedForwardDown, &[Q2K], When::Always, B::Q3K),
        (FeedForwardDown, &[Q2KS], When::First(8), B::Q4K),
        (FeedForwardDown, &[Q3KM], When::First(16), B::Q5K),
        (FeedForwardDown, &[Q3KM], When::Always, B::Q4K),
        (FeedForwardDown, &[Iq3M], When::First(8), B::Q4K),
        (FeedForwardDown, &[Q3KL], When::Always, B::Q5K),
        (FeedForwardDown, &[Q4KM, Q5KM], When::MoreBits, B::Q6K),
        (FeedForwardDown, IQ4, When::FirstUnimportant(8), B::Q5K),
        (FeedForwardDown, &[Q4KS], When::First(8), B::Q5K),
        (FeedForwardDown, &[Q4_0], When::FirstImportant(8), B::Q4_1),
        (FeedForwardDown, &[Q5_0], When::FirstImportant(8), B::Q5_1),
        (AttentionOutput, &[Q2K], When::Always, B::Q3K),
        (AttentionOutput, &[Q3KM, Iq3M], When::Always, B::Q4K),
        (AttentionOutput, &[Q3KL], When::Always, B::Q5K),
    ]
};

/// Parts of names whose tensors stay as they are, although they are matrices.
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "position_embd.weight",
    "token_types.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "attn_rel_b.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "time_mix_",
];

/// The type of one tensor, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The type to write; `None` where the tensor stays as it is.
    pub ty: Option<BlockType>,
    /// Why, for people.
    pub reason: String,
    /// The type that the mix wanted, where rows are no whole number of its blocks.
    pub instead_of: Option<BlockType>,
}

/// The type that `file_type` gives the tensor `name` with dimensions `shape`, outermost first.
///
/// Where rows are no whole number of blocks another type takes its place, as in llama.cpp; the
/// choice says so.
pub fn choose(model: &ModelShape, name: &str, shape: &[usize], file_type: FileType) -> Choice {
    let keep = |reason: &str| Choice { ty: None, reason: reason.to_string(), instead_of: None };
    let dimensions = shape.iter().skip_while(|&&d| d == 1).count();
    if dimensions < 2 {
        return keep("no matrix");
    }
    if !name.ends_with("weight") || KEPT.iter().any(|part| name.contains(part)) {
        return keep("small and sensitive");
    }
    if file_type.is_float() {
        let (ty, reason) = (Some(file_type.default_type()), "float".to_string());
        return Choice { ty, reason, instead_of: None };
    }
    let columns = shape.last().copied().unwrap_or(1);
    let (wanted, reason) = wanted(model, name, columns, file_type);
    let ty = fitting(wanted, columns);
    Choice { ty: Some(ty), reason, instead_of: (ty != wanted).then_some(wanted) }
}

/// The type by the rules, whatever the width allows.
fn wanted(
    model: &ModelShape,
    name: &str,
    columns: usize,
    file_type: FileType,
) -> (BlockType, String) {
    let (role, default) = (model.role(name), file_type.default_type());
    if role == Role::Output {
        let odd = !columns.is_multiple_of(default.elements());
        let eight = odd || matches!(file_type, FileType::Q8_0 | FileType::Mxfp4);
        let ty = if eight { BlockType::Q8_0 } else { BlockType::Q6K };
        return (ty, "output matrix".to_string());
    }
    let layer = layer(name).unwrap_or(0);
    let applies =
        |rule: &&Rule| rule.0 == role && rule.1.contains(&file_type) && rule.2.holds(model, layer);
    match RULES.iter().find(applies) {
        Some((_, _, when, ty)) => (*ty, format!("{}{}", described(role), when.reason())),
        None => (default, "default".to_string()),
    }
}

fn described(role: Role) -> &'static str {
    match role {
        Role::Output => "output matrix",
        Role::Embedding => "embedding",
        Role::AttentionValue => "values of attention",
        Role::AttentionOutput => "output of attention",
        Role::FeedForwardDown => "down projection",
        Role::Other => "matrix",
    }
}

/// The number in `blk.N.`.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// The type itself where rows are whole blocks, else the one that llama.cpp takes instead.
fn fitting(ty: BlockType, columns: usize) -> BlockType {
    use BlockType::*;
    if columns.is_multiple_of(ty.elements()) {
        return ty;
    }
    let smaller = match ty {
        Iq3S | Iq4Xs => Iq4Nl,
        Q2K | Q3K | Tq1_0 | Tq2_0 => Q4_0,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        other => other,
    };
    if columns.is_multiple_of(smaller.elements()) { smaller } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(layers: usize, heads_per_kv: usize, tied: bool, importance: bool) -> ModelShape {
        let architecture = "llama".to_string();
        ModelShape { architecture, layers, heads_per_kv, tied, importance }
    }

    fn types(model: &ModelShape, part: &str, columns: usize, file_type: FileType) -> String {
        let one = |layer: usize| {
            let name = format!("blk.{layer}.{part}.weight");
            choose(model, &name, &[64, columns], file_type).ty.unwrap().name().to_string()
        };
        (0..model.layers).map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn q4_k_m_gives_more_bits_to_some_layers() {
        let m = model(8, 8, false, false);
        let expected = "Q6_K Q4_K Q4_K Q6_K Q4_K Q4_K Q6_K Q6_K";
        assert_eq!(types(&m, "attn_v", 2048, FileType::Q4KM), expected);
        assert_eq!(types(&m, "ffn_down", 2048, FileType::Q4KM), expected);
        assert!(!types(&m, "ffn_up", 2048, FileType::Q4KM).contains("Q6_K"));
    }

    #[test]
    fn output_and_embedding() {
        let ty = |m: &ModelShape, name: &str, columns, file_type| {
            choose(m, name, &[1000, columns], file_type).ty.unwrap().name()
        };
        let (tied, own) = (model(4, 1, true, false), model(4, 1, false, false));
        assert_eq!(ty(&tied, "token_embd.weight", 512, FileType::Q4_0), "Q6_K");
        assert_eq!(ty(&own, "token_embd.weight", 512, FileType::Q4_0), "Q4_0");
        assert_eq!(ty(&own, "output.weight", 512, FileType::Q4_0), "Q6_K");
        assert_eq!(ty(&own, "output.weight", 576, FileType::Q4_0), "Q8_0");
        assert_eq!(ty(&own, "output.weight", 512, FileType::Q8_0), "Q8_0");
        assert_eq!(ty(&own, "token_embd.weight", 512, FileType::Tq2_0), "Q4_K");
    }

    #[test]
    fn narrow_rows_take_another_type_and_say_so() {
        let m = model(4, 1, false, false);
        let choice = choose(&m, "blk.1.attn_k.weight", &[64, 576], FileType::Q4KM);
        assert_eq!((choice.ty, choice.instead_of), (Some(BlockType::Q5_0), Some(BlockType::Q4K)));
        let choice = choose(&m, "blk.1.attn_k.weight", &[64, 20], FileType::Q4_0);
        assert_eq!((choice.ty, choice.instead_of), (Some(BlockType::F16), Some(BlockType::Q4_0)));
    }

    #[test]
    fn vectors_and_norms_stay() {
        let m = model(4, 1, false, false);
        for (name, shape) in [
            ("blk.0.attn_norm.weight", &[64, 64][..]),
            ("blk.0.attn_q.bias", &[64, 64]),
            ("blk.0.ffn_up.weight", &[64]),
            ("position_embd.weight", &[64, 64]),
        ] {
            assert_eq!(choose(&m, name, shape, FileType::Q8_0).ty, None, "{name}");
        }
    }

    /// SmolLM2-135M: 30 layers, 9 heads on 3, tied, width 576 and 1536. The counts are those of
    /// the files that llama-quantize makes.
    #[test]
    fn counts_are_those_of_llama_quantize() {
        let count = |file_type: FileType, importance: bool, ty: BlockType| {
            let m = model(30, 3, true, importance);
            let parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"];
            let wide = parts.iter().map(|part| (part, 576)).chain([(&"ffn_down", 1536)]);
            let names = wide.flat_map(|(part, columns)| {
                (0..30).map(move |layer| (format!("blk.{layer}.{part}.weight"), columns))
            });
            let all = names.chain([("token_embd.weight".to_string(), 576)]);
            let types = all.map(|(name, columns)| choose(&m, &name, &[64, columns], file_type).ty);
            types.filter(|t| *t == Some(ty)).count()
        };
        assert_eq!(count(FileType::Q6K, false, BlockType::Q8_0), 181);
        assert_eq!(count(FileType::Q6K, false, BlockType::Q6K), 30);
        assert_eq!(count(FileType::Q4KM, false, BlockType::Q5_0), 166);
        assert_eq!(count(FileType::Q4KS, false, BlockType::Q5_0), 176);
        assert_eq!(count(FileType::Q4KS, false, BlockType::Q4K), 27);
        assert_eq!(count(FileType::Q3KM, false, BlockType::Q4_0), 120);
        assert_eq!(count(FileType::Q3KM, false, BlockType::Q5_0), 58);
        assert_eq!(count(FileType::Q3KM, false, BlockType::Q4K), 29);
        assert_eq!(count(FileType::Q2K, false, BlockType::Q3K), 30);
        assert_eq!(count(FileType::Iq3M, true, BlockType::Iq3S), 27);
        assert_eq!(count(FileType::Iq3M, true, BlockType::Iq4Nl), 120);
        assert_eq!(count(FileType::Iq4Nl, false, BlockType::Q5K), 3);
        assert_eq!(count(FileType::Q4_0, true, BlockType::Q4_1), 3);
        assert_eq!(count(FileType::Q4_0, false, BlockType::Q4_1), 0);
    }

    #[test]
    fn names_are_taken_in_any_case() {
        for &file_type in FileType::ALL {
            assert_eq!(FileType::from_name(&file_type.name().to_lowercase()).unwrap(), file_type);
        }
        assert_eq!(FileType::from_name("q4_k").unwrap(), FileType::Q4KM);
        assert_eq!(FileType::from_name("q9").unwrap_err().stable_code(), "FB-2701");
    }
}
