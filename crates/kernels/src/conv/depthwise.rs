//! What the float and the int8 depthwise convolution share: which taps lie inside the image.

use std::ops::Range;

use super::shape::ConvShape;

/// The taps along one axis that fall inside an image of `size`, for the output at `position`.
#[inline(always)]
pub(super) fn taps(shape: &ConvShape, axis: usize, size: usize, position: usize) -> Range<usize> {
    let (pad, step) = (shape.pads[axis], shape.dilation[axis]);
    let start = position * shape.stride[axis];
    let first = pad.saturating_sub(start).div_ceil(step);
    let end = (size + pad).saturating_sub(start).div_ceil(step).min(shape.kernel[axis]);
    first.min(end)..end
}

/// The outputs along the horizontal axis all of whose taps fall inside the image.
pub(super) fn interior(shape: &ConvShape) -> Range<usize> {
    let (pad, stride) = (shape.pads[1], shape.stride[1]);
    let reach = shape.dilation[1] * (shape.kernel[1] - 1);
    let first = pad.div_ceil(stride);
    let end = (shape.in_w + pad).saturating_sub(reach).div_ceil(stride).min(shape.out_w());
    first.min(end)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_and_interior_agree_with_the_definition() {
        for case in 0..2000 {
            let [size, kernel, stride, dilation, pad, pad_after] =
                [1, 13, 57, 173, 519, 1557].map(|d| 1 + case / d % 4);
            let shape = ConvShape {
                batch: 1,
                in_h: 1,
                in_w: size + 2,
                in_c: 1,
                out_c: 1,
                kernel: [1, kernel],
                stride: [1, stride],
                dilation: [1, dilation],
                pads: [0, pad - 1, 0, pad_after - 1],
                groups: 1,
            };
            let inside = |x: usize, tap: usize| {
                let at = (x * stride + tap * dilation) as isize - (pad - 1) as isize;
                (0..shape.in_w as isize).contains(&at)
            };
            for x in 0..shape.out_w() {
                let all: Vec<usize> = (0..kernel).filter(|&tap| inside(x, tap)).collect();
                assert_eq!(
                    taps(&shape, 1, shape.in_w, x).collect::<Vec<_>>(),
                    all,
                    "{shape:?} {x}"
                );
                assert_eq!(interior(&shape).contains(&x), all.len() == kernel, "{shape:?} {x}");
            }
        }
    }
}
