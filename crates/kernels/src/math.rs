//! `exp`, `tanh`, `erf` as polynomials of our own, the same bits on every instruction set.
