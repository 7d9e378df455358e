//! Data sets of every form: what they give, and how wrong ones are refused.

use fewbit_core::{DType, Error, Tensor};
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::data::{Dataset, Task, npy, npz};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Folder {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn image(&self, name: &str) -> &Folder {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/images");
        let source = if name.ends_with("png") { "palette.png" } else { "rgb.jpg" };
        self.write(name, fs::read(images.join(source)).unwrap())
    }

    fn npz(&self, arrays: &[(&str, &Tensor)]) -> &Folder {
        npz::write(&self.path("data.npz"), arrays, &OutputOptions::default()).unwrap();
        self
    }

    fn open(&self, spec: &str) -> Dataset {
        self.try_open(spec).unwrap()
    }

    fn try_open(&self, spec: &str) -> fewbit_core::Result<Dataset> {
        Dataset::open(self.path(spec).to_str().unwrap())
    }

    fn refused(&self, spec: &str, code: &str) -> Error {
        let Err(e) = self.try_open(spec) else { panic!("{spec} is accepted") };
        assert_eq!(e.stable_code(), code, "{e:?}");
        assert_eq!(e.kind().exit_code(), code.as_bytes()[3] - b'0');
        e
    }
}

fn labels(data: &Dataset) -> Vec<i64> {
    (0..data.len()).map(|i| data.label(i).unwrap()).collect()
}

fn names(data: &Dataset) -> Vec<String> {
    (0..data.len()).map(|i| data.name(i)).collect()
}

fn images4() -> Tensor {
    let bytes: Vec<u8> = (0..4 * 12).collect();
    Tensor::from_slice(vec![4, 2, 2, 3], &bytes).unwrap()
}

#[test]
fn an_npz_gives_its_rows_with_their_labels() {
    let folder = Folder::new();
    folder.npz(&[("x", &images4()), ("y", &Tensor::vector(&[3u8, 1, 4, 1]))]);
    let data = folder.open("data.npz@1..3");
    assert_eq!((data.len(), data.task(), labels(&data)), (2, Task::Classify, vec![1, 4]));
    assert_eq!(names(&data), ["#1", "#2"]);
    let sample = data.sample(0).unwrap();
    let (name, x) = &sample.inputs[0];
    assert_eq!((name, x.dtype(), x.shape()), (&None, DType::U8, &[1, 2, 2, 3][..]));
    assert_eq!((x.bytes()[0], sample.label), (12, Some(1)));
    assert_eq!(data.sample(2).unwrap_err().stable_code(), "FB-2301");
}

#[test]
fn a_compressed_npz_gives_the_same_rows() {
    let folder = Folder::new();
    folder.npz(&[("x", &images4())]);
    let stored = folder.open("data.npz");
    let mut zip = zip::ZipWriter::new(fs::File::create(folder.path("small.npz")).unwrap());
    let deflated = zip::write::SimpleFileOptions::default();
    let options = deflated.compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("x.npy", options).unwrap();
    zip.write_all(&npy::encode(&images4()).unwrap()).unwrap();
    zip.finish().unwrap();
    for (range, first) in [("", 0), ("@0..2", 0), ("@1..3", 1), ("@3..", 3)] {
        let data = folder.open(&format!("small.npz{range}"));
        for i in 0..data.len() {
            let expected = stored.sample(first + i).unwrap().inputs;
            assert_eq!(data.sample(i).unwrap().inputs, expected, "{range} {i}");
        }
    }
}

#[test]
fn a_card_names_arrays_and_steps() {
    let folder = Folder::new();
    folder.npz(&[("pictures", &images4()), ("classes", &Tensor::vector(&[0i64, 1, 0, 1]))]);
    folder.write(
        "card.toml",
        "path = 'data.npz'\ntask = 'classify'\nx = 'pictures'\ny = 'classes'\n\
         [input]\nscale = 2.0\nlayout = 'NCHW'\n",
    );
    let data = folder.open("card.toml@..1");
    let x = &data.sample(0).unwrap().inputs[0].1;
    assert_eq!(x.shape(), [1, 3, 2, 2]);
    assert_eq!(x.to_f32().unwrap()[..5], [0.0, 1.5, 3.0, 4.5, 0.5]);
    folder.write("card.toml", "path = 'data.npz'\nx = 'nothing'\n");
    let e = folder.refused("card.toml", "FB-3325");
    assert!(e.what().contains("pictures") && e.place().contains("card.toml"), "{e}");
}

