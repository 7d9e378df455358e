"""The network, its optimizer and its training loop.

Small, but with what makes post-training quantization interesting: BatchNorm
to fold, a depthwise convolution with its uneven channels, ReLU and ReLU6,
and residual additions with and without an activation behind them.
"""

import numpy as np

from .data import augment
from .layers import BatchNorm, Chain, Conv, Depthwise, GlobalAveragePool, Linear, MaxPool, Relu


def separable(rng, channels):
    """Depthwise 3x3, ReLU6, then 1x1, around a skip connection (MobileNetV2, Sandler et al. 2018)."""
    return Chain(
        residual=True,
        depthwise=Depthwise(rng, channels),
        depthwise_bn=BatchNorm(channels),
        relu6=Relu(6.0),
        project=Conv(rng, channels, channels, 1),
        project_bn=BatchNorm(channels),
    )


def build(rng):
    """(N, 8, 8, 1) images to (N, 10) logits, about 195,000 parameters."""
    return Chain(
        stem=Conv(rng, 1, 32, 3),
        stem_bn=BatchNorm(32),
        stem_relu=Relu(),
        block1=separable(rng, 32),
        pool=MaxPool(),
        widen=Conv(rng, 32, 96, 3),
        widen_bn=BatchNorm(96),
        widen_relu=Relu(),
        block2=separable(rng, 96),
        block2_relu=Relu(),
        reduce=Conv(rng, 96, 176, 3, stride=2),
        reduce_bn=BatchNorm(176),
        reduce_relu=Relu(),
        average=GlobalAveragePool(),
        classifier=Linear(rng, 176, 10),
    )


def walk(layer):
    """Every layer below `layer`, depth first."""
    for _, child in layer.children():
        yield child
        yield from walk(child)


def parameter_count(net):
    return sum(value.size for layer in walk(net) for value in layer.params.values())


def predict(net, images):
    return net.forward(images, training=False)


def accuracy(net, images, labels):
    return float((predict(net, images).argmax(1) == labels).mean())


def cross_entropy(logits, labels, smoothing):
    """Mean loss and its gradient, with label smoothing (Szegedy et al. 2016)."""
    count, classes = logits.shape
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    target = np.full_like(logits, smoothing / classes)
    target[np.arange(count), labels] += 1 - smoothing
    return float(-(target * log_p).sum() / count), (np.exp(log_p) - target) / np.float32(count)


class AdamW:
    """Loshchilov and Hutter 2019; only weights decay, not gamma, beta and bias."""

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, net, decay):
        self.layers, self.decay, self.steps = list(walk(net)), decay, 0
        self.moments = [{k: (np.zeros_like(v), np.zeros_like(v)) for k, v in layer.params.items()} for layer in self.layers]

    def step(self, rate):
        self.steps += 1
        correction = np.sqrt(1 - self.BETA2**self.steps) / (1 - self.BETA1**self.steps)
        for layer, moments in zip(self.layers, self.moments):
            for name, value in layer.params.items():
                first, second = moments[name]
                grad = layer.grads[name]
                first += (1 - self.BETA1) * (grad - first)
                second += (1 - self.BETA2) * (grad * grad - second)
                if name == "weight":
                    value *= np.float32(1 - rate * self.decay)
                value -= np.float32(rate * correction) * first / (np.sqrt(second) + np.float32(self.EPSILON))


def train(net, images, labels, rng, epochs, batch=64, peak_rate=3e-3, log=print):
    """One-cycle training: the rate rises over the first tenth, then falls as a cosine."""
    optimizer = AdamW(net, decay=0.05)
    batches = len(images) // batch
    total = epochs * batches
    for epoch in range(epochs):
        order, losses = rng.permutation(len(images)), []
        for index in range(batches):
            progress = (epoch * batches + index) / total
            rate = peak_rate * (progress / 0.1 if progress < 0.1 else 0.5 + 0.5 * np.cos(np.pi * (progress - 0.1) / 0.9))
            chosen = order[index * batch:(index + 1) * batch]
            logits = net.forward(augment(images[chosen], rng), training=True)
            loss, grad = cross_entropy(logits, labels[chosen], smoothing=0.05)
            net.backward(grad)
            optimizer.step(rate)
            losses.append(loss)
        if (epoch + 1) % 20 == 0 or epoch + 1 == epochs:
            log(f"epoch {epoch + 1:4d}  loss {np.mean(losses):.4f}")
