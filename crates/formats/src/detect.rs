//! What a file is, by its content. Names lie; the first bytes rarely do.

use crate::limits::MAX_HEADER_BYTES;
use fewbit_core::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// As much of a file as is looked at.
const HEAD_BYTES: u64 = 1 << 16;

/// Formats that can be told apart by their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// An ONNX model (`ModelProto`).
    Onnx,
    /// One numpy array.
    Npy,
    /// A zip archive of numpy arrays.
    Npz,
    /// A PNG image.
    Png,
    /// A JPEG image.
    Jpeg,
    /// A safetensors file.
    Safetensors,
    /// A folder of safetensors files, or the index of one.
    SafetensorsFolder,
    /// A GGUF file.
    Gguf,
    /// A TensorFlow Lite flatbuffer.
    Tflite,
    /// A Python pickle or a PyTorch archive around one; reading it would run its code.
    Pickle,
    /// An HDF5 container (Keras `.h5`).
    Hdf5,
    /// Another zip archive.
    Zip,
}

impl Format {
    /// Name for messages, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Format::Onnx => "an ONNX model",
            Format::Npy => "a numpy array (.npy)",
            Format::Npz => "an archive of numpy arrays (.npz)",
            Format::Png => "a PNG image",
            Format::Jpeg => "a JPEG image",
            Format::Safetensors => "a safetensors file",
            Format::SafetensorsFolder => "a folder of safetensors files",
            Format::Gguf => "a GGUF file",
            Format::Tflite => "a TensorFlow Lite model",
            Format::Pickle => "a Python pickle (PyTorch checkpoint)",
            Format::Hdf5 => "an HDF5 file (Keras model)",
            Format::Zip => "a zip archive",
        }
    }

    /// What to do with such a file where a model is wanted.
    fn advice(self) -> &'static str {
        match self {
            Format::Onnx => "give it where a model is expected",
            Format::Npy | Format::Npz | Format::Png | Format::Jpeg => {
                "this is data, not a model: give it with --calibrate, --evaluate or --input"
            }
            Format::Safetensors | Format::SafetensorsFolder | Format::Gguf => {
                "language models are for `generate`, `chat`, `embed` and `eval` (a GGUF file, or a \
                 folder with config.json); `fewbit convert MODEL x.onnx` makes an ONNX file of one"
            }
            Format::Tflite => "convert it with `python -m tf2onnx.convert --tflite MODEL`",
            Format::Pickle => {
                "pickles can run code and are never loaded: export with `torch.onnx.export`"
            }
            Format::Hdf5 => "convert it with `python -m tf2onnx.convert --keras MODEL`",
            Format::Zip => "unpack it and give the model in it",
        }
    }

    /// The refusal of this format where an ONNX model is wanted.
    pub fn refuse_as_model(self) -> Error {
        Error::unsupported(format!("expected an ONNX model, found {}", self.name()))
            .code("FB-4001")
            .hint(self.advice())
    }
}

/// Recognizes a whole file (or as much of its beginning as there is); `None` when nothing fits.
pub fn detect(bytes: &[u8]) -> Option<Format> {
    magic(bytes).or_else(|| looks_like_onnx(bytes).then_some(Format::Onnx))
}

/// Recognizes what lies at a path, by the beginning of a file or by what is in a folder; `None`
/// when nothing fits, or when it cannot be opened (reading it says why).
pub fn detect_path(path: &Path) -> Option<Format> {
    let seen = std::fs::metadata(path).ok()?;
    let is_index = path.to_string_lossy().ends_with(".safetensors.index.json");
    if seen.is_dir() || (seen.is_file() && is_index) {
        return (is_index || holds_safetensors(path)).then_some(Format::SafetensorsFolder);
    }
    if !seen.is_file() {
        return None;
    }
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    detect(&head)
}

fn holds_safetensors(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|p| p.extension().is_some_and(|e| e == "safetensors"))
}

/// Refuses what is certainly something else than an ONNX model.
///
/// # Errors
/// With advice for the format that was found. Unknown content passes: its reader says more.
pub fn require_onnx(bytes: &[u8]) -> Result<()> {
    match magic(bytes) {
        Some(format) => Err(format.refuse_as_model()),
        None => Ok(()),
    }
}

fn magic(bytes: &[u8]) -> Option<Format> {
    const PREFIXES: &[(&[u8], Format)] = &[
        (b"\x93NUMPY", Format::Npy),
        (b"\x89PNG\r\n\x1a\n", Format::Png),
        (b"\xff\xd8\xff", Format::Jpeg),
        (b"GGUF", Format::Gguf),
        (b"\x89HDF\r\n\x1a\n", Format::Hdf5),
    ];
    let prefix = PREFIXES.iter().find(|(magic, _)| bytes.starts_with(magic));
    if let Some(&(_, format)) = prefix {
        return Some(format);
    }
    match bytes {
        // First, since the length it begins with may look like anything below.
        _ if is_safetensors(bytes) => Some(Format::Safetensors),
        [b'P', b'K', 3, 4, ..] => Some(zip_content(bytes)),
        // Protocol 2 and later start with PROTO; PyTorch's older files are several in a row.
        [0x80, 2..=5, ..] => Some(Format::Pickle),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some(Format::Tflite),
        _ => None,
    }
}