#[test]
fn arrays_named_after_inputs_feed_a_model_of_several() {
    let folder = Folder::new();
    let ids = Tensor::from_slice(vec![2, 3], &[1i64, 2, 3, 4, 5, 6]).unwrap();
    let mask = Tensor::from_slice(vec![2, 3], &[1i64; 6]).unwrap();
    folder.npz(&[("input_ids", &ids), ("mask", &mask)]);
    let data = folder.open("data.npz");
    assert_eq!((data.task(), data.label(0)), (Task::None, None));
    let inputs = data.sample(1).unwrap().inputs;
    assert_eq!(inputs[0].0.as_deref(), Some("input_ids"));
    assert_eq!(inputs[0].1.to_i64().unwrap(), [4, 5, 6]);
    assert_eq!(inputs[1].0.as_deref(), Some("mask"));
    folder.write("card.toml", "path = 'data.npz'\n[input]\nscale = 2.0\n");
    folder.refused("card.toml", "FB-3303");
}

#[test]
fn real_targets_make_a_regression() {
    let folder = Folder::new();
    let x = Tensor::from_slice(vec![2, 2], &[0f32; 4]).unwrap();
    folder.npz(&[("x", &x), ("y", &Tensor::vector(&[0.5f64, 1.0]))]);
    let data = folder.open("data.npz@1..");
    assert_eq!(data.task(), Task::Regress);
    let target = data.sample(0).unwrap().target.unwrap();
    assert_eq!((target.shape(), target.to_f32().unwrap()), (&[1, 1][..], vec![1.0]));
}

#[test]
fn labels_must_fit_the_samples() {
    let folder = Folder::new();
    folder.npz(&[("x", &images4()), ("y", &Tensor::vector(&[1u8, 2, 3]))]);
    let e = folder.refused("data.npz", "FB-3340");
    assert!(e.what().contains("3 samples") && e.what().contains("4"), "{e}");
    folder.npz(&[("x", &images4()), ("y", &Tensor::vector(&[1i8, 2, -3, 0]))]);
    assert!(folder.refused("data.npz", "FB-3341").place().ends_with("sample 2"));
    let hot = Tensor::from_slice(vec![4, 2], &[0u8, 1, 0, 1, 1, 0, 1, 0]).unwrap();
    folder.npz(&[("x", &images4()), ("y", &hot)]);
    assert!(folder.refused("data.npz", "FB-3341").advice().unwrap().contains("argmax"));
    folder.npz(&[("x", &images4())]);
    folder.write("card.toml", "path = 'data.npz'\ntask = 'classify'\n");
    folder.refused("card.toml", "FB-3340");
}

#[test]
fn empty_data_is_refused_and_one_sample_is_enough() {
    let folder = Folder::new();
    let empty = Tensor::zeros(DType::F32, vec![0, 3]).unwrap();
    folder.npz(&[("x", &empty)]);
    folder.refused("data.npz", "FB-3342");
    folder.npz(&[("x", &Tensor::zeros(DType::F32, vec![3, 0]).unwrap())]);
    folder.refused("data.npz", "FB-3342");
    folder.npz(&[]);
    folder.refused("data.npz", "FB-3325");
    folder.write("a.csv", "").write("b.csv", "a,label\n").write("c.txt", "# nothing\n");
    for name in ["a.csv", "b.csv", "c.txt"] {
        folder.refused(name, "FB-3342");
    }
    fs::create_dir(folder.path("none")).unwrap();
    folder.refused("none", "FB-3342");
    folder.image("one.png");
    assert_eq!(folder.open("one.png").len(), 1);
}

#[test]
fn an_npy_is_read_row_by_row_in_any_order() {
    let folder = Folder::new();
    let t = Tensor::from_slice(vec![3, 2], &[1i16, 2, 3, 4, 5, 6]).unwrap();
    npy::write(&folder.path("a.npy"), &t, &OutputOptions::default()).unwrap();
    let row = |i| folder.open("a.npy").sample(i).unwrap().inputs[0].1.to_i64().unwrap();
    assert_eq!((row(0), row(2)), (vec![1, 2], vec![5, 6]));
    // The same numbers, big-endian, then column by column.
    let native = fs::read(folder.path("a.npy")).unwrap();
    let (header, data) = native.split_at(128);
    let big = String::from_utf8_lossy(&header[10..]).replace("<i2", ">i2");
    let swapped: Vec<u8> = data.chunks(2).flat_map(|b| [b[1], b[0]]).collect();
    folder.write("a.npy", [&header[..10], big.as_bytes(), &swapped].concat());
    assert_eq!(row(1), [3, 4]);
    let fortran = String::from_utf8_lossy(&header[10..]).replace("False,", "True, ");
    let columns: Vec<u8> = [1i16, 3, 5, 2, 4, 6].iter().flat_map(|v| v.to_le_bytes()).collect();
    folder.write("a.npy", [&header[..10], fortran.as_bytes(), &columns].concat());
    assert_eq!(row(1), [3, 4]);
    assert_eq!(folder.open("a.npy@2..").sample(0).unwrap().inputs[0].1.to_i64().unwrap(), [5, 6]);
}

