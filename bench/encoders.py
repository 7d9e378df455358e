"""Writes text encoders for the benchmarks, with random weights.

    $(bench/oracle-env) bench/encoders.py /tmp/fewbit-bench

Transformer encoders in the shapes of MiniLM-L6 and BERT-base (Devlin et al.
2019), from embedded tokens on: input `[batch, sequence, width]`, with the
attention mask of a full sequence. Beside each float file one that ONNX Runtime
quantized statically with Q/DQ nodes, u8 activations, s8 weights per channel.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

SEED = 11
SHAPES = {"minilm": (6, 384, 12, 1536), "bert-base": (12, 768, 12, 3072)}


class Encoder:
    """Grows one ONNX graph of post-norm blocks."""

    def __init__(self, layers, width, heads, hidden):
        self.rng = np.random.default_rng(SEED)
        self.nodes, self.constants = [], []
        self.width, self.heads, self.hidden = width, heads, hidden
        x = self.norm("x")
        for _ in range(layers):
            x = self.block(x)
        self.nodes.append(helper.make_node("Identity", [x], ["y"], name="output"))

    def node(self, op, inputs, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array, kind=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, kind), name))
        return name

    def linear(self, x, inputs, outputs):
        weight = self.rng.standard_normal((inputs, outputs), dtype=np.float32) / np.float32(np.sqrt(inputs))
        product = self.node("MatMul", [x, self.constant(weight)])
        return self.node("Add", [self.constant(self.rng.normal(0, 0.1, outputs)), product])

    def norm(self, x):
        gamma = self.constant(self.rng.uniform(0.6, 1.4, self.width))
        beta = self.constant(self.rng.normal(0, 0.3, self.width))
        return self.node("LayerNormalization", [x, gamma, beta], axis=-1, epsilon=1e-12)

    def split(self, x, order):
        shape = self.constant([0, 0, self.heads, self.width // self.heads], np.int64)
        return self.node("Transpose", [self.node("Reshape", [x, shape])], perm=order)

    def attention(self, x):
        query, key, value = (self.linear(x, self.width, self.width) for _ in range(3))
        query, key, value = self.split(query, [0, 2, 1, 3]), self.split(key, [0, 2, 3, 1]), self.split(value, [0, 2, 1, 3])
        scores = self.node("Div", [self.node("MatMul", [query, key]), self.constant(np.sqrt(self.width / self.heads))])
        weights = self.node("Softmax", [self.node("Add", [scores, self.constant(np.zeros((1, 1, 1, 1)))])], axis=-1)
        joined = self.node("Transpose", [self.node("MatMul", [weights, value])], perm=[0, 2, 1, 3])
        flat = self.node("Reshape", [joined, self.constant([0, 0, self.width], np.int64)])
        return self.linear(flat, self.width, self.width)

    def gelu(self, x):
        wave = self.node("Erf", [self.node("Div", [x, self.constant(np.sqrt(2.0))])])
        grown = self.node("Mul", [x, self.node("Add", [wave, self.constant(1.0)])])
        return self.node("Mul", [grown, self.constant(0.5)])

    def block(self, x):
        x = self.norm(self.node("Add", [self.attention(x), x]))
        hidden = self.gelu(self.linear(x, self.width, self.hidden))
        return self.norm(self.node("Add", [self.linear(hidden, self.hidden, self.width), x]))

    def model(self, title, sequence):
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", sequence, self.width]) for name in "xy"]
        graph = helper.make_graph(self.nodes, title, ends[:1], ends[1:], self.constants)
        return helper.make_model(graph, producer_name="fewbit", opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Noise(CalibrationDataReader):
    """A few samples of embedded tokens."""

    def __init__(self, sequence, width, count=4):
        rng = np.random.default_rng(SEED + 1)
        self.rows = iter([rng.standard_normal((1, sequence, width), dtype=np.float32) for _ in range(count)])

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"x": row}


def write(folder, name, sequence):
    path = folder / f"{name}{sequence}.onnx"
    onnx.save(Encoder(*SHAPES[name]).model(name, sequence), path)
    coded = path.with_name(f"{name}{sequence}-ort-int8.onnx")
    quantize_static(
        path, coded, Noise(sequence, SHAPES[name][1]), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
    print(f"{path}, {coded}")


def main():
    parser = argparse.ArgumentParser(description="Write the text encoders of the benchmarks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.shapes:
        write(options.folder, name, options.sequence)


if __name__ == "__main__":
    main()
