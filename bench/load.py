"""Requests per second under load, side by side.

    $(bench/oracle-env) bench/load.py int8.onnx --callers 8 --threads 2 --seconds 60

Several callers share one session of `threads` threads, and each calls again as
soon as it has its answer. fewbit and ONNX Runtime take turns.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

from measure import BENCH, FEWBIT, fewbit_binary, interleave, spread, table


def main():
    parser = argparse.ArgumentParser(description="Compare requests per second under load.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each tool in each round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prefix", default="", help="put before each command; {cpus} becomes 0-1 for two threads, and so on")
    parser.add_argument("--fewbit", type=Path, default=FEWBIT)
    options = parser.parse_args()
    bench = [fewbit_binary(options.fewbit), "bench", options.model, "--threads", options.threads, "--seconds", options.seconds]
    peer = [sys.executable, BENCH / "peer_latency.py", options.model, options.threads, options.seconds]
    tools = {"fewbit": [*bench, "--callers", options.callers, "--json"], "onnxruntime": [*peer, f"callers={options.callers}"]}
    prefix = shlex.split(options.prefix.replace("{cpus}", f"0-{options.threads - 1}"))
    runs = interleave({name: [*prefix, *command] for name, command in tools.items()}, options.rounds)
    rows = []
    for name, done in runs.items():
        found = [json.loads(run.output) for run in done]
        columns = [spread([one[key] for one in found], 1) for key in ("throughput_per_s", "median_ms", "p99_ms")]
        rows.append([name, *columns, f"{max(one['p99_ms'] / one['median_ms'] for one in found):.2f}"])
    print(f"{options.model.name}: {options.callers} callers, {options.threads} threads, {options.seconds:g} s\n")
    table(["engine", "requests/s", "median ms", "p99 ms", "p99 / median"], rows)


if __name__ == "__main__":
    main()