#[test]
fn a_file_that_shrinks_after_it_was_opened_gives_an_error() {
    let folder = Folder::new();
    let t = Tensor::zeros(DType::F32, vec![100, 10]).unwrap();
    npy::write(&folder.path("a.npy"), &t, &OutputOptions::default()).unwrap();
    let data = folder.open("a.npy");
    fs::OpenOptions::new().write(true).open(folder.path("a.npy")).unwrap().set_len(200).unwrap();
    let e = data.sample(99).unwrap_err();
    assert_eq!(e.kind().exit_code(), 3);
    assert!(e.place().contains("sample 99"), "{e}");
}

#[test]
fn class_folders_take_turns() {
    let folder = Folder::new();
    folder.image("d/cat/a.jpg").image("d/cat/b.jpg").image("d/dog/c.png").image("d/dog/d.jpg");
    folder.image("d/ant/e.JPG").write("d/ant/notes.txt", "x").write("d/.hidden/x", "");
    let data = folder.open("d");
    assert_eq!(names(&data), ["e.JPG", "a.jpg", "c.png", "b.jpg", "d.jpg"]);
    assert_eq!((labels(&data), data.max_label()), (vec![0, 1, 2, 1, 2], Some(2)));
    let x = &data.sample(1).unwrap().inputs[0].1;
    assert_eq!((x.dtype(), x.shape()), (DType::U8, &[1, 16, 24, 3][..]));
}

#[test]
fn ambiguous_folders_ask_for_labels() {
    let folder = Folder::new();
    for n in ["0", "1", "10", "2"] {
        folder.image(&format!("n/{n}/a.jpg"));
    }
    assert!(folder.refused("n", "FB-2302").what().contains("`10`"));
    folder.image("m/a.jpg").image("m/sub/b.jpg");
    folder.refused("m", "FB-2302");
    folder.image("deep/cat/a.jpg").image("deep/cat/more/b.jpg");
    folder.refused("deep", "FB-3345");
    folder.image("gap/cat/a.jpg").write("gap/dog/readme", "");
    assert!(folder.refused("gap", "FB-3342").place().contains("`dog`"));
}

#[test]
fn labels_csv_names_every_image_once() {
    let folder = Folder::new();
    folder
        .image("d/a.jpg")
        .image("d/b.png")
        .write("d/labels.csv", "file,label\nb.png,7\na.jpg,0\n");
    let data = folder.open("d");
    assert_eq!((names(&data), labels(&data)), (vec!["b.png".into(), "a.jpg".into()], vec![7, 0]));
    for (csv, code, place) in [
        ("file,label\na.jpg,1\n", "FB-3340", "labels.csv"),
        ("file,label\na.jpg,1\nb.png,2\nc.png,3\n", "FB-3343", "line 4"),
        ("file,label\na.jpg,1\na.jpg,2\nb.png,1\n", "FB-3340", "line 3"),
        ("file,label\n../d/a.jpg,1\nb.png,2\n", "FB-3344", "line 2"),
        ("file,label\n/etc/passwd,1\n", "FB-3344", "line 2"),
        ("file,label\na.jpg,cat\n", "FB-3353", "line 2"),
        ("file,label\na.jpg\n", "FB-3354", "line 2"),
        ("name,label\na.jpg,1\n", "FB-3354", "line 1"),
        ("file,label\na.jpg,1\nb.png,-2\n", "FB-3341", "sample 1"),
    ] {
        folder.write("d/labels.csv", csv);
        let e = folder.refused("d", code);
        assert!(e.place().contains(place), "{csv}: {e}");
    }
    folder.write("d/labels.csv", b"file,label\na.jpg,\xff\n");
    assert!(folder.refused("d", "FB-3351").place().contains("byte 17"));
}

#[test]
fn lists_name_images_with_labels_or_without() {
    let folder = Folder::new();
    folder.image("a.jpg").image("my b.png").write("l.txt", "# two\na.jpg 3\n\nmy b.png\t1\n");
    let data = folder.open("l.txt");
    assert_eq!(
        (names(&data), labels(&data)),
        (vec!["a.jpg".into(), "my b.png".into()], vec![3, 1])
    );
    folder.write("l.txt", "a.jpg\nmy b.png\n");
    assert_eq!(folder.open("l.txt").task(), Task::None);
    folder.write("l.txt", "a.jpg 1\nmy b.png\n");
    assert!(folder.refused("l.txt", "FB-3340").place().ends_with("line 2"));
    folder.write("l.txt", "Once upon a time\n");
    assert!(folder.refused("l.txt", "FB-3343").advice().is_some());
    folder.write("l.txt", b"a.jpg\0\n");
    folder.refused("l.txt", "FB-3350");
    folder.write("l.txt", vec![b'x'; 2 << 20]);
    folder.refused("l.txt", "FB-3352");
}

