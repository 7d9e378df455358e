//! Which elements of a tensor share a scale and a zero point.

use crate::eval::axis_index;
use fewbit_core::{Error, Node, Result, Tensor};

/// A view of a tensor in which its scales are broadcast by numpy's rules.
#[derive(Debug, PartialEq)]
pub(crate) struct Layout {
    /// Dimensions of the view of the data.
    pub dims: Vec<usize>,
    /// Dimensions of the view of the scales.
    pub params: Vec<usize>,
    /// Where the last block is shorter than the others: elements in a block. The scales are
    /// then repeated, one for each element of the axis.
    ragged: Option<usize>,
}

impl Layout {
    /// How a scale of shape `scale` lies over data of shape `data`, by the attributes `axis`
    /// and `block_size` of a node.
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn of(node: &Node, data: &[usize], scale: &Tensor) -> Result<Layout> {
        let block = node.int("block_size")?.unwrap_or(0);
        let axis = node.int("axis")?.unwrap_or(1);
        let block = usize::try_from(block).map_err(|_| {
            Error::bad_input(format!("{block}, below 0")).at("attribute `block_size`")
        })?;
        Layout::new(data, scale.shape(), axis, block)
    }

    /// As [`of`](Layout::of); a block of 0 elements means one scale for each index of the axis.
    ///
    /// # Errors
    /// As [`of`](Layout::of).
    pub fn new(data: &[usize], scale: &[usize], axis: i64, block: usize) -> Result<Layout> {
        let count: usize = data.iter().product();
        match scale {
            [] | [1] => Ok(Layout { dims: vec![count], params: vec![1], ragged: None }),
            &[len] if block == 0 => per_axis(data, axis_index(axis, data.len())?, len),
            _ if block > 0 => blocked(data, scale, axis_index(axis, data.len())?, block),
            _ => Err(Error::bad_input(format!(
                "a scale of shape {scale:?} needs a `block_size`; without one it has rank 0 or 1"
            ))),
        }
    }

    /// Blocks of `block` elements (not 0) along an axis; scales have the data's rank.
    ///
    /// # Errors
    /// As [`of`](Layout::of).
    pub fn blocks(data: &[usize], scale: &[usize], axis: usize, block: usize) -> Result<Layout> {
        blocked(data, scale, axis, block)
    }

    /// Parameters broadcast over data by numpy's rules.
    ///
    /// # Errors
    /// When the shapes cannot be broadcast, or the data would have to repeat.
    pub fn broadcast(data: &[usize], params: &[usize]) -> Result<Layout> {
        let pairs = data.iter().rev().zip(params.iter().rev());
        let mut fits = pairs.map(|(&d, &p)| p == 1 || p == d);
        if params.len() > data.len() || !fits.all(|f| f) {
            return Err(Error::bad_input(format!(
                "scales or zero points of shape {params:?} do not fit data of shape {data:?}"
            ))
            .code("FB-3220"));
        }
        Ok(Layout { dims: data.to_vec(), params: params.to_vec(), ragged: None })
    }

    /// The scale of every element, by its position.
    pub fn positions(&self) -> impl Fn(usize) -> usize + '_ {
        let rank = self.dims.len();
        // Axes of size 1 repeat, and so do those that the scales have not.
        let mut strides = vec![0; rank];
        let mut step = 1;
        for (back, &size) in self.params.iter().rev().enumerate() {
            strides[rank - 1 - back] = if size == 1 { 0 } else { step };
            step *= size;
        }
        move |mut at| {
            let mut position = 0;
            for axis in (0..rank).rev() {
                position += at % self.dims[axis] * strides[axis];
                at /= self.dims[axis];
            }
            position
        }
    }

    /// One value for each scale of the view.
    pub fn spread<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        let (Some(block), &[outer, dim, inner]) = (self.ragged, self.params.as_slice()) else {
            return values;
        };
        let blocks = dim.div_ceil(block);
        let place = |o: usize, d: usize| (o * blocks + d / block) * inner;
        let rows = (0..outer).flat_map(|o| (0..dim).map(move |d| place(o, d)));
        rows.flat_map(|at| values[at..at + inner].iter().copied()).collect()
    }
}

fn per_axis(data: &[usize], axis: usize, len: usize) -> Result<Layout> {
    if data[axis] != len {
        return Err(Error::bad_input(format!(
            "{len} scales for axis {axis} of {} elements (shape {data:?})",
            data[axis]
        ))
        .code("FB-3220"));
    }
    let outer = data[..axis].iter().product();
    let inner = data[axis + 1..].iter().product();
    Ok(Layout { dims: vec![outer, len, inner], params: vec![len, 1], ragged: None })
}

fn blocked(data: &[usize], scale: &[usize], axis: usize, block: usize) -> Result<Layout> {
    let blocks = data[axis].div_ceil(block);
    let fits = |i: usize| scale[i] == if i == axis { blocks } else { data[i] };
    if scale.len() != data.len() || !(0..data.len()).all(fits) {
        return Err(Error::bad_input(format!(
            "scales of shape {scale:?} do not fit data of shape {data:?} in blocks of {block} \
             along axis {axis}"
        ))
        .code("FB-3221"));
    }
    let outer = data[..axis].iter().product();
    let inner = data[axis + 1..].iter().product();
    let dim = data[axis];
    Ok(match dim.is_multiple_of(block) {
        true => Layout {
            dims: vec![outer, blocks, block, inner],
            params: vec![outer, blocks, 1, inner],
            ragged: None,
        },
        false => Layout {
            dims: vec![outer, dim, inner],
            params: vec![outer, dim, inner],
            ragged: Some(block),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_line_scales_up_with_data() {
        let axis = Layout::new(&[2, 3, 4], &[3], 1, 0).unwrap();
        assert_eq!((axis.dims, axis.params), (vec![2, 3, 4], vec![3, 1]));
        let block = Layout::new(&[2, 6], &[2, 2], -1, 3).unwrap();
        assert_eq!((block.dims, block.params), (vec![2, 2, 3, 1], vec![2, 2, 1, 1]));
        let whole = Layout::new(&[2, 6], &[1], 1, 0).unwrap();
        assert_eq!((whole.dims, whole.params), (vec![12], vec![1]));
    }

    #[test]
    fn a_short_last_block_repeats_its_scale() {
        let layout = Layout::new(&[1, 5, 2], &[1, 2, 2], 1, 3).unwrap();
        assert_eq!(layout.spread(vec![1, 2, 3, 4]), [1, 2, 1, 2, 1, 2, 3, 4, 3, 4]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Layout::new(&[2, 3], &[2], 1, 0).is_err());
        assert!(Layout::new(&[2, 3], &[3], 2, 0).is_err());
        assert!(Layout::new(&[2, 6], &[2, 3], 1, 3).is_err());
        assert!(Layout::new(&[2, 6], &[2, 2], 1, 0).is_err());
        assert!(Layout::new(&[], &[3], 0, 0).is_err());
    }
}
