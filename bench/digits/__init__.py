"""The demonstration network for handwritten digits: data, training, export.

Run it with `bench/train_digits.py`. Arrays are float32 and NHWC throughout;
only the exported ONNX file is NCHW.
"""