#[test]
fn tables_give_rows_of_numbers() {
    let folder = Folder::new();
    folder.write("t.csv", "a,Label,b\n1,0, 2.5\n3,1,-4e1\n");
    let data = folder.open("t.csv@1..");
    assert_eq!((data.task(), labels(&data)), (Task::Classify, vec![1]));
    let x = &data.sample(0).unwrap().inputs[0].1;
    assert_eq!((x.shape(), x.to_f32().unwrap()), (&[1, 2][..], vec![3.0, -40.0]));
    folder.write("t.csv", "1,2\n3,4\n");
    assert_eq!((folder.open("t.csv").len(), folder.open("t.csv").task()), (2, Task::None));
    for (csv, code, place) in [
        ("a,b\n1,x\n", "FB-3353", "line 2: column 2"),
        ("a,b\n1,nan\n", "FB-3353", "line 2"),
        ("a,b\n1,1e39\n", "FB-3353", "line 2"),
        ("a,b\n1,2\n1,2,3\n", "FB-3354", "line 3"),
        ("label\n1\n", "FB-3354", "line 1"),
    ] {
        folder.write("t.csv", csv);
        let e = folder.refused("t.csv", code);
        assert!(e.place().contains(place), "{csv}: {e}");
    }
}

#[test]
fn files_are_told_by_name_and_content() {
    let folder = Folder::new();
    let t = Tensor::zeros(DType::F32, vec![1, 2]).unwrap();
    folder.write("a.csv", npy::encode(&t).unwrap());
    assert!(folder.refused("a.csv", "FB-3304").what().contains(".npy"));
    folder.write("a.npz", npy::encode(&t).unwrap());
    assert_eq!(folder.open("a.npz").len(), 1);
    for name in ["w.pt", "w.pth", "w.ckpt", "w.bin", "w.pkl", "w.h5"] {
        folder.write(name, b"\x80\x04N.");
        assert!(folder.refused(name, "FB-4340").advice().is_some());
    }
    folder.write("data.xyz", "?");
    assert!(folder.refused("data.xyz", "FB-2302").advice().unwrap().contains("card"));
    folder.write("a.npy", "");
    folder.refused("a.npy", "FB-3310");
    folder.refused("missing.npz", "FB-3001");
    #[cfg(unix)]
    assert_eq!(Dataset::open("/dev/zero").err().unwrap().stable_code(), "FB-3300");
}

#[test]
fn a_damaged_image_is_named_when_it_is_read() {
    let folder = Folder::new();
    folder.image("d/a.jpg").write("d/b.jpg", b"\xFF\xD8\xFF");
    let data = folder.open("d");
    assert!(data.sample(0).is_ok());
    let e = data.sample(1).unwrap_err();
    assert_eq!(e.stable_code(), "FB-3330");
    assert!(e.place().contains("sample 1") && e.place().contains("b.jpg"), "{e}");
}

#[test]
fn the_fingerprint_follows_the_data_and_not_its_place() {
    let print = |labels: [u8; 4], range: &str, card: &str| {
        let folder = Folder::new();
        folder.npz(&[("x", &images4()), ("y", &Tensor::vector(&labels))]);
        folder.write("c.toml", format!("path = 'data.npz'\n{card}"));
        folder.open(&format!("c.toml{range}")).fingerprint().unwrap()
    };
    let base = print([0, 1, 2, 3], "", "");
    assert_eq!(base.len(), 64);
    assert_eq!(base, print([0, 1, 2, 3], "@0..4", ""));
    assert_ne!(base, print([0, 1, 2, 2], "", ""));
    assert_ne!(base, print([0, 1, 2, 3], "@0..3", ""));
    assert_ne!(base, print([0, 1, 2, 3], "", "[input]\nscale = 2.0\n"));
}

#[test]
fn threads_may_share_a_data_set() {
    let folder = Folder::new();
    folder.image("d/a.jpg").image("d/b.png");
    let data = folder.open("d");
    let read = |i| data.sample(i).unwrap().inputs.remove(0).1;
    std::thread::scope(|s| {
        let other = s.spawn(|| read(0));
        assert_eq!(other.join().unwrap(), read(0));
    });
}
