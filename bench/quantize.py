"""Static int8 quantization, side by side: wall time, peak memory, file size.

    $(bench/oracle-env) bench/quantize.py /tmp/fewbit-bench/resnet50.onnx /tmp/fewbit-bench/calib64.toml

`fewbit quantize` and ONNX Runtime's `quantize_static` take turns over several
rounds, each in a process of its own, start-up and file writing included.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from measure import BENCH, FEWBIT, fewbit_binary, interleave, ratio, spread, table


def arguments():
    parser = argparse.ArgumentParser(description="Time fewbit and ONNX Runtime on static int8 quantization.")
    parser.add_argument("model", type=Path)
    parser.add_argument("card", help="calibration data, for example calib64.toml or cifar10.toml@0..200")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processors that both may use")
    parser.add_argument("--peer", action="append", choices=["minmax", "percentile", "entropy"], help="calibration of ONNX Runtime, repeatable (default: minmax)")
    parser.add_argument("--recipe", action="append", default=[], help="also run fewbit with this recipe, repeatable")
    parser.add_argument("--fewbit", type=Path, default=FEWBIT)
    parser.add_argument("--peer-only", action="store_true", help="leave fewbit out")
    return parser.parse_args()


def commands(options, folder):
    """Tool name to (command, output file)."""
    tools = {}
    if not options.peer_only:
        binary = fewbit_binary(options.fewbit)
        for recipe in [None, *options.recipe]:
            name = f"fewbit {recipe}" if recipe else "fewbit"
            out = folder / f"{len(tools)}.onnx"
            extra = ["--recipe", recipe] if recipe else []
            command = [binary, "quantize", options.model, "-o", out, "--calibrate", options.card, "--threads", options.threads, "--json"]
            tools[name] = [*command, *extra], out
    for method in dict.fromkeys(options.peer or ["minmax"]):
        out = folder / f"{len(tools)}.onnx"
        tools[f"onnxruntime {method}"] = [sys.executable, BENCH / "peer_quantize.py", options.model, out, options.card, method], out
    return tools


def main():
    options = arguments()
    # Children inherit it: ONNX Runtime's quantizer has no setting for threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:max(1, options.threads)])
    with tempfile.TemporaryDirectory() as folder:
        tools = commands(options, Path(folder))
        outputs = {name: out for name, (_, out) in tools.items()}
        runs = interleave({name: command for name, (command, _) in tools.items()}, options.rounds, outputs)
        sizes = {name: out.stat().st_size for name, out in outputs.items()}
    seconds = {name: [run.seconds for run in done] for name, done in runs.items()}
    memory = {name: [run.peak_mb for run in done] for name, done in runs.items()}
    peer = next(name for name in tools if name.startswith("onnxruntime"))
    rows = [
        [
            name, spread(seconds[name]), ratio(seconds[name], seconds[peer]), spread(memory[name], 0),
            ratio(memory[name], memory[peer]), f"{sizes[name]:,}", f"{100 * sizes[name] / options.model.stat().st_size:.1f} %",
        ]
        for name in tools
    ]
    print(f"{options.model.name}, {options.card}, {options.threads} threads, median of {options.rounds} rounds (least to greatest)\n")
    table(["tool", "seconds", "ratio", "peak MB", "ratio", "bytes", "of float"], rows)


if __name__ == "__main__":
    main()
