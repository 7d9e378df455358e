//! Settings by which models of a family differ: none is passed over in silence.

mod random;

use fewbit_llm::arch::{self, Network};
use fewbit_llm::graph::decoder::Decoder;
use random::{RandomWeights, settings};
use serde_json::{Value, json};

/// The network of a family, with some settings of its own.
fn network(name: &str, fields: &Value) -> Decoder {
    let mut settings = settings(name);
    for (field, value) in fields.as_object().unwrap() {
        settings.set(field, value.clone());
    }
    let found = arch::find(name).unwrap();
    match (found.network)(&settings, &RandomWeights::of(name)).unwrap() {
        Network::Decoder(decoder) => decoder,
        Network::Encoder(_) => panic!("{name} is an encoder"),
    }
}

#[test]
fn settings_are_heard() {
    let local = json!(["full_attention", "sliding_attention"]);
    for (name, fields) in [
        ("llama", json!({"hidden_act": "gelu"})),
        ("mistral", json!({"sliding_window": null})),
        ("qwen2", json!({"use_sliding_window": true, "layer_types": local})),
        ("qwen3", json!({"use_sliding_window": true, "max_window_layers": 1})),
        ("gemma2", json!({"attn_logit_softcapping": null})),
        ("gemma2", json!({"final_logit_softcapping": null})),
        ("gemma2", json!({"layer_types": local})),
        ("gemma3_text", json!({"layer_types": local, "sliding_window": 8})),
        ("gemma3_text", json!({"final_logit_softcapping": 30.0})),
        ("phi3", json!({"sliding_window": null})),
        ("smollm3", json!({"use_sliding_window": true})),
        ("smollm3", json!({"no_rope_layers": [1, 1]})),
        ("gpt2", json!({"scale_attn_weights": false})),
    ] {
        assert_ne!(network(name, &fields), network(name, &json!({})), "{name}: {fields}");
    }
}

#[test]
fn windows_are_those_of_the_layers_named() {
    let local = json!(["full_attention", "sliding_attention"]);
    for name in ["qwen2", "qwen3", "gemma2", "gemma3_text", "smollm3"] {
        let fields = json!({"use_sliding_window": true, "layer_types": local});
        let layers = network(name, &fields).layers;
        assert_eq!([layers[0].window, layers[1].window], [None, Some(4)], "{name}");
    }
}

#[test]
fn a_window_of_nothing_is_none() {
    for name in ["mistral", "phi3"] {
        assert_eq!(network(name, &json!({"sliding_window": 0})).layers[0].window, None, "{name}");
    }
}

#[test]
fn a_part_of_each_head_is_rotated_wherever_the_settings_say_so() {
    let rotation = json!({"rope_type": "default", "rope_theta": 10000.0});
    let mut within = rotation.clone();
    within["partial_rotary_factor"] = json!(0.5);
    let apart =
        json!({"rope_scaling": null, "rope_parameters": rotation, "partial_rotary_factor": 0.5});
    let within = json!({
        "rope_scaling": null, "rope_parameters": within, "partial_rotary_factor": null,
    });
    let (apart, within) = (network("phi3", &apart), network("phi3", &within));
    assert_eq!(apart, within);
    assert_eq!(4 * within.rotaries[0].frequencies.len(), within.heads.size);
}

#[test]
fn dynamic_rotation_is_the_plain_one_within_the_context() {
    let rotated = |scaling: Value| network("llama", &json!({"rope_scaling": scaling}));
    let dynamic = json!({"rope_type": "dynamic", "factor": 2.0});
    assert_eq!(rotated(dynamic), rotated(Value::Null));
}

#[test]
fn long_texts_turn_in_another_way() {
    let decoder = network("phi3", &json!({}));
    let [short, long] = [32, 33].map(|longest| decoder.for_texts(longest).rotaries[0].clone());
    let ratios = short.frequencies.iter().zip(&long.frequencies).map(|(a, b)| a / b);
    assert_eq!(ratios.collect::<Vec<_>>(), [2.0, 3.0]);
    // A model that knows short texts only has one way.
    let short = network("phi3", &json!({"max_position_embeddings": 32}));
    assert_eq!(short.rotaries[0].long, None);
}

#[test]
fn attention_that_no_layer_here_has_is_refused() {
    let mut settings = settings("gpt2");
    settings.set("scale_attn_by_inverse_layer_idx", true);
    let found = arch::find("gpt2").unwrap();
    let error = (found.network)(&settings, &RandomWeights::of("gpt2")).unwrap_err();
    assert_eq!(error.stable_code(), "FB-4705");
}
