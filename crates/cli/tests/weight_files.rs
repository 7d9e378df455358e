//! `fewbit inspect` of GGUF and safetensors: sound files, folders, and a sample of hostile ones.

mod process;

use process::{Ran, run};
use std::path::{Path, PathBuf};
use tempfile::tempdir;

/// A GGUF file of one key and one tensor of four 8-bit integers at this offset.
fn gguf(key: &str, offset: u64) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend([1u64.to_le_bytes(), 1u64.to_le_bytes()].concat());
    out.extend(text(key));
    out.extend(8u32.to_le_bytes());
    out.extend(text("llama"));
    out.extend(text("blk.0.w\x1b[2J"));
    out.extend(1u32.to_le_bytes());
    out.extend(4u64.to_le_bytes());
    out.extend(24u32.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend([1, 2, 3, 4]);
    out
}

fn safetensors(shape: &str) -> Vec<u8> {
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},"w":{{"dtype":"F16","shape":{shape},"data_offsets":[0,8]}}}}"#
    );
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()
}

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn inspect(path: &Path, more: &[&str]) -> Ran {
    let path = path.display().to_string();
    run([&["inspect", path.as_str()], more].concat())
}

#[test]
fn gguf_is_shown() {
    let dir = tempdir().unwrap();
    let path = write(dir.path(), "model.bin", gguf("general.architecture", 0));
    let text = inspect(&path, &[]).succeeds().stdout.clone();
    for part in ["gguf, version 3", "architecture  llama", "4 parameters", "8.00 bits", "[4]"] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    let value = inspect(&path, &["--json"]).succeeds().json();
    assert_eq!(value["format"], "gguf");
    assert_eq!(value["tensors"][0]["type"], "I8");
    assert_eq!(value["tensors"][0]["shape"][0], 4);
    assert_eq!(value["metadata"][0]["value"], "llama");
    assert_eq!(value["types"][0]["bytes"], 4);
}

#[test]
fn safetensors_and_folders_are_shown() {
    let dir = tempdir().unwrap();
    let path = write(dir.path(), "model.safetensors", safetensors("[2,2]"));
    let value = inspect(&path, &["--json"]).succeeds().json();
    assert_eq!((&value["format"], &value["parameters"]), (&"safetensors".into(), &4.into()));
    assert!(value.get("architecture").is_none());
    let config = r#"{"architectures":["LlamaForCausalLM"],"num_hidden_layers":2}"#;
    write(dir.path(), "config.json", config);
    let value = inspect(dir.path(), &["--json"]).succeeds().json();
    assert_eq!(value["architecture"], "LlamaForCausalLM");
    assert_eq!(value["config"]["num_hidden_layers"], 2);
    let text = inspect(dir.path(), &[]).succeeds().stdout.clone();
    assert!(text.contains("num_hidden_layers  2") && text.contains("f16"), "{text}");
    write(dir.path(), "config.json", "[]");
    inspect(dir.path(), &[]).fails(3, &["config.json", "FB-3515"]);
}

#[test]
fn hostile_files_end_with_a_code_a_place_and_advice() {
    let dir = tempdir().unwrap();
    let whole = gguf("general.architecture", 0);
    let swapped = [&whole[..4], &3u32.to_be_bytes(), &whole[8..]].concat();
    let mut removed = whole.clone();
    let at = whole.windows(4).rposition(|w| w == 24u32.to_le_bytes()).unwrap();
    removed[at] = 4;
    let deep = [&100_010u64.to_le_bytes()[..], b"{\"a\":{\"b\":", &[b'['; 100_000]].concat();
    let cases: Vec<(&str, Vec<u8>, i32, &[&str])> = vec![
        ("magic.gguf", b"GGUF".to_vec(), 3, &["FB-3603", "byte 4"]),
        ("short.gguf", whole[..whole.len() - 1].to_vec(), 3, &["FB-3613", "cut off"]),
        ("offset.gguf", gguf("general.architecture", 32), 3, &["FB-3612", "tensor[0]"]),
        ("big.gguf", swapped, 4, &["FB-4602", "big-endian"]),
        ("key.gguf", gguf("", 0), 3, &["FB-3605", "metadata[0]"]),
        ("type.gguf", removed, 4, &["FB-4101", "removed"]),
        ("deep.safetensors", deep, 3, &["FB-3502"]),
        ("wrap.safetensors", safetensors("[4194305,4194305,211106198978564]"), 3, &["FB-3505"]),
        ("shape.safetensors", safetensors("[5]"), 3, &["FB-3505", "needs 10 bytes, found 8"]),
        ("zip.safetensors", [&safetensors("[4]")[..], b"PK\x03\x04"].concat(), 3, &["FB-3508"]),
    ];
    for (name, bytes, code, texts) in cases {
        let path = write(dir.path(), name, bytes);
        let start = std::time::Instant::now();
        let ran = inspect(&path, &[]);
        ran.fails(code, texts);
        assert!(ran.stderr.contains(name) && ran.stdout.is_empty(), "{}", ran.stderr);
        assert!(!ran.stderr.contains('\x1b'), "{}", ran.stderr);
        assert!(start.elapsed().as_secs_f64() < 5.0, "{name}");
    }
    // Nothing was made beside the inputs.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 10);
}
