//! Quantized folders of a small random model, against the dequantizers of the libraries that read
//! them: compressed-tensors, GPTQModel and AutoAWQ, written here once more from their definitions.

mod random;

use fewbit::formats::safetensors::{self, SafetensorsFile};
use fewbit::llm::LanguageModel;
use fewbit::llm::graph::decoder::State;
use fewbit::llm::graph::names;
use fewbit::{DType, FolderJob, FolderType, Mode, Session, SessionOptions, Silent, Tensor};
use random::{folder, random};
use sha2::{Digest, Sha256};
use std::path::Path;

fn logits(path: &Path, mode: Mode) -> Vec<f32> {
    let model = LanguageModel::open(path).unwrap();
    let graph = model.graph(State::None).unwrap();
    let session = Session::new(&graph, &SessionOptions::new(mode)).unwrap();
    let row = |values: Vec<i64>| Tensor::from_slice(vec![1, values.len()], &values).unwrap();
    let inputs = vec![
        (names::TOKENS, row(vec![3, 1, 4, 1, 5, 9])),
        (names::POSITIONS, row((0..6).collect())),
        (names::ROWS, Tensor::vector(&(0..6i64).collect::<Vec<_>>())),
    ];
    session.run_owned(inputs).unwrap()[0].1.to_f32().unwrap()
}

fn words(file: &SafetensorsFile, name: &str) -> (Vec<usize>, Vec<u32>) {
    let tensor = file.require(name).unwrap();
    assert_eq!(tensor.dtype, DType::I32);
    let words = tensor.bytes.as_ref().as_chunks().0.iter().map(|b| u32::from_le_bytes(*b));
    (tensor.shape.clone(), words.collect())
}

fn floats(file: &SafetensorsFile, name: &str) -> Vec<f32> {
    file.require(name).unwrap().to_tensor().unwrap().to_f32().unwrap()
}

/// `unpack_from_int32` and `dequantize` of compressed-tensors.
fn packed(file: &SafetensorsFile, layer: &str, bits: usize) -> Vec<f32> {
    let shape = file.require(&format!("{layer}.weight_shape")).unwrap().to_tensor().unwrap();
    let [rows, columns] = shape.to_vec::<i64>().unwrap()[..] else { panic!("no matrix") };
    let (rows, columns) = (rows as usize, columns as usize);
    let (shape, words) = words(file, &format!("{layer}.weight_packed"));
    assert_eq!(shape, [rows, (columns * bits).div_ceil(32)]);
    let scales = floats(file, &format!("{layer}.weight_scale"));
    let groups = scales.len() / rows;
    let value = |r: usize, c: usize| {
        let word = words[r * shape[1] + c / (32 / bits)];
        let code = (word >> (bits * (c % (32 / bits)))) & ((1 << bits) - 1);
        (code as i32 - (1 << (bits - 1))) as f32 * scales[r * groups + c / (columns / groups)]
    };
    (0..rows).flat_map(|r| (0..columns).map(move |c| value(r, c))).collect()
}

fn whole_bytes(file: &SafetensorsFile, layer: &str) -> Vec<f32> {
    let codes = floats(file, &format!("{layer}.weight"));
    let scales = floats(file, &format!("{layer}.weight_scale"));
    let columns = codes.len() / scales.len();
    codes.iter().enumerate().map(|(i, code)| code * scales[i / columns]).collect()
}

/// `dequantize_weight` of GPTQModel, first version of the format.
fn gptq(file: &SafetensorsFile, layer: &str, bits: usize) -> Vec<f32> {
    let (shape, words_of_codes) = words(file, &format!("{layer}.qweight"));
    let (n, rows) = (32 / bits, shape[1]);
    let columns = shape[0] * n;
    let (zero_shape, zeros) = words(file, &format!("{layer}.qzeros"));
    let scales = floats(file, &format!("{layer}.scales"));
    let (_, order) = words(file, &format!("{layer}.g_idx"));
    let mask = ((1u64 << bits) - 1) as u32;
    let value = |o: usize, i: usize| {
        let code = (words_of_codes[i / n * rows + o] >> (bits * (i % n))) & mask;
        let group = order[i] as usize;
        let zero = (zeros[group * zero_shape[1] + o / n] >> (bits * (o % n))) & mask;
        (code as i32 - (zero as i32 + 1)) as f32 * scales[group * rows + o]
    };
    (0..rows).flat_map(|o| (0..columns).map(move |i| value(o, i))).collect()
}

