"""Writes an int8 convolution network of ONNX (Q/DQ) as a file for LiteRT, with the same codes.

    litert_file.py MODEL.onnx OUT.tflite

For comparisons of speed: what `Conv`, `MaxPool`, `Add`, `GlobalAveragePool` and `Gemm` between
`QuantizeLinear` and `DequantizeLinear` do, as the operators of LiteRT that do the same; anything
else is refused. Unsigned codes become signed ones, 128 less, which changes no number. Images come
in as floats, [1, height, width, channels]; what is padded is padded by an operator of its own,
unless LiteRT's own rule ("same") gives the same.
"""

import sys
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

OPERATORS = schema.BuiltinOperator
NUMBERS = {np.dtype(np.float32): schema.TensorType.FLOAT32, np.dtype(np.int8): schema.TensorType.INT8,
           np.dtype(np.int32): schema.TensorType.INT32}


class File:
    """What is written: tensors, their data, operators."""

    def __init__(self):
        self.tensors, self.buffers, self.operators, self.codes = [], [schema.BufferT()], [], []

    def tensor(self, name, shape, kind, scale=None, zero=None, axis=0, data=None):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.atleast_1d(scale).astype(np.float32)
            tensor.quantization.zeroPoint = np.atleast_1d(zero).astype(np.int64)
            tensor.quantization.quantizedDimension = axis
        if data is not None:
            tensor.buffer = len(self.buffers)
            self.buffers.append(schema.BufferT())
            self.buffers[-1].data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name, data, scale=None, axis=0):
        zero = None if scale is None else np.zeros(np.size(scale))
        return self.tensor(name, data.shape, NUMBERS[data.dtype], scale, zero, axis, data)

    def operator(self, builtin, version, inputs, outputs, options=None):
        code = (builtin, version)
        if code not in self.codes:
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.codes.index(code), inputs, outputs
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.operators.append(operator)

    def save(self, path, first, last):
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, self.buffers, [graph], []
        for builtin, version in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
            model.operatorCodes.append(code)
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [first], [last]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())


