//! The largest of some rows of a matrix, column by column: what a maximum pool does to its window.

use crate::{Isa, Job};

/// `out[c]` = the largest of `x[row * out.len() + c]` for the given rows, and `lowest` where there
/// is none. A NaN is passed over.
struct Largest<'a, T> {
    x: &'a [T],
    rows: &'a [usize],
    lowest: T,
    out: &'a mut [T],
}

impl<T: Copy + PartialOrd> Job for Largest<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let columns = self.out.len();
        // Blocks of columns whose results stay in registers.
        let (blocks, rest) = self.out.as_chunks_mut::<32>();
        let mut first = 0;
        for out in blocks {
            *out = block(self.x, self.rows, columns, first, self.lowest);
            first += out.len();
        }
        let (blocks, rest) = rest.as_chunks_mut::<8>();
        for out in blocks {
            *out = block(self.x, self.rows, columns, first, self.lowest);
            first += out.len();
        }
        for out in rest {
            [*out] = block(self.x, self.rows, columns, first, self.lowest);
            first += 1;
        }
    }
}

/// The largest of `N` columns from `first` on.
#[inline(always)]
fn block<T: Copy + PartialOrd, const N: usize>(
    x: &[T],
    rows: &[usize],
    columns: usize,
    first: usize,
    lowest: T,
) -> [T; N] {
    let mut largest = [lowest; N];
    for &row in rows {
        let values = &x[row * columns + first..][..N];
        for (largest, &value) in largest.iter_mut().zip(values) {
            *largest = if value > *largest { value } else { *largest };
        }
    }
    largest
}

/// `out[c]` = the largest of `x[row * out.len() + c]` for the given `rows`; 0 where there is none.
///
/// # Panics
/// When a row is not in `x`.
pub fn largest_u8(isa: Isa, x: &[u8], rows: &[usize], out: &mut [u8]) {
    isa.run(Largest { x, rows, lowest: u8::MIN, out });
}

/// As [`largest_u8`]; -128 where there is none.
///
/// # Panics
/// As [`largest_u8`].
pub fn largest_i8(isa: Isa, x: &[i8], rows: &[usize], out: &mut [i8]) {
    isa.run(Largest { x, rows, lowest: i8::MIN, out });
}

/// As [`largest_u8`]; -inf where there is none. A NaN is passed over.
///
/// # Panics
/// As [`largest_u8`].
pub fn largest_f32(isa: Isa, x: &[f32], rows: &[usize], out: &mut [f32]) {
    isa.run(Largest { x, rows, lowest: f32::NEG_INFINITY, out });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{bits, codes, wild};

    #[test]
    fn the_largest_is_that_of_its_column() {
        for columns in [1, 7, 8, 31, 32, 64, 107] {
            let x = codes(9 * columns, 3);
            let signed: Vec<i8> = x.iter().map(|&x| x.cast_signed()).collect();
            let floats = wild(9 * columns, 4);
            for rows in [&[][..], &[4], &[0, 8], &[3, 1, 7, 2, 6]] {
                let column = |c: usize| rows.iter().map(move |row| row * columns + c);
                for isa in Isa::available() {
                    let mut out = vec![9; columns];
                    largest_u8(isa, &x, rows, &mut out);
                    let want = |c| column(c).map(|i| x[i]).max().unwrap_or(0);
                    assert_eq!(out, (0..columns).map(want).collect::<Vec<_>>(), "{isa}");
                    let mut out = vec![9; columns];
                    largest_i8(isa, &signed, rows, &mut out);
                    let want = |c| column(c).map(|i| signed[i]).max().unwrap_or(-128);
                    assert_eq!(out, (0..columns).map(want).collect::<Vec<_>>(), "{isa}");
                    let mut out = vec![9.0; columns];
                    largest_f32(isa, &floats, rows, &mut out);
                    let pick = |most: f32, x: f32| if x > most { x } else { most };
                    let want = |c| column(c).map(|i| floats[i]).fold(f32::NEG_INFINITY, pick);
                    let want: Vec<f32> = (0..columns).map(want).collect();
                    assert_eq!(bits(&out), bits(&want), "{isa}");
                }
            }
        }
    }
}
