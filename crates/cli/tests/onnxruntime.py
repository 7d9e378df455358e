"""ONNX Runtime's side of onnxruntime.rs: samples come as raw f32 on stdin, one after the other.

    onnxruntime.py quantize FLOAT OUT     calibrates on the samples, writes OUT (QDQ, per channel)
    onnxruntime.py logits MODEL PIECE...  runs a language model on pieces of text, tokens apart by
                                          commas, with its cache; prints a line for each token
    onnxruntime.py newest MODEL OUT       stamps the operator set and IR version that the onnx package
                                          writes by itself
    onnxruntime.py top1 MODEL...          prints a line for each sample: the class by each model
"""

import math
import os
import sys
import tempfile

# Python puts the folder of a script first, and there this file would hide the package.
sys.path.pop(0)

import numpy as np
import onnx
import onnxruntime as ort


def session(model):
    options = ort.SessionOptions()
    # Without VNNI the usual kernels saturate in 16 bits.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def samples(port):
    shape = [size if isinstance(size, int) else 1 for size in port.shape]
    while data := sys.stdin.buffer.read(4 * math.prod(shape)):
        yield np.frombuffer(data, np.float32).reshape(shape)


def top1(models):
    sessions = [session(model) for model in models]
    port = sessions[0].get_inputs()[0]
    for x in samples(port):
        print(*(s.run(None, {s.get_inputs()[0].name: x})[0].argmax() for s in sessions))


def quantize(model, out):
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):
        def __init__(self, port):
            self.inputs = ({port.name: x} for x in samples(port))

        def get_next(self):
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = os.path.join(folder, "prepared.onnx")
        quant_pre_process(model, prepared)
        q.quantize_static(
            prepared,
            out,
            Reader(session(prepared).get_inputs()[0]),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
        )


def logits(model, pieces):
    s = session(model)
    past = [port for port in s.get_inputs() if port.name.startswith("past_key_values.")]
    cache = {port.name: np.zeros((1, 64, port.shape[2]), np.float32) for port in past}
    start = 0
    for piece in pieces:
        tokens = np.array([[int(token) for token in piece.split(",")]])
        places = np.arange(tokens.size)
        found, *presents = s.run(
            None,
            {
                "input_ids": tokens,
                "position_ids": places[None] + start,
                "logits_positions": places,
                **cache,
            },
        )
        cache = dict(zip(cache, presents))
        start += tokens.size
        for row in found[0]:
            print(*row)


def newest(model, out):
    model = onnx.load(model)
    model.ir_version = onnx.IR_VERSION
    model.opset_import[0].version = onnx.defs.onnx_opset_version()
    onnx.save(model, out)


if sys.argv[1] == "top1":
    top1(sys.argv[2:])
elif sys.argv[1] == "logits":
    logits(sys.argv[2], sys.argv[3:])
elif sys.argv[1] == "newest":
    newest(*sys.argv[2:])
else:
    quantize(*sys.argv[2:])
