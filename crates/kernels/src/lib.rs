//! Hot loops of fewbit: GEMM, convolution, elementwise, on slices, for every instruction set.
