"""Data cards for the Python side of the benchmarks.

The same steps in the same order as fewbit's own reader, for `.npz` arrays and
for folders with a `labels.csv`. `card.toml@0..200` is a range of the card.
"""

import csv
import tomllib
from pathlib import Path

import numpy as np


class Card:
    """`len`, `inputs()` one sample at a time as float32 (1, ...), and `labels()`."""

    def __init__(self, text):
        path, _, limits = text.partition("@")
        self.card = tomllib.loads(Path(path).read_text())
        self.steps = self.card.get("input", {})
        self.source = Path(path).parent / self.card["path"]
        self.load = self.load_folder if self.source.is_dir() else self.load_arrays
        start, _, stop = limits.partition("..")
        self.load(int(start or 0), int(stop) if stop else None)

    def load_arrays(self, start, stop):
        arrays = np.load(self.source)
        self.samples = arrays["x"][start:stop].copy()
        self.classes = arrays["y"][start:stop] if "y" in arrays else None

    def load_folder(self, start, stop):
        with open(self.source / "labels.csv", newline="") as file:
            rows = list(csv.DictReader(file))[start:stop]
        self.samples = [self.source / row["file"] for row in rows]
        self.classes = np.array([int(row["label"]) for row in rows])

    def __len__(self):
        return len(self.samples)

    def labels(self):
        return self.classes

    def inputs(self):
        for sample in self.samples:
            yield self.convert(self.picture(sample) if isinstance(sample, Path) else sample)[None]

    def picture(self, path):
        from PIL import Image

        image = Image.open(path).convert("RGB")
        if short := self.steps.get("resize"):
            factor = short / min(image.size)
            method = getattr(Image.Resampling, self.steps.get("interpolation", "bicubic").upper())
            image = image.resize([round(extent * factor) for extent in image.size], method)
        return np.asarray(image)

    def convert(self, x):
        steps = self.steps
        if size := steps.get("crop"):
            top, left = ((extent - size) // 2 for extent in x.shape[:2])
            x = x[top:top + size, left:left + size]
        if steps.get("channels") == "BGR":
            x = x[..., ::-1]
        x = x.astype(np.float32) / np.float32(steps.get("scale", 1))
        x = (x - np.float32(steps.get("mean", 0))) / np.float32(steps.get("std", 1))
        x = (x - np.float32(steps.get("zero_point", 0))) * np.float32(steps.get("multiply", 1))
        return np.ascontiguousarray(x.transpose(2, 0, 1) if steps.get("layout") == "NCHW" and x.ndim == 3 else x)
