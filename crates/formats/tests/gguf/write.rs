//! Writing.

use crate::samples::*;
use fewbit_core::Error;
use fewbit_core::codec::block::BlockType;
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::gguf::{self, Metadata, TensorInfo, Value, Writer};

const NONE: OutputOptions =
    OutputOptions { inputs: Vec::new(), keep_existing: false, expected_bytes: 0 };

fn info(name: &str, shape: &[usize], ty: BlockType) -> TensorInfo {
    TensorInfo { name: name.into(), shape: shape.to_vec(), ty }
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let mut file = File::small();
    file.data[24..32].fill(0);
    file.data[100..128].fill(0);
    file.data[138..].fill(0);
    let bytes = file.bytes();
    let found = read(bytes.clone()).unwrap();
    let len = gguf::write(&path, found.metadata(), found.tensors(), &NONE).unwrap();
    assert_eq!(len, bytes.len() as u64);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let infos: Vec<TensorInfo> = found.tensors().iter().map(|t| t.info.clone()).collect();
    assert_eq!(gguf::file_size(found.metadata(), &infos).unwrap(), len);
}

fn every_value() -> Metadata {
    let mut metadata = Metadata::default();
    macro_rules! both {
        ($($value:expr),*) => { $(
            let value: Value = $value.into();
            metadata.set(format!("one.{}", value.type_name()), value);
            metadata.set(format!("many.{}", metadata.len()), vec![$value, $value]);
        )* };
    }
    both!(1u8, -2i8, 3u16, -4i16, 5u32, -6i32, 7.5f32, true, 8u64, -9i64, 10.25f64);
    both!("größe".to_string());
    metadata.set("empty", Vec::<String>::new());
    metadata
}

#[test]
fn every_value_survives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    gguf::write(&path, &every_value(), [], &NONE).unwrap();
    let found = gguf::read(&path).unwrap();
    assert_eq!(found.metadata(), &every_value());
    assert_eq!((found.version(), found.tensors().len()), (3, 0));
}

#[test]
fn chunks_and_alignment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    for alignment in [None, Some(1u32), Some(64)] {
        let mut metadata = every_value();
        if let Some(alignment) = alignment {
            metadata.set(gguf::ALIGNMENT_KEY, alignment);
        }
        let infos = [
            info("q", &[3, 32], BlockType::Q4_0),
            info("none", &[0], BlockType::F32),
            info("scalar", &[], BlockType::F32),
        ];
        let mut writer = Writer::create(&path, &metadata, &infos, &NONE).unwrap();
        for _ in 0..54 {
            writer.write("q", &[7]).unwrap();
        }
        assert_eq!(writer.next_tensor(), Some(("scalar", 4)));
        writer.write("scalar", &1.5f32.to_le_bytes()).unwrap();
        let len = writer.finish().unwrap();
        assert_eq!(len % u64::from(alignment.unwrap_or(32)), 0);
        let found = gguf::read(&path).unwrap();
        assert_eq!(found.require("q").unwrap().bytes.as_ref(), [7; 54]);
        assert_eq!(found.require("scalar").unwrap().to_f32().unwrap().to_f32().unwrap(), [1.5]);
    }
}

/// A step that no writer may take.
type Wrong = fn(&mut Writer) -> Result<(), Error>;

#[test]
fn an_unfinished_file_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let infos = [info("a", &[4], BlockType::I8), info("b", &[1], BlockType::I8)];
    let create = || Writer::create(&path, &Metadata::default(), &infos, &NONE).unwrap();
    let wrong: [Wrong; 3] =
        [|w| w.write("b", b"x"), |w| w.write("a", b"12345"), |w| w.write("c", b"1")];
    for change in wrong {
        assert_eq!(change(&mut create()).unwrap_err().kind().exit_code(), 70);
    }
    let mut writer = create();
    writer.write("a", b"1234").unwrap();
    assert_eq!(writer.finish().unwrap_err().kind().exit_code(), 70);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let aligned = |value: Value| [(gguf::ALIGNMENT_KEY, value)].into_iter().collect::<Metadata>();
    let one = |name: &str, shape: &[usize], ty| vec![info(name, shape, ty)];
    let plain = |name: &str| one(name, &[4], BlockType::F32);
    let huge = 1 << 62;
    let cases: Vec<(&str, Metadata, Vec<TensorInfo>, &str)> = vec![
        ("alignment 0", aligned(0u32.into()), plain("a"), "FB-3609"),
        ("alignment 24", aligned(24u32.into()), plain("a"), "FB-3609"),
        ("alignment as u64", aligned(32u64.into()), plain("a"), "FB-3609"),
        ("no key", [("", 1u32)].into_iter().collect(), vec![], "FB-3605"),
        ("no name", Metadata::default(), plain(""), "FB-3610"),
        ("long name", Metadata::default(), plain(&"x".repeat(64)), "FB-3610"),
        ("twice", Metadata::default(), [plain("a"), plain("a")].concat(), "FB-3610"),
        ("rank 5", Metadata::default(), one("a", &[1; 5], BlockType::F32), "FB-3611"),
        ("part of a block", Metadata::default(), one("a", &[33], BlockType::Q8_0), "FB-3611"),
        ("too large", Metadata::default(), one("a", &[huge, 4], BlockType::I8), "FB-3611"),
        (
            "too large together",
            Metadata::default(),
            vec![info("a", &[huge], BlockType::I8), info("b", &[huge], BlockType::I8)],
            "FB-3611",
        ),
    ];
    for (name, metadata, infos, code) in cases {
        let error = Writer::create(&path, &metadata, &infos, &NONE).unwrap_err();
        assert_eq!(error.stable_code(), code, "{name}: {error:?}");
        assert!(error.place().contains("x.gguf"), "{name}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_input_is_never_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("in.gguf"), File::small().bytes()).unwrap();
    std::os::unix::fs::symlink(at("in.gguf"), at("symbolic.gguf")).unwrap();
    std::fs::hard_link(at("in.gguf"), at("hard.gguf")).unwrap();
    let options = OutputOptions { inputs: vec![at("in.gguf")], ..NONE };
    let found = gguf::read(&at("in.gguf")).unwrap();
    for name in ["in.gguf", "symbolic.gguf", "hard.gguf"] {
        let error = gguf::write(&at(name), found.metadata(), found.tensors(), &options);
        assert_eq!(error.unwrap_err().stable_code(), "FB-2101", "{name}");
    }
    assert_eq!(std::fs::read(at("in.gguf")).unwrap(), File::small().bytes());
}
