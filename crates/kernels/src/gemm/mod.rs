//! Matrix products, float and int8.
