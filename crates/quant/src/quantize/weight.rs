//! Codes and scales of a constant weight.

use crate::affine::Affine;
use crate::observer::Range;
use crate::recipe::Rounding;
use fewbit_core::{DType, Granularity, QuantScheme, Result, Tensor};

/// A weight in codes.
#[derive(Clone, Debug)]
pub struct QuantizedWeight {
    /// Codes in the storage type of the scheme, in the shape of the weight.
    pub codes: Tensor,
    /// One scale for the tensor (rank 0), each index of the axis (rank 1), or each block
    /// (the weight's shape with the block axis divided).
    pub scales: Tensor,
    /// Zero points in the storage type, shaped as the scales.
    pub zero_points: Tensor,
}

/// Which scale an element belongs to.
struct Partition {
    scale_shape: Vec<usize>,
    inner: usize,
    axis_len: usize,
    block: usize,
}

impl Partition {
    fn new(shape: &[usize], granularity: Granularity) -> Self {
        let resolve =
            |axis: i32| (if axis < 0 { axis + shape.len() as i32 } else { axis }) as usize;
        let inner_of = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        match granularity {
            Granularity::Tensor => Partition {
                scale_shape: vec![],
                inner: shape.iter().product(),
                axis_len: 1,
                block: 1,
            },
            Granularity::Axis(axis) => {
                let axis = resolve(axis);
                Partition {
                    scale_shape: vec![shape[axis]],
                    inner: inner_of(axis),
                    axis_len: shape[axis],
                    block: 0,
                }
            }
            Granularity::Block { axis, size } => {
                let axis = resolve(axis);
                let mut scale_shape = shape.to_vec();
                scale_shape[axis] = shape[axis].div_ceil(size as usize);
                Partition {
                    scale_shape,
                    inner: inner_of(axis),
                    axis_len: shape[axis],
                    block: size as usize,
                }
            }
        }
    }

    fn count(&self) -> usize {
        self.scale_shape.iter().product()
    }

    /// Index of the scale of element `index`.
    fn scale_of(&self, index: usize) -> usize {
        if self.scale_shape.is_empty() {
            return 0;
        }
        let along = index / self.inner % self.axis_len;
        if self.block == 0 {
            return along;
        }
        let (outer, within) = (index / (self.inner * self.axis_len), index % self.inner);
        (outer * self.axis_len.div_ceil(self.block) + along / self.block) * self.inner + within
    }
}

/// Quantizes a weight.
///
/// `least_scale` gives a lower bound for each scale (or nothing): a bias stored in int32 with
/// the scale `input * weight` must not overflow.
///
/// # Errors
/// When the weight is not numeric.
pub(crate) fn quantize_weight(
    weight: &Tensor,
    scheme: &QuantScheme,
    rounding: Rounding,
    least_scale: &[f32],
) -> Result<QuantizedWeight> {
    let values = weight.to_f32()?;
    let partition = Partition::new(weight.shape(), scheme.granularity);
    let mut affines = scales(&values, &partition, scheme, rounding);
    for (affine, &least) in affines.iter_mut().zip(least_scale) {
        if affine.scale < least {
            *affine = Affine::new(least, affine.zero_point, scheme);
        }
    }
    let affines: Vec<Affine> = affines.into_iter().map(|a| stored(a, scheme)).collect();
    let codes = values.iter().enumerate().map(|(i, &v)| affines[partition.scale_of(i)].code(v));
    let codes = match scheme.storage {
        // The usual type, without the codes in `f64` in between.
        DType::I8 => {
            let codes: Vec<i8> = codes.map(|c| c as i8).collect();
            Tensor::from_slice(weight.shape().to_vec(), &codes)?
        }
        storage => {
            let codes: Vec<f64> = codes.map(f64::from).collect();
            Tensor::from_f64(storage, weight.shape().to_vec(), &codes)?
        }
    };
    let scale_values: Vec<f64> = affines.iter().map(|a| a.scale as f64).collect();
    let zero_values: Vec<f64> = affines.iter().map(|a| a.zero_point as f64).collect();
    Ok(QuantizedWeight {
        codes,
        scales: Tensor::from_f64(scheme.scale, partition.scale_shape.clone(), &scale_values)?,
        zero_points: Tensor::from_f64(scheme.storage, partition.scale_shape.clone(), &zero_values)?,
    })
}

/// The map as it reads back from storage: scales may be kept in fewer bits than `f32`.
fn stored(affine: Affine, scheme: &QuantScheme) -> Affine {
    let mut bytes = vec![0; scheme.scale.bytes_for(1).unwrap_or(4)];
    fewbit_core::codec::encode_f64(scheme.scale, &[affine.scale as f64], &mut bytes);
    let scale =
        fewbit_core::codec::decode_f32(scheme.scale, &bytes, 1).map_or(affine.scale, |v| v[0]);
    if scale > 0.0 && scale.is_finite() {
        Affine::new(scale, affine.zero_point, scheme)
    } else {
        affine
    }
}

