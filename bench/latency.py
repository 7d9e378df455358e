"""Latency at batch 1 on the same files, side by side.

    $(bench/oracle-env) bench/latency.py int8.onnx
    $(bench/oracle-env) bench/latency.py --mode float /tmp/fewbit-bench/resnet50.onnx

`fewbit bench` and the peers that are installed (ONNX Runtime, OpenVINO, LiteRT)
take turns over several rounds, each in a process of its own; every round gives one
median. LiteRT gets int8 convolution networks in its own format, with the same
codes (litert_file.py), and sits out others. The ratio is to the fastest peer. The least time of all runs stands beside
it, with a ratio to the least of the peers: on a machine that others use, too, that
is nearer to what it would do alone. `--precise` adds a row for ONNX Runtime
with kernels that do not saturate where there is no VNNI: those compute what
fewbit computes. `--prefix` puts a command in front of each, for example one that
pins it to processors.
"""

import argparse
import importlib.util
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import BENCH, FEWBIT, fewbit_binary, interleave, ratio, spread, table

PEERS = {"onnxruntime": "peer_latency.py", "openvino": "peer_openvino.py", "ai_edge_litert": "peer_litert.py"}


def arguments():
    installed = [name for name in PEERS if importlib.util.find_spec(name)]
    parser = argparse.ArgumentParser(description="Compare the latency of fewbit and other engines.")
    parser.add_argument("model", type=Path, nargs="+")
    parser.add_argument("--mode", choices=["float", "simulate", "integer"], default="integer", help="how fewbit runs the files")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each peer in each round")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=installed, help="[default: those installed]")
    parser.add_argument("--precise", action="store_true", help="also run ONNX Runtime without saturating kernels")
    parser.add_argument("--prefix", default="", help="put before each command; {cpus} becomes 0-1 for two threads, and so on")
    parser.add_argument("--fewbit", type=Path, default=FEWBIT)
    parser.add_argument("--peer-only", action="store_true", help="leave fewbit out")
    return parser.parse_args()


def files_of(options, model, folder):
    """The file that each peer reads; a peer that cannot is left out."""
    files = dict.fromkeys(options.peers, model)
    if "ai_edge_litert" in files:
        files["ai_edge_litert"] = folder / f"{model.stem}.tflite"
        written = subprocess.run([sys.executable, BENCH / "litert_file.py", model, files["ai_edge_litert"]],
                                 capture_output=True, text=True)
        if written.returncode != 0:
            print(f"without LiteRT: {written.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            del files["ai_edge_litert"]
    return files


def commands(options, model, threads, files):
    tools = {}
    if not options.peer_only:
        binary = fewbit_binary(options.fewbit)
        tools["fewbit"] = [binary, "bench", model, "--mode", options.mode, "--threads", threads, "--json"]
    for name, file in files.items():
        tools[name] = [sys.executable, BENCH / PEERS[name], file, threads, options.seconds]
    if options.precise:
        tools["onnxruntime precise"] = [sys.executable, BENCH / PEERS["onnxruntime"], model, threads, options.seconds, "precise"]
    prefix = shlex.split(options.prefix.replace("{cpus}", f"0-{threads - 1}"))
    return {name: [*prefix, *command] for name, command in tools.items()}


def compared(runs, peers):
    """The cells of each engine: times, and their ratios to the best of the peers."""
    found = {name: [json.loads(run.output) for run in done] for name, done in runs.items()}
    medians = {name: [one["median_ms"] for one in done] for name, done in found.items()}
    least = {name: min(one["least_ms"] for one in done) for name, done in found.items()}
    fastest = min((medians[name] for name in peers), key=lambda values: sorted(values)[len(values) // 2])
    best = min(least[name] for name in peers)
    for name, values in medians.items():
        memory = spread([run.peak_mb for run in runs[name]], 0)
        yield name, spread(values, 3), ratio(values, fastest), f"{least[name]:.3f}", f"{least[name] / best:.2f}", memory


def main():
    options, rows = arguments(), []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.model:
            files = files_of(options, model, Path(folder))
            for threads in options.threads:
                runs = interleave(commands(options, model, threads, files), options.rounds)
                rows += [[model.name, threads, *cells] for cells in compared(runs, files)]
    print(f"batch 1, median of {options.rounds} rounds (least to greatest); fewbit in mode {options.mode}\n")
    table(["model", "threads", "engine", "ms", "ratio to best peer", "least ms", "ratio of the least", "peak MB"], rows)


if __name__ == "__main__":
    main()
