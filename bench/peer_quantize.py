"""ONNX Runtime's static quantization as a user would call it; see quantize.py.

    peer_quantize.py MODEL OUT CARD minmax|percentile|entropy [signed]
"""

import sys
import tempfile
from pathlib import Path

import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from card import Card

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class Calibration(CalibrationDataReader):
    """One sample at a time, under the name of the model's only input."""

    def __init__(self, model, card):
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.name, self.rows = session.get_inputs()[0].name, card.inputs()

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {self.name: row}


def main():
    model, out, card, method, *signed = sys.argv[1:]
    activations = QuantType.QInt8 if signed else QuantType.QUInt8
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(model, prepared)
        quantize_static(
            prepared, out, Calibration(model, Card(card)), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=activations, weight_type=QuantType.QInt8, calibrate_method=METHODS[method],
        )


if __name__ == "__main__":
    main()