fn scales(
    values: &[f32],
    partition: &Partition,
    scheme: &QuantScheme,
    rounding: Rounding,
) -> Vec<Affine> {
    let mut groups: Vec<Vec<f32>> = vec![Vec::new(); partition.count()];
    for (i, &v) in values.iter().enumerate() {
        groups[partition.scale_of(i)].push(v);
    }
    groups.iter().map(|group| fit(group, scheme, rounding)).collect()
}

fn fit(group: &[f32], scheme: &QuantScheme, rounding: Rounding) -> Affine {
    let finite = || group.iter().copied().filter(|v| v.is_finite());
    let full = Range::around(finite().fold(0.0, f32::min), finite().fold(0.0, f32::max));
    let widest = Affine::from_range(full, scheme);
    match rounding {
        Rounding::Nearest => widest,
        Rounding::Mse => smallest_error(group, full, scheme).unwrap_or(widest),
    }
}

/// The range, shrunk by 0 to 50 %, with the smallest squared error; the widest among equals.
fn smallest_error(group: &[f32], full: Range, scheme: &QuantScheme) -> Option<Affine> {
    let shrunk = |step: u32| {
        let factor = 1.0 - step as f32 * 0.01;
        let range = Range { low: full.low * factor, high: full.high * factor };
        Affine::from_range(range, scheme)
    };
    let error = |affine: &Affine| -> f64 {
        let squares = group.iter().map(|&v| ((v - affine.round_trip(v)) as f64).powi(2));
        squares.sum()
    };
    let candidates = (0..=50).map(shrunk);
    candidates.map(|a| (error(&a), a)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, a)| a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantize(shape: Vec<usize>, values: &[f32], scheme: &str) -> QuantizedWeight {
        let weight = Tensor::from_slice(shape, values).unwrap();
        quantize_weight(&weight, &scheme.parse().unwrap(), Rounding::Nearest, &[]).unwrap()
    }

    #[test]
    fn each_channel_has_its_own_scale() {
        let q = quantize(vec![2, 2], &[1.27, -0.635, 127.0, 63.5], "i8:axis(0):sym:narrow");
        assert_eq!(q.codes.to_i64().unwrap(), [127, -64, 127, 64]);
        assert_eq!(q.scales.shape(), [2]);
        let q = quantize(vec![2, 2], &[1.27, 127.0, -0.635, 63.5], "i8:axis(1):sym:narrow");
        assert_eq!(q.codes.to_i64().unwrap(), [127, 127, -64, 64]);
    }

    #[test]
    fn blocks_run_along_their_axis() {
        let q =
            quantize(vec![4, 2], &[7.0, 1.0, 3.0, 0.0, 70.0, 2.0, 0.0, 14.0], "i4:block(0,2):sym");
        assert_eq!(q.scales.shape(), [2, 2]);
        assert_eq!(q.codes.dtype(), DType::I4);
        assert_eq!(q.codes.to_i64().unwrap(), [7, 7, 3, 0, 7, 1, 0, 7]);
    }

    #[test]
    fn the_least_scale_is_respected() {
        let weight = Tensor::from_slice(vec![1, 2], &[1e-6f32, 1.0]).unwrap();
        let scheme = QuantScheme::i8_weights(1);
        let q = quantize_weight(&weight, &scheme, Rounding::Nearest, &[0.5, 0.0]).unwrap();
        assert_eq!(q.scales.to_f32().unwrap(), [0.5, 1.0 / 127.0]);
    }

    #[test]
    fn zero_weights_quantize_to_zero() {
        let q = quantize(vec![2, 2], &[0.0, 0.0, 1.0, f32::NAN], "i8:axis(0):sym:narrow");
        assert_eq!(q.codes.to_i64().unwrap(), [0, 0, 127, 0]);
    }

    #[test]
    fn the_mse_search_never_loses_to_the_widest_range() {
        let values: Vec<f32> =
            (0..64).map(|i| ((i * 37 % 64) as f32 / 32.0 - 1.0).powi(5) * 3.0).collect();
        let scheme: QuantScheme = "i4:tensor:sym".parse().unwrap();
        let error = |rounding| -> f32 {
            let affine = fit(&values, &scheme, rounding);
            values.iter().map(|&v| (v - affine.round_trip(v)).powi(2)).sum()
        };
        assert!(error(Rounding::Mse) < error(Rounding::Nearest));
    }
}
