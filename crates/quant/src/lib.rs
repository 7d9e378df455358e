//! Plan, calibrate, quantize, search, evaluate, explain: the product inside fewbit.
