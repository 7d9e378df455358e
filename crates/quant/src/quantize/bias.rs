//! Biases as int32 codes at the scale of the accumulator, and the correction of mean errors.

use fewbit_core::{Error, Granularity, QuantScheme, Result, Tensor};

/// Largest magnitude of a bias code: far from overflow even after the accumulator is added.
const LARGEST_CODE: f32 = (1 << 30) as f32;

/// The smallest weight scale of each channel at which the bias still fits int32. The outputs of
/// all `groups` share the channels.
pub(super) fn least_weight_scales(
    bias: &[f32],
    input_scale: f32,
    scheme: &QuantScheme,
    groups: usize,
) -> Vec<f32> {
    let least = |b: &f32| b.abs() / LARGEST_CODE / input_scale;
    let channels = bias.len() / groups;
    match scheme.granularity {
        Granularity::Tensor => vec![bias.iter().map(least).fold(0.0, f32::max)],
        _ => (0..channels)
            .map(|c| bias.iter().skip(c).step_by(channels).map(least).fold(0.0, f32::max))
            .collect(),
    }
}

/// The bias in codes of `input_scale * weight_scale`, and those scales.
///
/// # Errors
/// When the numbers of biases and scales do not fit.
pub(super) fn quantize_bias(
    bias: &[f32],
    input_scale: f32,
    weight_scales: &[f32],
) -> Result<(Tensor, Tensor)> {
    if weight_scales.len() != 1 && weight_scales.len() != bias.len() {
        return Err(Error::bad_input(format!(
            "{} biases for {} channels",
            bias.len(),
            weight_scales.len()
        )));
    }
    let scales: Vec<f32> = weight_scales.iter().map(|w| w * input_scale).collect();
    let scale = |c: usize| scales[if scales.len() == 1 { 0 } else { c }];
    let codes: Vec<i32> =
        bias.iter().enumerate().map(|(c, b)| (b / scale(c)).round_ties_even() as i32).collect();
    let scales =
        if scales.len() == 1 { Tensor::scalar(scales[0]) } else { Tensor::vector(&scales) };
    Ok((Tensor::vector(&codes), scales))
}

/// Mean output error that quantized weights add to each channel, from the mean of each input
/// channel (Nagel et al. 2019, section 4.2): `sum over inputs of (W_q - W) * mean`.
///
/// Weight layouts: convolution `[out, in / groups, kernel...]` with `channels_out = 0`, matrix
/// `[in, out]` with `channels_out = 1` (or `[out, in]` with 0).
pub(super) fn mean_error(
    weight: &Tensor,
    restored: &[f32],
    means: &[f64],
    channels_out: usize,
) -> Result<Vec<f64>> {
    let original = weight.cow::<f32>()?;
    let shape = weight.shape();
    let (outputs, inputs) = (shape[channels_out], shape[1 - channels_out]);
    let kernel: usize = shape.iter().skip(2).product();
    let groups = means.len() / inputs.max(1);
    if groups == 0 || groups * inputs != means.len() || outputs % groups != 0 {
        return Err(Error::internal(format!(
            "{} channel means for a weight of shape {shape:?}",
            means.len()
        )));
    }
    let mut error = vec![0.0; outputs];
    let kernels = original.chunks_exact(kernel.max(1)).zip(restored.chunks_exact(kernel.max(1)));
    for (index, (w, q)) in kernels.enumerate() {
        let (first, second) = (index / shape[1], index % shape[1]);
        let (out, input) = if channels_out == 0 { (first, second) } else { (second, first) };
        let mean = means[out / (outputs / groups) * inputs + input];
        w.iter().zip(q).for_each(|(w, q)| error[out] += (q - w) as f64 * mean);
    }
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_error_of_a_grouped_convolution_uses_its_own_inputs() {
        let weight = Tensor::from_slice(vec![2, 1, 1, 1], &[1.0f32, 1.0]).unwrap();
        let error = mean_error(&weight, &[1.5, 0.5], &[10.0, 100.0], 0).unwrap();
        assert_eq!(error, [5.0, -50.0]);
    }

    #[test]
    fn both_matrix_layouts_agree() {
        let kn = Tensor::from_slice(vec![2, 1], &[1.0f32, 2.0]).unwrap();
        let nk = Tensor::from_slice(vec![1, 2], &[1.0f32, 2.0]).unwrap();
        let means = [1.0, 10.0];
        let a = mean_error(&kn, &[1.5, 2.5], &means, 1).unwrap();
        let b = mean_error(&nk, &[1.5, 2.5], &means, 0).unwrap();
        assert_eq!((a, b), (vec![5.5], vec![5.5]));
    }

    #[test]
    fn a_large_bias_raises_the_weight_scale() {
        let scheme = QuantScheme::i8_weights(0);
        let least = least_weight_scales(&[1e9, 0.5], 0.001, &scheme, 1);
        let (codes, _) = quantize_bias(&[1e9, 0.5], 0.001, &[least[0], 0.01]).unwrap();
        assert_eq!(codes.to_i64().unwrap()[1], 50000);
        assert!((codes.to_i64().unwrap()[0] - (1 << 30)).abs() < 128);
    }

    #[test]
    fn groups_share_the_scale_that_the_largest_of_their_biases_needs() {
        let scheme = QuantScheme::i8_weights(1);
        let least = least_weight_scales(&[0.0, 8.0, 4.0, -2.0], 1.0, &scheme, 2);
        assert_eq!(least, [4.0 / LARGEST_CODE, 8.0 / LARGEST_CODE]);
    }
}
