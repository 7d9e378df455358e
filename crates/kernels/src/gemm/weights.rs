//! The right operand of an int8 product, before it is packed.

use crate::cpu::{Isa, Job};
use crate::int8::Int8;

/// Which elements of a matrix lie side by side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order<'a> {
    /// Those of a row: one per column.
    Rows,
    /// Those of a column: the factors of one sum.
    Columns,
    /// Those of a column; where in it the factor of each row lies.
    Places(&'a [u32]),
}

/// A dense matrix of `k` rows and `n` columns.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) values: Int8<'a>,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) order: Order<'a>,
}

impl<'a> Weights<'a> {
    /// # Panics
    /// When there are not `k * n` values, or not `k` places.
    pub(crate) fn new(values: Int8<'a>, k: usize, n: usize, order: Order<'a>) -> Self {
        assert_eq!(values.len(), k * n, "the right operand is {k} x {n}");
        if let Order::Places(places) = order {
            assert_eq!(places.len(), k, "a place for each of {k} rows");
        }
        Weights { values, k, n, order }
    }

    /// The element in row `k` and column `n`.
    #[inline(always)]
    pub(crate) fn at(&self, k: usize, n: usize) -> i32 {
        match self.order {
            Order::Rows => self.values.get(k * self.n + n),
            Order::Columns => self.values.get(n * self.k + k),
            Order::Places(places) => self.values.get(n * self.k + places[k] as usize),
        }
    }

    /// The elements as i8, if all are: those of an unsigned type below 128 are.
    pub(crate) fn signed(&self) -> Option<&'a [i8]> {
        match self.values {
            Int8::I8(values) => Some(values),
            Int8::U8(values) => {
                values.iter().all(|&v| v < 128).then(|| bytemuck::cast_slice(values))
            }
        }
    }

    /// The sum of each column.
    pub(crate) fn sums(&self, isa: Isa) -> Vec<i32> {
        match self.values {
            Int8::U8(values) => isa.run(Sums { values, weights: self }),
            Int8::I8(values) => isa.run(Sums { values, weights: self }),
        }
    }
}

/// Sums columns.
struct Sums<'a, T> {
    values: &'a [T],
    weights: &'a Weights<'a>,
}

impl<T: Copy> Job for Sums<'_, T>
where
    i32: From<T>,
{
    type Output = Vec<i32>;

    #[inline(always)]
    fn run(self) -> Vec<i32> {
        let Weights { k, n, order, .. } = *self.weights;
        let mut sums = vec![0; n];
        match order {
            Order::Columns | Order::Places(_) => {
                for (sum, column) in sums.iter_mut().zip(self.values.chunks_exact(k.max(1))) {
                    for &value in column {
                        *sum += i32::from(value);
                    }
                }
            }
            Order::Rows => {
                for row in self.values.chunks_exact(n.max(1)) {
                    for (sum, &value) in sums.iter_mut().zip(row) {
                        *sum += i32::from(value);
                    }
                }
            }
        }
        sums
    }
}
