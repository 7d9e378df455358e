"""Judges our GGUF files by the `gguf` package of llama.cpp, and lets it write files for us.

Usage: oracle.py write FOLDER      writes theirs.gguf, a split of it, and NAME.f32 for each tensor
       oracle.py describe FILE     prints metadata and tensors of a file as JSON
"""

import hashlib
import json
import sys

import gguf
import numpy as np

TYPES = [
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4",
]
# The package decodes these, but does not encode them: random bytes with sound scales.
DECODED = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ2_XXS"]


def scales(ty, block, rng):
    """Overwrites the binary16 scales of a block of random bytes by small ones."""
    small = rng.uniform(0.001, 0.1, 2).astype(np.float16).view(np.uint8)
    places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}.get(ty)
    for at in places or ((0, 2) if ty in ("Q4_K", "Q5_K") else (0,)):
        block[at : at + 2] = small[:2]


def tensors():
    rng = np.random.default_rng(7)
    for ty in TYPES:
        x = rng.standard_normal((3, 512)).astype(np.float32)
        kind = gguf.GGMLQuantizationType[ty]
        yield ty, kind, gguf.quants.quantize(x, kind) if ty != "F32" else x
    for ty in DECODED:
        kind = gguf.GGMLQuantizationType[ty]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (3 * 512 // elements, size), dtype=np.uint8)
        for block in blocks:
            scales(ty, block, rng)
        yield ty, kind, blocks.reshape(3, -1)


def fill(writer):
    writer.add_name("theirs")
    writer.add_uint8("v.u8", 200)
    writer.add_int8("v.i8", -3)
    writer.add_uint16("v.u16", 60000)
    writer.add_int16("v.i16", -30000)
    writer.add_uint32("v.u32", 4000000000)
    writer.add_int32("v.i32", -2000000000)
    writer.add_float32("v.f32", 1.5)
    writer.add_bool("v.bool", True)
    writer.add_string("v.string", "größe \u4f60")
    writer.add_uint64("v.u64", 2**63 + 1)
    writer.add_int64("v.i64", -(2**62))
    writer.add_float64("v.f64", 0.1)
    writer.add_array("a.texts", ["a", "", "\u4f60"])
    writer.add_array("a.ints", [1, -2, 3])
    writer.add_array("a.floats", [0.5, -1.5])
    for name, kind, data in tensors():
        writer.add_tensor(name, data, raw_dtype=kind)


def finish(writer):
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write(folder):
    finish(gguf.GGUFWriter(f"{folder}/theirs.gguf", "llama"))
    finish(gguf.GGUFWriter(f"{folder}/split.gguf", "llama", split_max_tensors=6))
    for name, kind, data in tensors():
        gguf.quants.dequantize(data, kind).astype(np.float32).tofile(f"{folder}/{name}.f32")


def describe(path):
    reader = gguf.GGUFReader(path)
    metadata = {
        key: [field.types[-1].name, field.contents()]
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")
    }
    listed = [
        [t.name, t.tensor_type.name, [int(n) for n in t.shape], hashlib.sha256(t.data.tobytes()).hexdigest()]
        for t in reader.tensors
    ]
    print(json.dumps({"metadata": metadata, "tensors": listed}))


{"write": write, "describe": describe}[sys.argv[1]](sys.argv[2])
