//! Convolutions over NHWC images, float and int8.
