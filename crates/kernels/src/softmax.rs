//! Softmax and log-softmax.
