//! The right operand of an int8 product, before it is packed.

use crate::int8::Int8;

/// Which elements of a matrix lie side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    /// Those of a row: one per column.
    Rows,
    /// Those of a column: the factors of one sum.
    Columns,
}

/// A dense matrix of `k` rows and `n` columns.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) values: Int8<'a>,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) order: Order,
}

impl<'a> Weights<'a> {
    /// # Panics
    /// When there are not `k * n` values.
    pub(crate) fn new(values: Int8<'a>, k: usize, n: usize, order: Order) -> Self {
        assert_eq!(values.len(), k * n, "the right operand is {k} x {n}");
        Weights { values, k, n, order }
    }

    /// The element in row `k` and column `n`.
    #[inline(always)]
    pub(crate) fn at(&self, k: usize, n: usize) -> i32 {
        match self.order {
            Order::Rows => self.values.get(k * self.n + n),
            Order::Columns => self.values.get(n * self.k + k),
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
    pub(crate) fn sums(&self) -> Vec<i32> {
        let mut sums = vec![0; self.n];
        match self.order {
            Order::Columns => {
                for (col, sum) in sums.iter_mut().enumerate() {
                    *sum = (0..self.k).map(|row| self.at(row, col)).sum();
                }
            }
            Order::Rows => {
                for row in 0..self.k {
                    for (col, sum) in sums.iter_mut().enumerate() {
                        *sum += self.at(row, col);
                    }
                }
            }
        }
        sums
    }
}
