"""Latency at batch 1 on the same files, side by side.

    $(bench/oracle-env) bench/latency.py int8.onnx
    $(bench/oracle-env) bench/latency.py --mode float /tmp/fewbit-bench/resnet50.onnx

`fewbit bench` and ONNX Runtime take turns over several rounds, each in a
process of its own; every round gives one median. `--precise` adds a row for
ONNX Runtime with kernels that do not saturate where there is no VNNI: those
compute what fewbit computes.
"""

import argparse
import json
import sys
from pathlib import Path

from measure import BENCH, FEWBIT, fewbit_binary, interleave, ratio, spread, table


def arguments():
    parser = argparse.ArgumentParser(description="Compare the latency of fewbit and ONNX Runtime.")
    parser.add_argument("model", type=Path, nargs="+")
    parser.add_argument("--mode", choices=["float", "simulate", "integer"], default="integer", help="how fewbit runs the files")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of ONNX Runtime in each round")
    parser.add_argument("--precise", action="store_true", help="also run ONNX Runtime without saturating kernels")
    parser.add_argument("--fewbit", type=Path, default=FEWBIT)
    parser.add_argument("--peer-only", action="store_true", help="leave fewbit out")
    return parser.parse_args()


def commands(options, model, threads):
    tools = {}
    if not options.peer_only:
        binary = fewbit_binary(options.fewbit)
        tools["fewbit"] = [binary, "bench", model, "--mode", options.mode, "--threads", threads, "--json"]
    peer = [sys.executable, BENCH / "peer_latency.py", model, threads, options.seconds]
    tools["onnxruntime"] = peer
    if options.precise:
        tools["onnxruntime precise"] = [*peer, "precise"]
    return tools


def main():
    options, rows = arguments(), []
    for model in options.model:
        for threads in options.threads:
            runs = interleave(commands(options, model, threads), options.rounds)
            medians = {name: [json.loads(run.output)["median_ms"] for run in done] for name, done in runs.items()}
            for name, values in medians.items():
                memory = [run.peak_mb for run in runs[name]]
                rows.append([model.name, threads, name, spread(values, 3), ratio(values, medians["onnxruntime"]), spread(memory, 0)])
    print(f"batch 1, median of {options.rounds} rounds (least to greatest); fewbit in mode {options.mode}\n")
    table(["model", "threads", "engine", "ms", "ratio", "peak MB"], rows)


if __name__ == "__main__":
    main()