/// `dequantize_gemm` of AutoAWQ.
fn awq(file: &SafetensorsFile, layer: &str) -> Vec<f32> {
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let (shape, codes) = words(file, &format!("{layer}.qweight"));
    let (_, zeros) = words(file, &format!("{layer}.qzeros"));
    let scales = floats(file, &format!("{layer}.scales"));
    let (columns, width) = (shape[0], shape[1]);
    let rows = width * 8;
    let group = columns / (scales.len() / rows);
    let nibble = |words: &[u32], row: usize, o: usize| {
        let place = ORDER.iter().position(|&at| at == o % 8).unwrap();
        ((words[row * width + o / 8] >> (4 * place)) & 15) as i32
    };
    let value = |o: usize, i: usize| {
        let difference = nibble(&codes, i, o) - nibble(&zeros, i / group, o);
        difference as f32 * scales[i / group * rows + o]
    };
    (0..rows).flat_map(|o| (0..columns).map(move |i| value(o, i))).collect()
}

fn dequantized(file: &SafetensorsFile, ty: FolderType, layer: &str) -> Vec<f32> {
    match ty {
        FolderType::W4A16 => packed(file, layer, 4),
        FolderType::W8A16 => packed(file, layer, 8),
        FolderType::Gptq4 => gptq(file, layer, 4),
        FolderType::Gptq8 => gptq(file, layer, 8),
        FolderType::Awq => awq(file, layer),
        _ => whole_bytes(file, layer),
    }
}

#[test]
fn folders_mean_what_the_libraries_read() {
    let dir = tempfile::tempdir().unwrap();
    let (tensors, float) = (random(), dir.path().join("float"));
    folder(&float, &tensors);
    for (ty, most) in [
        (FolderType::W4A16, 0.15),
        (FolderType::W8A16, 0.01),
        (FolderType::W8A8, 0.01),
        (FolderType::Fp8, 0.05),
        (FolderType::Gptq4, 0.15),
        (FolderType::Gptq8, 0.01),
        (FolderType::Awq, 0.15),
    ] {
        let out = dir.path().join(ty.name());
        let mut job = FolderJob::new(&float, ty);
        job.group = 32;
        let report = job.run(&out, false, &Silent).unwrap();
        let file = safetensors::read(&out).unwrap();
        let mut decoded = tensors.clone();
        for line in report.tensors.iter().filter(|line| line.to == ty.name()) {
            let values = dequantized(&file, ty, line.name.strip_suffix(".weight").unwrap());
            let before = &tensors[&line.name].1;
            assert_eq!(values.len(), before.len(), "{}", line.name);
            let error: f32 = values.iter().zip(before).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f32 = before.iter().map(|b| b * b).sum();
            assert!((error / size).sqrt() < most, "{} {}: {error} {size}", ty.name(), line.name);
            let loss = line.loss.unwrap();
            assert!((f64::from(error / size) - loss).abs() < 0.01 * loss + 1e-9);
            decoded.get_mut(&line.name).unwrap().1 = values;
        }
        assert_eq!(report.tensors.iter().filter(|line| line.to == ty.name()).count(), 7);
        let plain = dir.path().join(format!("{}-decoded", ty.name()));
        folder(&plain, &decoded);
        let (found, expected) = (logits(&out, Mode::Float), logits(&plain, Mode::Float));
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5, "{}: {a} {b}", ty.name());
        }
        // Where inputs are quantized too, Simulate does that, and Integer gives the same.
        let quantized = logits(&out, Mode::Simulate);
        let differs = quantized.iter().zip(&found).any(|(a, b)| (a - b).abs() > 1e-4);
        assert_eq!(differs, matches!(ty, FolderType::W8A8 | FolderType::Fp8), "{}", ty.name());
        let integer = logits(&out, Mode::Integer);
        for (a, b) in integer.iter().zip(&quantized) {
            assert!((a - b).abs() < 1e-3, "{}: {a} {b}", ty.name());
        }
    }
}

#[test]
fn a_group_of_0_is_all_of_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let (tensors, float) = (random(), dir.path().join("float"));
    folder(&float, &tensors);
    for (ty, size, scales) in [
        (FolderType::Gptq4, "group_size", "scales"),
        (FolderType::Gptq8, "group_size", "scales"),
        (FolderType::Awq, "group_size", "scales"),
        (FolderType::W4A16, "config_groups", "weight_scale"),
    ] {
        let out = dir.path().join(ty.name());
        let mut job = FolderJob::new(&float, ty);
        (job.group, job.fallback) = (0, false);
        job.run(&out, false, &Silent).unwrap();
        let file = safetensors::read(&out).unwrap();
        let mut decoded = tensors.clone();
        for (name, (_, values)) in decoded.iter_mut().filter(|(name, _)| name.contains("proj")) {
            let layer = name.strip_suffix(".weight").unwrap();
            assert!(file.require(&format!("{layer}.{scales}")).unwrap().shape.contains(&1));
            *values = dequantized(&file, ty, layer);
        }
        let config = std::fs::read_to_string(out.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let said = &config["quantization_config"][size];
        match said["group_0"]["weights"]["strategy"].as_str() {
            None => assert_eq!(said, -1, "{}", ty.name()),
            Some(strategy) => assert_eq!(strategy, "channel"),
        }
        let plain = dir.path().join(format!("{}-decoded", ty.name()));
        folder(&plain, &decoded);
        let (found, expected) = (logits(&out, Mode::Float), logits(&plain, Mode::Float));
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{}", ty.name());
    }
}

