//! Layer, RMS, batch and group normalization.
