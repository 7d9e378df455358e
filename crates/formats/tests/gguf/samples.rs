//! Files made in code, part by part, so that each part can be made wrong.

use fewbit_core::Error;
use fewbit_formats::gguf::{self, GgufFile};
use fewbit_formats::onnx::Bytes;

/// The head of a file in pieces, and the data behind it.
#[derive(Clone)]
pub struct File {
    pub magic: [u8; 4],
    pub version: u32,
    /// What the header says; by default what there is.
    pub tensor_count: Option<u64>,
    pub key_count: Option<u64>,
    pub metadata: Vec<Vec<u8>>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
    pub data: Vec<u8>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: Vec<u8>,
    pub dims: Option<u32>,
    pub ne: Vec<u64>,
    pub ty: u32,
    pub offset: u64,
}

pub fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A key with the number of its type and its value.
pub fn entry(key: &str, ty: u32, value: &[u8]) -> Vec<u8> {
    [&text(key.as_bytes())[..], &ty.to_le_bytes(), value].concat()
}

/// A key with an array of `count` elements.
pub fn array(key: &str, ty: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    entry(key, 9, &[&ty.to_le_bytes()[..], &count.to_le_bytes(), elements].concat())
}

pub fn tensor(name: &str, ne: &[u64], ty: u32, offset: u64) -> Tensor {
    Tensor { name: name.into(), dims: None, ne: ne.to_vec(), ty, offset }
}

impl File {
    pub fn new() -> File {
        File {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            metadata: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }

    /// Two keys and three tensors: F32 [2,3], Q8_0 [2,32], F16 [5].
    pub fn small() -> File {
        let mut file = File::new();
        file.metadata = vec![
            entry("general.architecture", 8, &text(b"llama")),
            array("numbers", 5, 2, &[1, 0, 0, 0, 255, 255, 255, 255]),
        ];
        file.tensors = vec![
            tensor("a", &[3, 2], 0, 0),
            tensor("b", &[32, 2], 8, 32),
            tensor("c", &[5], 1, 128),
        ];
        file.data = (0..160).map(|i| i as u8).collect();
        file
    }

    pub fn head(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        self.metadata.iter().for_each(|entry| out.extend(entry));
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend(tensor.dims.unwrap_or(tensor.ne.len() as u32).to_le_bytes());
            tensor.ne.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(tensor.ty.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.head();
        if !self.data.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
        }
        out.extend(&self.data);
        out
    }
}

pub fn read(file: Vec<u8>) -> Result<GgufFile, Error> {
    gguf::read_bytes(&Bytes::from(file))
}
