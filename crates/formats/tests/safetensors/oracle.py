"""Judges our safetensors by the `safetensors` package, and lets it write files for us.

Usage: oracle.py write FOLDER      writes theirs.safetensors
       oracle.py describe FILE     prints metadata and tensors of a file as JSON
"""

import hashlib
import json
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file


def write(folder):
    rng = np.random.default_rng(7)
    tensors = {
        str(np.dtype(ty)): (rng.standard_normal((3, 5)) * 50).astype(ty)
        for ty in "float64 float32 float16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool".split()
    }
    tensors["scalar"] = np.array(1.5, np.float32)
    tensors["none"] = np.zeros((2, 0), np.float32)
    save_file(tensors, f"{folder}/theirs.safetensors", {"format": "pt", "größe": "\u4f60\n"})


def describe(path):
    with safe_open(path, "numpy") as file:
        tensors = {}
        for name in file.keys():
            x = file.get_tensor(name)
            tensors[name] = [list(x.shape), hashlib.sha256(x.tobytes()).hexdigest()]
        print(json.dumps({"metadata": file.metadata(), "tensors": tensors}))


{"write": write, "describe": describe}[sys.argv[1]](sys.argv[2])
