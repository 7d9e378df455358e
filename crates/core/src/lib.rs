//! Tensors, data types, quantization schemes and the graph of fewbit.