/// PyTorch's zip archives hold `NAME/data.pkl` as their first member.
fn zip_content(bytes: &[u8]) -> Format {
    let name_len = bytes.get(26..28).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]) as usize);
    let name = bytes.get(30..30 + name_len).unwrap_or_default();
    match name {
        _ if name.ends_with(b".npy") => Format::Npz,
        _ if name.ends_with(b"/data.pkl") || name.ends_with(b"/byteorder") => Format::Pickle,
        _ => Format::Zip,
    }
}

/// Eight bytes of length, then that many bytes of a JSON object.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else { return false };
    if !(2..=MAX_HEADER_BYTES as u64).contains(&u64::from_le_bytes(*head)) {
        return false;
    }
    let object = rest.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    object.is_some_and(|o| o.starts_with(b"\"") || o.starts_with(b"}"))
}

/// Walks top-level fields; two known ones in a row, or a whole file of them, settle it.
fn looks_like_onnx(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut known = 0;
    while known < 2 {
        let Some((number, wire)) = take_key(&mut rest) else { break };
        let expected = match number {
            1 | 5 => 0,
            2..=4 | 6..=8 | 14 | 20 | 25 | 26 => 2,
            _ => return false,
        };
        if wire != expected || !skip(&mut rest, wire) {
            return false;
        }
        known += 1;
    }
    known == 2 || (known == 1 && rest.is_empty() && bytes.len() > 2)
}

fn take_key(rest: &mut &[u8]) -> Option<(u64, u64)> {
    let key = prost::encoding::decode_varint(rest).ok()?;
    Some((key >> 3, key & 7))
}

/// Skips one value; a length past the end of a cut-off file counts as its end.
fn skip(rest: &mut &[u8], wire: u64) -> bool {
    let Ok(value) = prost::encoding::decode_varint(rest) else { return false };
    if wire == 2 {
        let len = usize::try_from(value).unwrap_or(usize::MAX).min(rest.len());
        *rest = &rest[len..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart_by_content() {
        let cases: &[(&[u8], Format)] = &[
            (b"\x93NUMPY\x01\x00", Format::Npy),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Format::Png),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", Format::Jpeg),
            (b"GGUF\x03\0\0\0", Format::Gguf),
            (b"\x1c\0\0\0TFL3\x14\0", Format::Tflite),
            (b"\x80\x02}q\x00.", Format::Pickle),
            (b"\x89HDF\r\n\x1a\n\0", Format::Hdf5),
            (b"\x10\0\0\0\0\0\0\0{\"a\":{}}        ", Format::Safetensors),
            (b"\x80\x02\0\0\0\0\0\0{\"a\":{}}", Format::Safetensors),
            (b"\x08\0\0\0\0\0\0\0 { }    ", Format::Safetensors),
            (b"\x08\x08\x12\x07pytorch", Format::Onnx),
        ];
        for (bytes, format) in cases {
            assert_eq!(detect(bytes), Some(*format), "{bytes:?}");
        }
    }

    #[test]
    fn zip_archives_are_numpy_or_pytorch() {
        let member = |name: &str| {
            let mut zip = b"PK\x03\x04".to_vec();
            zip.resize(26, 0);
            zip.extend((name.len() as u16).to_le_bytes());
            zip.extend([0, 0]);
            zip.extend(name.as_bytes());
            zip
        };
        assert_eq!(detect(&member("x.npy")), Some(Format::Npz));
        assert_eq!(detect(&member("archive/data.pkl")), Some(Format::Pickle));
        assert_eq!(detect(&member("readme")), Some(Format::Zip));
        assert_eq!(detect(b"PK\x03\x04"), Some(Format::Zip));
    }

    #[test]
    fn paths_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(detect_path(dir.path()), None);
        assert_eq!(detect_path(&dir.path().join("missing")), None);
        assert_eq!(detect_path(Path::new("/dev/zero")), None);
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            detect_path(&path)
        };
        assert_eq!(write("model.bin", b"GGUF\x03\0\0\0"), Some(Format::Gguf));
        assert_eq!(write("a.txt", b"hello, world"), None);
        let folder = Some(Format::SafetensorsFolder);
        assert_eq!(write("model.safetensors.index.json", b"{}"), folder);
        assert_eq!(detect_path(dir.path()), None);
        assert_eq!(write("x.safetensors", b"\x02\0\0\0\0\0\0\0{}"), Some(Format::Safetensors));
        assert_eq!(detect_path(dir.path()), folder);
    }

    #[test]
    fn nothing_fits_text_and_zeros() {
        assert_eq!(detect(b"hello, world"), None);
        assert_eq!(detect(&[0; 64]), None);
        assert_eq!(detect(&[]), None);
    }

    #[test]
    fn refusals_advise() {
        let error = require_onnx(b"\x80\x04\x95.").unwrap_err();
        assert_eq!(error.kind().exit_code(), 4);
        assert!(error.advice().unwrap().contains("torch.onnx.export"));
    }
}
