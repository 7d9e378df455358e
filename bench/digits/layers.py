"""Layers with their backward pass, in numpy.

`forward` keeps what `backward` needs; `backward` takes the gradient of the
loss by the output, leaves the gradients by the parameters in `grads` and
returns the gradient by the input. Activations are NHWC.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


class Layer:
    """Parameters and their gradients under the same names."""

    def __init__(self, **params):
        self.params = {name: value.astype(np.float32) for name, value in params.items()}
        self.grads = {}

    def children(self):
        return []


def he_normal(rng, shape, fan_in):
    """He et al. 2015, "Delving deep into rectifiers": deviation sqrt(2 / fan_in)."""
    return rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)


def pad_same(x, kernel):
    margin = kernel // 2
    return np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))


class Conv(Layer):
    """Square convolution without bias by im2col; weight (k, k, in, out)."""

    def __init__(self, rng, inputs, outputs, kernel, stride=1):
        super().__init__(weight=he_normal(rng, (kernel, kernel, inputs, outputs), kernel * kernel * inputs))
        self.kernel, self.stride = kernel, stride

    def forward(self, x, training):
        padded = pad_same(x, self.kernel)
        windows = sliding_window_view(padded, (self.kernel, self.kernel), axis=(1, 2))
        windows = windows[:, ::self.stride, ::self.stride].transpose(0, 1, 2, 4, 5, 3)
        weight = self.params["weight"]
        columns = windows.reshape(-1, weight[..., 0].size)
        self.saved = columns, padded.shape
        return (columns @ weight.reshape(columns.shape[1], -1)).reshape(*windows.shape[:3], -1)

    def backward(self, grad):
        columns, padded_shape = self.saved
        weight = self.params["weight"]
        flat = grad.reshape(-1, grad.shape[-1])
        self.grads["weight"] = (columns.T @ flat).reshape(weight.shape)
        spread = (flat @ weight.reshape(columns.shape[1], -1).T).reshape(*grad.shape[:3], *weight.shape[:3])
        return self.gather(spread, padded_shape)

    def gather(self, spread, padded_shape):
        """col2im: adds up what every window says about an input pixel."""
        total = np.zeros(padded_shape, np.float32)
        height, width = (extent * self.stride for extent in spread.shape[1:3])
        for i in range(self.kernel):
            for j in range(self.kernel):
                total[:, i:i + height:self.stride, j:j + width:self.stride] += spread[:, :, :, i, j]
        margin = self.kernel // 2
        return total[:, margin:padded_shape[1] - margin, margin:padded_shape[2] - margin]


class Depthwise(Layer):
    """3x3 depthwise convolution, stride 1; weight (3, 3, channels)."""

    def __init__(self, rng, channels):
        super().__init__(weight=he_normal(rng, (3, 3, channels), 9))

    def forward(self, x, training):
        self.saved = padded = pad_same(x, 3)
        height, width = x.shape[1:3]
        weight = self.params["weight"]
        return sum(padded[:, i:i + height, j:j + width] * weight[i, j] for i in range(3) for j in range(3))

    def backward(self, grad):
        padded, weight = self.saved, self.params["weight"]
        height, width = grad.shape[1:3]
        by_weight, by_input = np.zeros_like(weight), np.zeros_like(padded)
        for i in range(3):
            for j in range(3):
                window = padded[:, i:i + height, j:j + width]
                by_weight[i, j] = np.einsum("nhwc,nhwc->c", window, grad)
                by_input[:, i:i + height, j:j + width] += grad * weight[i, j]
        self.grads["weight"] = by_weight
        return by_input[:, 1:-1, 1:-1]


class BatchNorm(Layer):
    """Ioffe and Szegedy 2015; the running statistics are what gets exported."""

    EPSILON = 1e-5
    MOMENTUM = 0.9

    def __init__(self, channels):
        super().__init__(gamma=np.ones(channels), beta=np.zeros(channels))
        self.mean, self.var = np.zeros(channels, np.float32), np.ones(channels, np.float32)

    def forward(self, x, training):
        if training:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            self.mean += (1 - self.MOMENTUM) * (mean - self.mean)
            self.var += (1 - self.MOMENTUM) * (var - self.var)
        else:
            mean, var = self.mean, self.var
        inverse = 1 / np.sqrt(var + np.float32(self.EPSILON))
        normal = (x - mean) * inverse
        self.saved = normal, inverse
        return normal * self.params["gamma"] + self.params["beta"]

    def backward(self, grad):
        normal, inverse = self.saved
        self.grads["beta"] = grad.sum((0, 1, 2))
        self.grads["gamma"] = (grad * normal).sum((0, 1, 2))
        count = grad.size // grad.shape[-1]
        centred = grad - (self.grads["beta"] + normal * self.grads["gamma"]) / np.float32(count)
        return centred * (self.params["gamma"] * inverse)


class Relu(Layer):
    """max(x, 0), or Clip to 0..`ceiling`."""

    def __init__(self, ceiling=np.inf):
        super().__init__()
        self.ceiling = ceiling

    def forward(self, x, training):
        self.saved = (x > 0) & (x < self.ceiling)
        return np.clip(x, 0, np.float32(self.ceiling))

    def backward(self, grad):
        return grad * self.saved


class MaxPool(Layer):
    """2x2, stride 2. Equal maxima share the gradient."""

    def forward(self, x, training):
        n, h, w, c = x.shape
        tiles = x.reshape(n, h // 2, 2, w // 2, 2, c)
        best = tiles.max((2, 4), keepdims=True)
        self.saved = tiles == best
        return best.reshape(n, h // 2, w // 2, c)

    def backward(self, grad):
        n, h, w, c = grad.shape
        share = grad.reshape(n, h, 1, w, 1, c) / self.saved.sum((2, 4), keepdims=True, dtype=np.float32)
        return (self.saved * share).reshape(n, h * 2, w * 2, c)


class GlobalAveragePool(Layer):
    """(N, H, W, C) to (N, C)."""

    def forward(self, x, training):
        self.saved = x.shape
        return x.mean((1, 2))

    def backward(self, grad):
        n, h, w, c = self.saved
        return np.broadcast_to(grad[:, None, None] / np.float32(h * w), self.saved)


class Linear(Layer):
    """x weight^T + bias; weight (out, in), as Gemm with transB stores it."""

    def __init__(self, rng, inputs, outputs):
        super().__init__(weight=he_normal(rng, (outputs, inputs), inputs), bias=np.zeros(outputs))

    def forward(self, x, training):
        self.saved = x
        return x @ self.params["weight"].T + self.params["bias"]

    def backward(self, grad):
        self.grads["weight"] = grad.T @ self.saved
        self.grads["bias"] = grad.sum(0)
        return grad @ self.params["weight"]


class Chain(Layer):
    """Named layers one after the other; with `residual`, added to the input."""

    def __init__(self, residual=False, **layers):
        super().__init__()
        self.residual, self.layers = residual, layers

    def children(self):
        return list(self.layers.items())

    def forward(self, x, training):
        out = x
        for layer in self.layers.values():
            out = layer.forward(out, training)
        return out + x if self.residual else out

    def backward(self, grad):
        out = grad
        for layer in reversed(self.layers.values()):
            out = layer.backward(out)
        return out + grad if self.residual else out
