//! Images of every kind and in every state of damage. The small files in `testdata/images` were
//! written by Pillow, which also gave the expected pixels.

use fewbit_core::Error;
use fewbit_formats::data::image::{self, Image};
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/images").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn refused(result: fewbit_core::Result<Image>, code: &str) -> Error {
    let e = result.unwrap_err();
    assert_eq!(e.stable_code(), code, "{e:?}");
    assert_eq!(e.kind().exit_code(), code.as_bytes()[3] - b'0');
    e
}

#[test]
fn a_jpeg_decodes_to_nearly_the_pixels_of_pillow() {
    let image = image::read(&path("rgb.jpg")).unwrap();
    assert_eq!((image.width(), image.height(), image.channels()), (24, 16, 3));
    let pixel = |y: usize, x: usize| &image.pixels()[(y * 24 + x) * 3..][..3];
    // Decoders may round the cosine transform and the chroma upsampling differently.
    for (found, expected) in [
        (pixel(0, 0), [0, 1, 0]),
        (pixel(7, 11), [110, 106, 107]),
        (pixel(15, 23), [230, 224, 226]),
    ] {
        let far = found.iter().zip(expected).any(|(a, b)| a.abs_diff(b) > 4);
        assert!(!far, "{found:?} {expected:?}");
    }
    let sum: u64 = image.pixels().iter().map(|p| u64::from(*p)).sum();
    assert!((sum as f64 / 1152.0 - 113.76).abs() < 0.5, "{sum}");
}

#[test]
fn small_bit_depths_and_palettes_are_expanded() {
    let bit = image::read(&path("bit.png")).unwrap();
    assert_eq!((bit.width(), bit.channels()), (9, 1));
    assert_eq!(bit.pixels()[..10], [0, 0, 0, 0, 0, 255, 255, 255, 255, 0]);
    let palette = image::read(&path("palette.png")).unwrap();
    assert_eq!(palette.channels(), 3);
    assert_eq!(palette.pixels()[6 * 3..7 * 3], [20, 15, 18]);
    let sum: u32 = palette.pixels().iter().map(|p| u32::from(*p)).sum();
    assert_eq!(sum, 889);
    assert_eq!(image::read(&path("grey.jpg")).unwrap().channels(), 1);
}

#[test]
fn the_exif_orientation_is_not_applied() {
    let image = image::read(&path("rotated.jpg")).unwrap();
    assert_eq!((image.width(), image.height()), (24, 8));
}

#[test]
fn other_kinds_are_refused_by_name() {
    assert!(refused(image::read(&path("cmyk.jpg")), "FB-4330").what().contains("CMYK"));
    assert!(refused(image::read(&path("deep.png")), "FB-4331").place().contains("deep.png"));
    refused(image::read(&path("moving.png")), "FB-4332");
    refused(image::decode(b"GIF89a......"), "FB-4333");
    refused(image::decode(b""), "FB-3330");
}

#[test]
fn a_truncated_image_is_refused_at_every_length() {
    for name in ["rgb.jpg", "grey.jpg", "palette.png", "bit.png"] {
        let whole = bytes(name);
        // The checksum of the PNG end marker carries no pixels.
        let end = if name.ends_with("png") { whole.len() - 12 } else { whole.len() };
        for n in 0..end {
            assert!(image::decode(&whole[..n]).is_err(), "{name} cut to {n} bytes");
        }
    }
    let jpeg = bytes("rgb.jpg");
    let e = refused(image::decode(&jpeg[..jpeg.len() - 2]), "FB-3330");
    assert!(e.what().contains("truncated") && e.place().contains("byte 712"), "{e}");
}

#[test]
fn no_flipped_byte_panics() {
    for name in ["rgb.jpg", "cmyk.jpg", "palette.png", "moving.png", "deep.png"] {
        let whole = bytes(name);
        for i in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[i] ^= flip;
                // Whether a flip is noticed depends on the format; that it ends does not.
                let _ = image::decode(&damaged);
            }
        }
    }
}

/// A PNG header with the given size and nothing that could fill it.
fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let mut out = bytes("bit.png");
    out[16..20].copy_from_slice(&width.to_be_bytes());
    out[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&out[12..29]);
    out[29..33].copy_from_slice(&crc.to_be_bytes());
    out
}

/// CRC-32 of ISO 3309, as PNG uses it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |c: u32, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 };
    !bytes.iter().fold(!0u32, |crc, b| (0..8).fold(crc ^ u32::from(*b), step))
}

#[test]
fn a_huge_image_in_few_bytes_is_refused_before_it_is_decoded() {
    assert!(image::decode(&png_of_size(9, 4)).is_ok(), "the checksum is right");
    for (w, h) in [(60_000, 60_000), (10_000, 10_000), (1, 40_000), (u32::MAX >> 1, 1)] {
        refused(image::decode(&png_of_size(w, h)), "FB-3331");
    }
    refused(image::decode(&png_of_size(0, 4)), "FB-3330");
    let mut jpeg = bytes("rgb.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    refused(image::decode(&jpeg), "FB-3331");
}
