//! Which place of the input an output element looks at.

use super::plan::Axis;
use fewbit_core::{Error, Node, Result};

/// The attribute `coordinate_transformation_mode`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Transform {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    /// Only in opset 11.
    HalfPixelForNearest,
    CropAndResize,
}

impl Transform {
    /// The transform of a node; old operators know one only.
    pub fn of(node: &Node, old: bool) -> Result<Transform> {
        if old {
            return Ok(Transform::Asymmetric);
        }
        let name = node.string("coordinate_transformation_mode")?.unwrap_or("half_pixel");
        Ok(match name {
            "half_pixel" => Transform::HalfPixel,
            "half_pixel_symmetric" => Transform::HalfPixelSymmetric,
            "pytorch_half_pixel" => Transform::PytorchHalfPixel,
            "align_corners" => Transform::AlignCorners,
            "asymmetric" => Transform::Asymmetric,
            "tf_half_pixel_for_nn" => Transform::HalfPixelForNearest,
            "tf_crop_and_resize" => Transform::CropAndResize,
            other => {
                return Err(Error::bad_input(format!("unknown transform `{other}`"))
                    .at("attribute `coordinate_transformation_mode`"));
            }
        })
    }

    /// The input coordinate of output element `x`. In single precision, like the scales of a
    /// file: 3.5 pixels scaled by 0.7 lie exactly between two elements.
    pub fn coordinate(self, axis: &Axis, x: usize) -> f64 {
        let x = x as f32;
        let (input, scale) = (axis.input as f32, axis.scale as f32);
        let (start, end) = (axis.roi.0 as f32, axis.roi.1 as f32);
        // Before rounding down, as the specification's reference has it.
        let output = scale * input;
        let coordinate = match self {
            Transform::HalfPixel => (x + 0.5) / scale - 0.5,
            Transform::HalfPixelSymmetric => {
                let adjustment = axis.output as f32 / output;
                input / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
            }
            Transform::PytorchHalfPixel if axis.output <= 1 => 0.0,
            Transform::PytorchHalfPixel => (x + 0.5) / scale - 0.5,
            Transform::AlignCorners if output == 1.0 => 0.0,
            Transform::AlignCorners => x * (input - 1.0) / (output - 1.0),
            Transform::Asymmetric => x / scale,
            Transform::HalfPixelForNearest => (x + 0.5) / scale,
            Transform::CropAndResize if output == 1.0 => (start + end) * (input - 1.0) / 2.0,
            Transform::CropAndResize => {
                start * (input - 1.0) + x * (end - start) * (input - 1.0) / (output - 1.0)
            }
        };
        coordinate as f64
    }

    /// Whether a coordinate of this transform shows the extrapolation value.
    pub fn is_outside(self, axis: &Axis, coordinate: f64) -> bool {
        let inside = 0.0..=axis.input as f64 - 1.0;
        self == Transform::CropAndResize && !inside.contains(&coordinate)
    }
}
