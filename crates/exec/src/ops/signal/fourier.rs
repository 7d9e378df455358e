//! The discrete Fourier transform of one line, by mixed radix (Cooley and Tukey, 1965), in f64.

use super::precise::turn;

pub(super) type Complex = (f64, f64);

/// A transform of a fixed length.
pub(super) struct Plan {
    /// The powers of the root of unity.
    roots: Vec<Complex>,
    inverse: bool,
}

impl Plan {
    pub fn new(len: usize, inverse: bool) -> Plan {
        let sign = if inverse { 1.0 } else { -1.0 };
        let root = |k| {
            let (cos, sin) = turn(k, len);
            (cos, sign * sin)
        };
        Plan { roots: (0..len).map(root).collect(), inverse }
    }

    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// The transform of `line`, cut or filled with zeros to the length; an inverse one is scaled.
    pub fn run(&self, line: &[Complex]) -> Vec<Complex> {
        let mut values = line.to_vec();
        values.resize(self.len(), (0.0, 0.0));
        let mut out = self.transform(values);
        if self.inverse {
            let scale = self.len() as f64;
            out.iter_mut().for_each(|(re, im)| (*re, *im) = (*re / scale, *im / scale));
        }
        out
    }

    fn transform(&self, values: Vec<Complex>) -> Vec<Complex> {
        let n = values.len();
        if n < 2 {
            return values;
        }
        let radix = smallest_factor(n);
        let parts: Vec<Vec<Complex>> = (0..radix)
            .map(|r| self.transform(values.iter().skip(r).step_by(radix).copied().collect()))
            .collect();
        let stride = self.len() / n;
        let term = |k: usize, r: usize| {
            let (a, b) = parts[r][k % (n / radix)];
            let (c, d) = self.roots[r * k % n * stride];
            (a * c - b * d, a * d + b * c)
        };
        let sum =
            |k| (0..radix).map(|r| term(k, r)).fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        (0..n).map(sum).collect()
    }
}

fn smallest_factor(n: usize) -> usize {
    (2..).take_while(|p| p * p <= n).find(|p| n.is_multiple_of(*p)).unwrap_or(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for len in [1, 2, 6, 7, 12, 30] {
            let line: Vec<Complex> = (0..len).map(|i| ((i * i % 7) as f64, i as f64)).collect();
            let there = Plan::new(len, false).run(&line);
            let back = Plan::new(len, true).run(&there);
            for (a, b) in line.iter().zip(&back) {
                assert!((a.0 - b.0).abs() < 1e-12 && (a.1 - b.1).abs() < 1e-12);
            }
            let sum = line.iter().fold(0.0, |sum, v| sum + v.0);
            assert!((there[0].0 - sum).abs() < 1e-12);
        }
    }
}
