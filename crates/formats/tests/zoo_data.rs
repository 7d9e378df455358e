//! The cards of the zoo, as they are. Needs `FEWBIT_ZOO`; says so when it is not set.

use fewbit_core::DType;
use fewbit_formats::data::{Card, Dataset, Task};

fn zoo(file: &str) -> Option<String> {
    let Some(zoo) = std::env::var_os("FEWBIT_ZOO") else {
        eprintln!("skipped: FEWBIT_ZOO is not set");
        return None;
    };
    Some(std::path::Path::new(&zoo).join(file).to_string_lossy().into_owned())
}

#[test]
fn imagenet() {
    let Some(card) = zoo("imagenet.toml") else { return };
    let data = Dataset::open(&card).unwrap();
    assert_eq!((data.len(), data.task(), data.max_label()), (1000, Task::Classify, Some(999)));
    assert_eq!((data.label(0), data.label(500)), (Some(55), Some(408)));
    // Means over the crop of Pillow's pixels, then scaled and normalized.
    let expected = [121.39993224, 100.24154974, 56.75645727];
    let x = data.sample(0).unwrap().inputs.remove(0).1;
    assert_eq!((x.dtype(), x.shape()), (DType::F32, &[1, 3, 224, 224][..]));
    let planes = x.to_f32().unwrap();
    for (c, plane) in planes.chunks(224 * 224).enumerate() {
        let mean = plane.iter().map(|v| f64::from(*v)).sum::<f64>() / plane.len() as f64;
        let pixel = (mean * [0.229, 0.224, 0.225][c] + [0.485, 0.456, 0.406][c]) * 255.0;
        assert!((pixel - expected[c]).abs() < 0.3, "channel {c}: {pixel} {}", expected[c]);
    }
    let red = (planes[0] * 0.229 + 0.485) * 255.0;
    assert!((red - 136.0).abs() < 3.0, "first pixel of the crop: {red}");
}

#[test]
fn cifar() {
    let Some(card) = zoo("cifar10.toml") else { return };
    let data = Dataset::open(&format!("{card}@0..200")).unwrap();
    assert_eq!((data.len(), data.label(0), data.label(123)), (200, Some(6), Some(8)));
    let x = data.sample(123).unwrap().inputs.remove(0).1;
    assert_eq!(x.shape(), [1, 3, 32, 32]);
    let values = x.to_f32().unwrap();
    let pixel = [203f32, 217.0, 228.0];
    for c in 0..3 {
        let (mean, std) = ([0.485f32, 0.456, 0.406][c], [0.229f32, 0.224, 0.225][c]);
        assert_eq!(values[c * 1024 + 5 * 32 + 7], (pixel[c] / 255.0 - mean) / std);
    }
    let all = Dataset::open(&card).unwrap();
    assert_eq!((all.len(), all.label(9999), all.max_label()), (10_000, Some(4), Some(9)));
    let tail = Dataset::open(&format!("{card}@9999..")).unwrap();
    assert_eq!(tail.sample(0).unwrap().inputs, all.sample(9999).unwrap().inputs);
}

#[test]
fn mnist_and_keyword_spotting() {
    let Some(mnist) = zoo("mnist.toml") else { return };
    let data = Dataset::open(&mnist).unwrap();
    assert_eq!((data.len(), data.max_label()), (10_000, Some(9)));
    assert_eq!(data.sample(0).unwrap().inputs[0].1.shape(), [1, 1, 28, 28]);
    let Some(kws) = zoo("keyword-spotting.toml") else { return };
    let data = Dataset::open(&kws).unwrap();
    assert_eq!((data.len(), data.label(0), data.max_label()), (1000, Some(3), Some(11)));
    let x = data.sample(0).unwrap().inputs.remove(0).1;
    assert_eq!((x.dtype(), x.shape()), (DType::F32, &[1, 49, 10, 1][..]));
    let step = 0.5847029f32;
    assert_eq!(x.to_f32().unwrap()[..3], [-87.0 * step, 3.0 * step, step]);
}

#[test]
fn cards_of_later_tasks_are_refused_by_name() {
    for (card, task) in [("sts-test.toml", "similarity"), ("wikitext2.toml", "perplexity")] {
        let Some(card) = zoo(card) else { return };
        assert!(Card::read(card.as_ref()).is_ok());
        let e = Dataset::open(&card).err().unwrap();
        assert_eq!((e.stable_code(), e.kind().exit_code()), ("FB-4301", 4));
        assert!(e.what().contains(task), "{e}");
    }
}
