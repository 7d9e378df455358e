"""What ONNX Runtime says about the exported network, in float and in int8."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from .data import normalize


def to_nchw(images):
    return normalize(images).transpose(0, 3, 1, 2)


def logits(path, images, exact=True):
    """With `exact`, Q/DQ nodes are computed as they are written.

    ONNX Runtime's own int8 kernels add pairs of u8 x s8 products in 16 bits on
    processors with AVX2 but without VNNI, and saturate there: the result then
    says more about the machine than about the model.
    """
    options = onnxruntime.SessionOptions()
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": to_nchw(images)})[0]


class Calibration(CalibrationDataReader):
    """One image at a time, as quantize_static wants it."""

    def __init__(self, images):
        self.rows = iter(to_nchw(images))

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"image": row[None]}


def quantized_by_peer(path, calibration, folder):
    """The path of ONNX Runtime's int8 model: u8 activations, s8 weights per channel."""
    prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
    quant_pre_process(str(path), str(prepared))
    quantize_static(
        str(prepared), str(quantized), Calibration(calibration), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
    return quantized


def report(path, images, labels, calibration, expected_logits):
    """Prints the figures of testdata/digits/README.md; fails where the export is wrong."""
    float_logits = logits(path, images)
    apart = float(np.abs(float_logits - expected_logits).max())
    if apart > 1e-3:
        raise SystemExit(f"{path}: ONNX Runtime's logits differ from the trained network's by {apart}")
    classes, size = float_logits.argmax(1), path.stat().st_size
    print(f"float: top-1 {(classes == labels).mean():.4f}, {size:,} bytes; logits within {apart:.1e} of the trained network")
    with tempfile.TemporaryDirectory() as folder:
        quantized = quantized_by_peer(path, calibration, folder)
        int8_size = quantized.stat().st_size
        print(f"ONNX Runtime static int8: {int8_size:,} bytes = {100 * int8_size / size:.1f} % of float")
        for name, exact in (("as written", True), ("on its int8 kernels", False)):
            int8 = logits(quantized, images, exact).argmax(1)
            print(f"  {name}: top-1 {(int8 == labels).mean():.4f}, {(int8 != classes).sum()} changed")
