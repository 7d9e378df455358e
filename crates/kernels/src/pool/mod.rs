//! Average and maximum pooling.
