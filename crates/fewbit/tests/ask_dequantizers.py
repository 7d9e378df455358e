"""Asks GPTQModel or AutoAWQ, as config.json says, what numbers the matrices of a folder are.

FOLDER OUT    OUT becomes a safetensors file of f32[outputs, inputs], named as the plain weights
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def gptq(tensors, layer, config):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    parts = {name: tensors[f"{layer}.{name}"] for name in ("qweight", "qzeros", "scales", "g_idx")}
    module = TorchLinear(
        bits=config["bits"],
        group_size=config["group_size"],
        sym=config["sym"],
        desc_act=config["desc_act"],
        in_features=len(parts["g_idx"]),
        out_features=parts["scales"].shape[1],
    )
    module.load_state_dict(parts)
    module.eval()
    convert_gptq_v1_to_v2_format_module(module, config["bits"], torch.int32)
    return module.dequantize_weight()


def awq(tensors, layer, config):
    from awq.utils.packing_utils import dequantize_gemm

    parts = [tensors[f"{layer}.{name}"] for name in ("qweight", "qzeros", "scales")]
    return dequantize_gemm(*parts, config["bits"], config["group_size"])


folder, out = map(Path, sys.argv[1:])
config = json.loads((folder / "config.json").read_text())["quantization_config"]
dequantize = {"gptq": gptq, "awq": awq}[config["quant_method"]]
tensors = load_file(folder / "model.safetensors")
layers = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
matrices = {f"{layer}.weight": dequantize(tensors, layer, config).T.float() for layer in layers}
save_file({name: matrix.contiguous() for name, matrix in matrices.items()}, out)
