//! Shapes of two-dimensional convolutions.

/// A two-dimensional convolution over NHWC images. A one-dimensional one has height 1.
///
/// Pairs are (vertical, horizontal). The sizes must be such that all products fit a `usize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Number of images.
    pub batch: usize,
    /// Height of an input image.
    pub in_h: usize,
    /// Width of an input image.
    pub in_w: usize,
    /// Channels of an input image; a multiple of `groups`.
    pub in_c: usize,
    /// Channels of an output image; a multiple of `groups`.
    pub out_c: usize,
    /// Size of the kernel.
    pub kernel: [usize; 2],
    /// Steps between outputs.
    pub stride: [usize; 2],
    /// Steps between the taps of the kernel.
    pub dilation: [usize; 2],
    /// Rows above, columns to the left, rows below, columns to the right.
    pub pads: [usize; 4],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl ConvShape {
    /// Height of an output image; 0 where the kernel is larger than the padded input.
    pub fn out_h(&self) -> usize {
        self.out_size(0, self.in_h + self.pads[0] + self.pads[2])
    }

    /// Width of an output image; 0 where the kernel is larger than the padded input.
    pub fn out_w(&self) -> usize {
        self.out_size(1, self.in_w + self.pads[1] + self.pads[3])
    }

    fn out_size(&self, axis: usize, padded: usize) -> usize {
        let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
        // Sizes are asked for so often that a division would be felt.
        let steps = |room: usize| match self.stride[axis] {
            1 => room,
            2 => room / 2,
            step => room / step,
        };
        padded.checked_sub(reach).map_or(0, |room| steps(room) + 1)
    }

    /// Number of output pixels of all images.
    pub fn out_pixels(&self) -> usize {
        self.batch * self.out_h() * self.out_w()
    }

    /// Number of input elements.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_h * self.in_w * self.in_c
    }

    /// Number of output elements.
    pub fn output_len(&self) -> usize {
        self.out_pixels() * self.out_c
    }

    /// Number of weights.
    pub fn weights_len(&self) -> usize {
        self.out_c * self.k()
    }

    /// Length of the sum behind each output: taps times input channels of a group.
    pub fn k(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.group_in_c()
    }

    /// Input channels of a group.
    pub fn group_in_c(&self) -> usize {
        self.in_c / self.groups
    }

    /// Output channels of a group.
    pub fn group_out_c(&self) -> usize {
        self.out_c / self.groups
    }

    /// Whether each group has a single input channel, so that the depthwise kernels apply.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.group_in_c() == 1
    }

    /// Whether each output pixel depends on the input pixel of the same position only.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pads == [0; 4]
    }

    /// # Panics
    /// When the numbers contradict each other.
    pub(crate) fn check(&self) {
        assert!(
            self.groups > 0 && self.in_c.is_multiple_of(self.groups),
            "groups do not divide in_c"
        );
        assert!(self.out_c.is_multiple_of(self.groups), "groups do not divide out_c");
        let steps = self.kernel.iter().chain(&self.stride).chain(&self.dilation);
        assert!(steps.into_iter().all(|&n| n > 0), "kernel, stride and dilation are at least 1");
    }

    /// The position of weight (`k`, `out`) in the order out channel, in channel, row, column
    /// (OIHW), where `k` counts rows, columns and in channels, the last fastest.
    pub(crate) fn weight_index(&self, k: usize, out: usize) -> usize {
        let (tap, channel) = (k / self.group_in_c(), k % self.group_in_c());
        (out * self.group_in_c() + channel) * self.kernel[0] * self.kernel[1] + tap
    }
}
