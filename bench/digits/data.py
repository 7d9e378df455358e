"""The digits data of scikit-learn: split, augmentation and storage."""

import numpy as np
from sklearn.datasets import load_digits

WHITE = 16.0  # pixel values run from 0 to 16
TEST_PER_CLASS = 100
CALIBRATION_PER_CLASS = 20


def load():
    """Images as uint8 (1797, 8, 8, 1) with values 0..16, labels as uint8 (1797,)."""
    digits = load_digits()
    return digits.images.astype(np.uint8)[..., None], digits.target.astype(np.uint8)


def split(labels, rng):
    """Indices of the 1,000 test images and of the 797 training images.

    Every class gives exactly 100 test images. The training indices begin with
    20 of every class: they are the calibration set. All orders are shuffled,
    so that any range of either set is a fair sample.
    """
    test, calibration, rest = [], [], []
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(labels == digit))
        test.append(members[:TEST_PER_CLASS])
        calibration.append(members[TEST_PER_CLASS:TEST_PER_CLASS + CALIBRATION_PER_CLASS])
        rest.append(members[TEST_PER_CLASS + CALIBRATION_PER_CLASS:])
    test, calibration, rest = (rng.permutation(np.concatenate(part)) for part in (test, calibration, rest))
    return test, np.concatenate([calibration, rest])


def normalize(images):
    """What the network sees: float32 in 0..1, as the data cards say."""
    return images.astype(np.float32) / np.float32(WHITE)


def augment(images, rng, degrees=12.0, stretch=0.12, shift=0.9):
    """Rotates, scales and shifts every image by its own random amount.

    `images` is float32 (N, 8, 8, 1); sampling is bilinear with black outside.
    """
    count, height, width, _ = images.shape
    angle = np.deg2rad(rng.uniform(-degrees, degrees, count))[:, None, None]
    zoom_y, zoom_x = 1.0 + rng.uniform(-stretch, stretch, (2, count))[:, :, None, None]
    shift_y, shift_x = rng.uniform(-shift, shift, (2, count))[:, :, None, None]
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    rows, columns = np.meshgrid(np.arange(height) - middle_y, np.arange(width) - middle_x, indexing="ij")
    y = (np.cos(angle) * rows - np.sin(angle) * columns) * zoom_y + shift_y + middle_y
    x = (np.sin(angle) * rows + np.cos(angle) * columns) * zoom_x + shift_x + middle_x
    return bilinear(images[..., 0], y, x)[..., None].astype(np.float32)


def bilinear(images, y, x):
    """Samples (N, H, W) images at real positions `y`, `x` of the same shape."""
    border = 2
    padded = np.pad(images, ((0, 0), (border, border), (border, border)))
    y = np.clip(y + border, 0, padded.shape[1] - 1.001)
    x = np.clip(x + border, 0, padded.shape[2] - 1.001)
    top, left = y.astype(int), x.astype(int)
    down, right = y - top, x - left
    sample = np.arange(len(images))[:, None, None]
    upper = padded[sample, top, left] * (1 - right) + padded[sample, top, left + 1] * right
    lower = padded[sample, top + 1, left] * (1 - right) + padded[sample, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


CARD = """\
# {title}
path = "{path}"   # arrays x (N,8,8,1) uint8, values 0 to 16, and y (N)
task = "classify"
[input]
scale  = 16.0
layout = "NCHW"
"""


def save(folder, arrays, card, title, images, labels):
    """Writes the arrays and the data card that says how to read them; names are without suffix."""
    path = folder / f"{arrays}.npz"
    np.savez_compressed(path, x=images, y=labels)
    (folder / f"{card}.toml").write_text(CARD.format(title=title, path=path.name))
    print(f"{path.name}: {len(images)} images, {path.stat().st_size:,} bytes")