def options(kind, **values):
    made = getattr(schema, f"{kind}OptionsT")()
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Network:
    """Walks through a graph in which each activation is quantized, dequantized, used."""

    def __init__(self, graph):
        self.graph, self.file = graph, File()
        self.stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.made = {name: node for node in graph.node for name in node.output}
        self.readers = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.found = {}  # by name of a float tensor: number of its codes, their shape

    def constant(self, name):
        """The codes and scales that a constant is dequantized from."""
        codes, scale, zero = (self.stored[part] for part in self.made[name].input)
        if np.any(zero):
            sys.exit(f"{name}: LiteRT wants weights whose zero point is 0")
        return codes, scale

    def result(self, name, shape):
        """The tensor of the codes that `name` is quantized to; what dequantizes them gives it."""
        [quantize] = [node for node in self.readers[name] if node.op_type == "QuantizeLinear"]
        scale, zero = (self.stored[part] for part in quantize.input[1:3])
        less = 128 if zero.dtype == np.uint8 else 0
        index = self.file.tensor(name, shape, schema.TensorType.INT8, scale, zero.astype(np.int64) - less)
        self.name(quantize.output[0], index, shape)
        return index

    def name(self, codes, index, shape):
        for reader in self.readers[codes]:
            self.found[reader.output[0]] = index, shape

    def padded(self, source, shape, kernel, strides, pads):
        """The input of a window, LiteRT's name of its padding, and the extents of the result."""
        sizes = [shape[1] + pads[0] + pads[2], shape[2] + pads[1] + pads[3]]
        extents = [(size - k) // step + 1 for size, k, step in zip(sizes, kernel, strides)]
        if not any(pads):
            return source, schema.Padding.VALID, extents
        if list(strides) == [1, 1] and all(pad == k // 2 for pad, k in zip(pads, [*kernel, *kernel])):
            return source, schema.Padding.SAME, extents
        around = np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], np.int32)
        size, like = [1, *sizes, shape[3]], self.file.tensors[source]
        kept = like.quantization
        name = f"{like.name}_padded"
        out = self.file.tensor(name, size, schema.TensorType.INT8, kept.scale, kept.zeroPoint)
        self.file.operator(OPERATORS.PAD, 2, [source, self.file.constant(f"{name}_by", around)], [out], schema.PadOptionsT())
        return out, schema.Padding.VALID, extents

    def conv(self, node):
        at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        (source, shape), (weights, scale) = self.found[node.input[0]], self.constant(node.input[1])
        bias, bias_scale = self.constant(node.input[2])
        kernel, strides = weights.shape[2:], at["strides"]
        if any(step != 1 for step in at.get("dilations", [1])):
            sys.exit(f"{node.name}: dilated")
        source, padding, extents = self.padded(source, shape, kernel, strides, at["pads"])
        depthwise = at["group"] > 1
        if depthwise and (at["group"] != shape[3] or len(weights) != shape[3]):
            sys.exit(f"{node.name}: groups of several channels")
        # [out, in, height, width] to [out, height, width, in], depthwise [1, height, width, out].
        weights = np.transpose(weights, (1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        inputs = [source, self.file.constant(node.input[1], weights, scale, 3 if depthwise else 0),
                  self.file.constant(node.input[2], bias, bias_scale)]
        strides = dict(padding=padding, strideH=strides[0], strideW=strides[1], dilationHFactor=1, dilationWFactor=1)
        if depthwise:
            kind = OPERATORS.DEPTHWISE_CONV_2D, 3
            how = options("DepthwiseConv2D", depthMultiplier=1, **strides)
        else:
            kind, how = (OPERATORS.CONV_2D, 3), options("Conv2D", **strides)
        out = self.result(node.output[0], [1, *extents, len(bias)])
        self.file.operator(*kind, inputs, [out], how)

    def max_pool(self, node):
        at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        source, shape = self.found[node.input[0]]
        zero = self.file.tensors[source].quantization.zeroPoint
        if any(at["pads"]) and zero[0] != -128:
            sys.exit(f"{node.name}: what is padded would not be the least")
        kernel, strides = at["kernel_shape"], at["strides"]
        source, padding, extents = self.padded(source, shape, kernel, strides, at["pads"])
        out = self.result(node.output[0], [1, *extents, shape[3]])
        how = options("Pool2D", padding=padding, strideH=strides[0], strideW=strides[1],
                      filterHeight=kernel[0], filterWidth=kernel[1])
        self.file.operator(OPERATORS.MAX_POOL_2D, 2, [source], [out], how)

    def add(self, node):
        (first, shape), (second, _) = (self.found[name] for name in node.input)
        out = self.result(node.output[0], shape)
        self.file.operator(OPERATORS.ADD, 2, [first, second], [out], options("Add"))

    def mean(self, node):
        source, shape = self.found[node.input[0]]
        axes = self.file.constant(f"{node.output[0]}_over", np.array([1, 2], np.int32))
        out = self.result(node.output[0], [1, shape[3]])
        self.file.operator(OPERATORS.MEAN, 2, [source, axes], [out], options("Reducer", keepDims=False))

    def flatten(self, node):
        """The mean has lost its extents already."""
        [quantize] = self.readers[node.output[0]]
        self.name(quantize.output[0], *self.found[node.input[0]])

    def gemm(self, node):
        source, _ = self.found[node.input[0]]
        (weights, scale), (bias, bias_scale) = map(self.constant, node.input[1:3])
        inputs = [source, self.file.constant(node.input[1], weights, scale), self.file.constant(node.input[2], bias, bias_scale)]
        out = self.result(node.output[0], [1, len(bias)])
        version = 12 if np.size(scale) > 1 else 4
        self.file.operator(OPERATORS.FULLY_CONNECTED, version, inputs, [out], options("FullyConnected"))

    def write(self, path):
        steps = {"Conv": self.conv, "MaxPool": self.max_pool, "Add": self.add, "GlobalAveragePool": self.mean,
                 "Flatten": self.flatten, "Gemm": self.gemm}
        used = {node.op_type for node in self.graph.node} - {"QuantizeLinear", "DequantizeLinear"}
        if used - steps.keys() or "QuantizeLinear" not in {node.op_type for node in self.graph.node}:
            sys.exit(f"no int8 network of {', '.join(steps)}: it has {', '.join(sorted(used))}")
        [value] = [value for value in self.graph.input if value.name not in self.stored]
        channels, height, width = [extent.dim_value for extent in value.type.tensor_type.shape.dim][1:]
        shape = [1, height, width, channels]
        first = self.file.tensor(value.name, shape, schema.TensorType.FLOAT32)
        self.file.operator(OPERATORS.QUANTIZE, 1, [first], [self.result(value.name, shape)], schema.QuantizeOptionsT())
        for node in self.graph.node:
            if node.op_type in steps:
                steps[node.op_type](node)
        codes, shape = self.found[self.graph.output[0].name]
        last = self.file.tensor(self.graph.output[0].name, shape, schema.TensorType.FLOAT32)
        self.file.operator(OPERATORS.DEQUANTIZE, 2, [codes], [last], schema.DequantizeOptionsT())
        self.file.save(path, first, last)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    Network(onnx.load(sys.argv[1]).graph).write(Path(sys.argv[2]))


if __name__ == "__main__":
    main()
