//! Quantize, dequantize and requantize.
