use super::*;
use crate::data::card::Interpolation;

/// A pattern with edges: (7x + 13y + 3xy) mod 256 over 13x9 pixels.
fn pattern() -> Image {
    let value = |i: usize| {
        let (x, y) = (i % 13, i / 13);
        ((x * 7 + y * 13 + x * y * 3) % 256) as u8
    };
    Image::new(9, 13, 1, (0..117).map(value).collect()).unwrap()
}

fn steps(resize: Option<u32>, how: Interpolation, crop: Option<u32>) -> InputSteps {
    InputSteps { resize, interpolation: Some(how), crop, ..InputSteps::default() }
}

fn weighted_sum(pixels: &[u8]) -> usize {
    pixels.iter().enumerate().map(|(i, p)| (i + 1) * *p as usize).sum()
}

#[test]
fn resizing_equals_pillow_bit_for_bit() {
    // Image.resize((7, 5), ...) of Pillow 12; the short side of 13x9 becomes 5.
    let bicubic = [
        9, 24, 40, 55, 71, 87, 101, 34, 58, 84, 108, 135, 167, 191, 61, 95, 131, 171, 202, 162, 75,
        88, 131, 182, 205, 119, 46, 95, 113, 170, 184, 44, 67, 132, 185,
    ];
    let bilinear = [
        13, 27, 43, 60, 76, 92, 107, 36, 58, 82, 108, 134, 158, 180, 64, 95, 130, 166, 190, 157,
        85, 91, 132, 177, 188, 116, 64, 101, 114, 163, 179, 61, 78, 126, 174,
    ];
    let nearest = [
        0, 14, 28, 42, 56, 70, 84, 26, 52, 78, 104, 130, 156, 182, 52, 90, 128, 166, 204, 242, 24,
        78, 128, 178, 228, 22, 72, 122, 104, 166, 228, 34, 96, 158, 220,
    ];
    for (how, expected) in [
        (Interpolation::Bicubic, bicubic),
        (Interpolation::Bilinear, bilinear),
        (Interpolation::Nearest, nearest),
    ] {
        let out = pattern().apply(&steps(Some(5), how, None)).unwrap();
        assert_eq!((out.width(), out.height()), (7, 5), "{how:?}");
        assert_eq!(out.pixels(), expected, "{how:?}");
    }
    let up = resize::to_size(&pattern(), 17, 12, Interpolation::Bicubic);
    assert_eq!(weighted_sum(up.pixels()), 2_582_450);
}

#[test]
fn an_odd_margin_is_split_as_torchvision_does() {
    // Half a pixel goes to the even number: 0.5 to 0, 1.5 to 2, 2.5 to 2, 3.5 to 4.
    let image = pattern().apply(&steps(Some(9), Interpolation::Nearest, Some(8))).unwrap();
    let source = pattern();
    assert_eq!(image.pixels()[0], source.pixels()[2], "margins 5 and 1");
    let image = pattern().apply(&steps(Some(9), Interpolation::Nearest, Some(6))).unwrap();
    assert_eq!(image.pixels()[0], source.pixels()[2 * 13 + 4], "margins 7 and 3");
    let e = pattern().apply(&steps(Some(9), Interpolation::Nearest, Some(10))).unwrap_err();
    assert_eq!((e.stable_code(), e.place().as_str()), ("FB-3332", "`crop`"));
}

#[test]
fn a_resize_may_not_explode() {
    let thin = Image::new(1, 10_000, 1, vec![0; 10_000]).unwrap();
    let e = thin.apply(&steps(Some(16_384), Interpolation::Nearest, None)).unwrap_err();
    assert_eq!((e.stable_code(), e.kind().exit_code()), ("FB-3331", 3));
}

#[test]
fn channels_convert_as_in_pillow() {
    let colours = [[0, 255, 0], [7, 248, 13], [14, 241, 26], [28, 227, 52], [35, 220, 65]];
    let image = Image::new(1, 5, 3, colours.concat()).unwrap();
    let luma = image.clone().with_channels(Channels::Luma).unwrap();
    assert_eq!(luma.pixels(), [150, 149, 149, 148, 147]);
    let bgr = image.with_channels(Channels::Bgr).unwrap();
    assert_eq!(bgr.pixels()[3..6], [13, 248, 7]);
    let grey = Image::new(1, 1, 2, vec![9, 128]).unwrap();
    assert_eq!(grey.with_channels(Channels::Rgb).unwrap().pixels(), [9, 9, 9]);
}
