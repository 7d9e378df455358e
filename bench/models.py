"""Writes the networks that the benchmarks run, with random weights.

    $(bench/oracle-env) bench/models.py /tmp/fewbit-bench

ResNet-50 and MobileNetV2 in the shapes of torchvision, BatchNormalization
unfolded. The BatchNorm statistics are those of random images, so that every
activation stays in the range that a trained network has. Beside them: 64 and
640 random images with data cards. The seed fixes every byte but the last bits
of the statistics.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SEED = 7
EPSILON = 1e-5
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CARD = """\
# {count} random images, to time calibration with.
path = "{path}"   # array x ({count},224,224,3) uint8
task = "none"
[input]
scale  = 255.0
mean   = [0.485, 0.456, 0.406]
std    = [0.229, 0.224, 0.225]
layout = "NCHW"
"""


class Network:
    """Grows one ONNX graph.

    Without `statistics`, normalization is spelled out as arithmetic that also
    returns the mean and the variance it used; with them it becomes
    BatchNormalization nodes. Two runs over the same seed thus give first the
    statistics of every layer in one pass, then the network.
    """

    def __init__(self, statistics=None):
        self.rng = np.random.default_rng(SEED)
        self.statistics, self.fitted = statistics, []
        self.nodes, self.constants, self.layers = [], [], 0

    def node(self, op, inputs, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def weight(self, name, shape):
        """He et al. 2015: deviation sqrt(2 / fan in)."""
        deviation = np.sqrt(2.0 / np.prod(shape[1:]))
        return self.constant(name, self.rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation))

    def conv(self, x, inputs, outputs, kernel, stride=1, group=1):
        self.layers += 1
        weight = self.weight(f"conv{self.layers}.weight", (outputs, inputs // group, kernel, kernel))
        square = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.normalize(self.node("Conv", [x, weight], group=group, **square), outputs)

    def normalize(self, x, channels):
        name = f"bn{self.layers}"
        gamma = self.constant(f"{name}.weight", self.rng.uniform(0.6, 1.4, channels))
        beta = self.constant(f"{name}.bias", self.rng.normal(0, 0.3, channels))
        if self.statistics is None:
            return self.spelled_out(name, x, gamma, beta)
        mean = self.constant(f"{name}.running_mean", self.statistics[f"{name}.mean"].ravel())
        var = self.constant(f"{name}.running_var", self.statistics[f"{name}.var"].ravel())
        return self.node("BatchNormalization", [x, gamma, beta, mean, var], epsilon=EPSILON)

    def spelled_out(self, name, x, gamma, beta):
        mean, var = f"{name}.mean", f"{name}.var"
        axes = {"axes": [0, 2, 3], "keepdims": 1}
        self.nodes.append(helper.make_node("ReduceMean", [x], [mean], **axes))
        centred = self.node("Sub", [x, mean])
        self.nodes.append(helper.make_node("ReduceMean", [self.node("Mul", [centred, centred])], [var], **axes))
        self.fitted += [mean, var]
        root = self.node("Sqrt", [self.node("Add", [var, self.constant(f"{name}.epsilon", EPSILON)])])
        shape = self.node("Constant", [], value_ints=[1, -1, 1, 1])
        scaled = self.node("Mul", [self.node("Div", [centred, root]), self.node("Reshape", [gamma, shape])])
        return self.node("Add", [scaled, self.node("Reshape", [beta, shape])])

    def relu(self, x):
        return self.node("Relu", [x])

    def relu6(self, x):
        limits = [self.constant(f"clip{len(self.nodes)}.{end}", value) for end, value in (("min", 0.0), ("max", 6.0))]
        return self.node("Clip", [x, *limits])

    def classifier(self, x, channels):
        flat = self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1)
        weight = self.weight("classifier.weight", (1000, channels))
        bias = self.constant("classifier.bias", np.zeros(1000))
        self.nodes.append(helper.make_node("Gemm", [flat, weight, bias], ["logits"], name="classifier", transB=1))

    def model(self, title):
        image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])]
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.fitted]
        graph = helper.make_graph(self.nodes, title, [image], outputs, self.constants)
        return helper.make_model(graph, producer_name="fewbit", opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resnet50(net):
    """He et al. 2016, with the stride in the 3x3 convolution as torchvision has it."""
    x = net.relu(net.conv("input", 3, 64, 7, stride=2))
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for width, depth, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(depth):
            stride = first_stride if index == 0 else 1
            out = net.relu(net.conv(x, inputs, width, 1))
            out = net.relu(net.conv(out, width, width, 3, stride))
            out = net.conv(out, width, 4 * width, 1)
            skip = x if index else net.conv(x, inputs, 4 * width, 1, stride)
            x, inputs = net.relu(net.node("Add", [out, skip])), 4 * width
    net.classifier(x, inputs)


def mobilenetv2(net):
    """Sandler et al. 2018, width 1.0."""
    x, inputs = net.relu6(net.conv("input", 3, 32, 3, stride=2)), 32
    settings = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, outputs, depth, first_stride in settings:
        for index in range(depth):
            stride, hidden = first_stride if index == 0 else 1, inputs * expansion
            out = net.relu6(net.conv(x, inputs, hidden, 1)) if expansion > 1 else x
            out = net.relu6(net.conv(out, hidden, hidden, 3, stride, group=hidden))
            out = net.conv(out, hidden, outputs, 1)
            x, inputs = net.node("Add", [out, x]) if stride == 1 and inputs == outputs else out, outputs
    net.classifier(net.relu6(net.conv(x, inputs, 1280, 1)), 1280)


def random_images(count):
    return np.random.default_rng(SEED).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def as_input(images):
    return ((images / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)


def write_network(folder, architecture):
    fitting = Network()
    architecture(fitting)
    model = fitting.model(architecture.__name__).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    statistics = dict(zip(fitting.fitted, session.run(fitting.fitted, {"input": as_input(random_images(4))})))
    net = Network(statistics)
    architecture(net)
    model, path = net.model(architecture.__name__), folder / f"{architecture.__name__}.onnx"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = session.run(None, {"input": as_input(random_images(2))})[0]
    parameters = sum(np.prod(constant.dims, dtype=int) for constant in net.constants)
    print(f"{path}: {parameters:,} parameters, logits {logits.min():.1f} to {logits.max():.1f}")


def write_images(folder, count):
    path = folder / f"calib{count}.npz"
    np.savez(path, x=random_images(count))
    path.with_suffix(".toml").write_text(CARD.format(count=count, path=path.name))
    print(f"{path}: {count} images")


def main():
    parser = argparse.ArgumentParser(description="Write the networks and images of the benchmarks.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for architecture in (resnet50, mobilenetv2):
        write_network(folder, architecture)
    for count in (64, 640):
        write_images(folder, count)


if __name__ == "__main__":
    main()
