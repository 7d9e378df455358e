"""Writes the network as ONNX, the way training frameworks export it.

NCHW, opset 17, BatchNormalization as nodes of its own, a batch of any size.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .layers import BatchNorm, Chain, Conv, Depthwise, GlobalAveragePool, Linear, MaxPool, Relu


class Writer:
    """Collects nodes and initializers; `value` is the tensor written last."""

    def __init__(self, value):
        self.nodes, self.initializers, self.value = [], [], value

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def node(self, op, name, inputs=(), output=None, **attributes):
        output = output or name
        self.nodes.append(helper.make_node(op, [self.value, *inputs], [output], name=name, **attributes))
        self.value = output


def square(kernel, stride):
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}


def write_conv(out, name, layer):
    weight = out.constant(f"{name}.weight", layer.params["weight"].transpose(3, 2, 0, 1))
    out.node("Conv", name, [weight], **square(layer.kernel, layer.stride))


def write_depthwise(out, name, layer):
    kernel = layer.params["weight"].transpose(2, 0, 1)[:, None]
    weight = out.constant(f"{name}.weight", kernel)
    out.node("Conv", name, [weight], group=len(kernel), **square(3, 1))


def write_batch_norm(out, name, layer):
    statistics = {"weight": layer.params["gamma"], "bias": layer.params["beta"], "mean": layer.mean, "var": layer.var}
    inputs = [out.constant(f"{name}.{key}", value) for key, value in statistics.items()]
    out.node("BatchNormalization", name, inputs, epsilon=layer.EPSILON, momentum=layer.MOMENTUM)


def write_relu(out, name, layer):
    if np.isinf(layer.ceiling):
        return out.node("Relu", name)
    out.node("Clip", name, [out.constant(f"{name}.min", np.array(0.0)), out.constant(f"{name}.max", np.array(layer.ceiling))])


def write_average(out, name, layer):
    out.node("GlobalAveragePool", name)
    out.node("Flatten", f"{name}.flat", axis=1)


def write_linear(out, name, layer):
    inputs = [out.constant(f"{name}.{key}", layer.params[key]) for key in ("weight", "bias")]
    out.node("Gemm", name, inputs, output="logits", transB=1)


def write_chain(out, name, chain):
    skip = out.value
    for child, layer in chain.children():
        WRITERS[type(layer)](out, f"{name}.{child}" if name else child, layer)
    if chain.residual:
        out.node("Add", f"{name}.add", [skip])


WRITERS = {
    BatchNorm: write_batch_norm,
    Chain: write_chain,
    Conv: write_conv,
    Depthwise: write_depthwise,
    GlobalAveragePool: write_average,
    Linear: write_linear,
    MaxPool: lambda out, name, layer: out.node("MaxPool", name, kernel_shape=[2, 2], strides=[2, 2]),
    Relu: write_relu,
}


def save(net, path):
    """`image` float (N, 1, 8, 8) in 0..1 to `logits` float (N, 10)."""
    out = Writer("image")
    write_chain(out, "", net)
    graph = helper.make_graph(
        out.nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        out.initializers,
    )
    model = helper.make_model(graph, producer_name="fewbit", opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