#[test]
fn the_group_of_all_matrices_is_told_where_it_is_all_of_some_rows() {
    let dir = tempfile::tempdir().unwrap();
    let float = dir.path().join("float");
    folder(&float, &random());
    let mut job = FolderJob::new(&float, FolderType::Gptq4);
    job.group = 64;
    job.run(&dir.path().join("out"), false, &Silent).unwrap();
    let config = std::fs::read_to_string(dir.path().join("out/quantize_config.json")).unwrap();
    assert!(config.contains("\"group_size\": 64"), "{config}");
}

/// The bytes of every layout. The libraries were asked about these very files (`dequantizers.rs`,
/// `transformers.rs`); where a digest changes on purpose, ask them again.
#[test]
fn layouts_have_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let float = dir.path().join("float");
    folder(&float, &random());
    for (ty, golden) in GOLDEN {
        let out = dir.path().join(ty.name());
        let mut job = FolderJob::new(&float, *ty);
        job.group = 32;
        job.run(&out, false, &Silent).unwrap();
        let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest[..16], **golden, "{}", ty.name());
    }
}

/// Beginnings of SHA-256 of `model.safetensors`.
const GOLDEN: &[(FolderType, &str)] = &[
    (FolderType::Float(DType::F32), "5c742fdd3bf720d0"),
    (FolderType::Float(DType::F16), "dc8232309d39b86a"),
    (FolderType::Float(DType::BF16), "3e73dc9dc79388e3"),
    (FolderType::W4A16, "9681db4406c3098f"),
    (FolderType::W8A16, "ae18683b1baba61a"),
    (FolderType::W8A8, "0728eb43809f142f"),
    (FolderType::Fp8, "cf6619cf9bfe82f2"),
    (FolderType::Gptq4, "57b93e1520be0a37"),
    (FolderType::Gptq8, "92bf19d3998b1d30"),
    (FolderType::Awq, "3624d4432696a937"),
];

#[test]
fn predictions_are_those_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let float = dir.path().join("float");
    folder(&float, &random());
    let mut job = FolderJob::new(&float, FolderType::W4A16);
    job.group = 32;
    let report = job.run(&dir.path().join("out"), false, &Silent).unwrap();
    let predicted = job.predict(&Silent).unwrap();
    assert_eq!(predicted.tensors.len(), report.tensors.len());
    for (a, b) in predicted.tensors.iter().zip(&report.tensors) {
        assert_eq!(
            (&a.name, a.to, a.bytes, a.loss.is_some()),
            (&b.name, b.to, b.bytes, b.loss.is_some())
        );
    }
    assert!(predicted.file_bytes <= report.file_bytes);
}

#[test]
fn damaged_folders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (float, out) = (dir.path().join("float"), dir.path().join("out"));
    folder(&float, &random());
    let mut job = FolderJob::new(&float, FolderType::Gptq4);
    job.group = 32;
    job.run(&out, false, &Silent).unwrap();
    let text = std::fs::read_to_string(out.join("config.json")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from));
        std::fs::write(out.join("config.json"), text.replace(from, to)).unwrap();
        let opened = LanguageModel::open(&out);
        opened.and_then(|model| model.graph(State::None).map(|_| ())).unwrap_err()
    };
    assert_eq!(
        with("\"quant_method\": \"gptq\"", "\"quant_method\": \"marlin\"").stable_code(),
        "FB-4717"
    );
    assert_eq!(with("\"bits\": 4", "\"bits\": 3").stable_code(), "FB-4505");
    assert_eq!(with("\"bits\": 4", "\"bits\": 8").stable_code(), "FB-3517");
    // Groups of inputs by importance, of which nothing says which they are.
    let path = out.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() - 5 {
        if bytes[at..].starts_with(b"g_idx") {
            bytes[at] = b'x';
        }
    }
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(with("\"desc_act\": false", "\"desc_act\": true").stable_code(), "FB-3701");
}
