//! A trained network on its data: the accuracy others published for it.

use fewbit_core::Tensor;
use fewbit_exec::{Mode, Session, SessionOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Images of one batch.
const BATCH: usize = 100;

fn zoo() -> Option<PathBuf> {
    let zoo = std::env::var_os("FEWBIT_ZOO").map(PathBuf::from);
    if zoo.is_none() {
        eprintln!("skipped: FEWBIT_ZOO is not set");
    }
    zoo
}

/// The bytes of one array of an `.npz`, without its header.
fn array(path: &Path, name: &str) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes.split_off(10 + header)
}

/// `[n,3,32,32]`, scaled as the card says.
fn images(bytes: &[u8]) -> Tensor {
    let (mean, std) = ([0.485f32, 0.456, 0.406], [0.229f32, 0.224, 0.225]);
    let n = bytes.len() / 3072;
    let at = |i: usize| {
        let (image, channel, pixel) = (i / 3072, i / 1024 % 3, i % 1024);
        let byte = bytes[image * 3072 + pixel * 3 + channel];
        (f32::from(byte) / 255.0 - mean[channel]) / std[channel]
    };
    let values: Vec<f32> = (0..bytes.len()).map(at).collect();
    Tensor::from_slice(vec![n, 3, 32, 32], &values).unwrap()
}

#[test]
fn resnet20_is_as_accurate_as_published() {
    let Some(zoo) = zoo() else { return };
    let data = zoo.join("cifar10/cifar10_test_jpg.npz");
    let (x, y) = (array(&data, "x.npy"), array(&data, "y.npy"));
    let path = zoo.join("cifar10/cifar10_resnet20_fp32.onnx");
    let model = fewbit_formats::onnx::read(&path).unwrap();
    let session = Session::new(&model, &SessionOptions::new(Mode::Float)).unwrap();
    let input = session.inputs()[0].name.clone();
    let labels = y.len() / 10_000;
    let mut right = 0;
    for batch in 0..1000 / BATCH {
        let bytes = &x[batch * BATCH * 3072..][..BATCH * 3072];
        let outputs = session.run(&[(&input, images(bytes))]).unwrap();
        let logits = outputs[0].1.to_f32().unwrap();
        for (index, row) in logits.chunks_exact(10).enumerate() {
            let best = (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            right += usize::from(best == usize::from(y[(batch * BATCH + index) * labels]));
        }
    }
    // 0.8103 on all 10,000 images.
    assert!((800..=821).contains(&right), "{right} of 1000 are right");
}
