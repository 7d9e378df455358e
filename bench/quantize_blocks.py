"""fewbit quantize against llama-quantize on one float GGUF: time, interleaved, and error.

    python bench/quantize_blocks.py MODEL.gguf --llama build/bin/llama-quantize \
        --fewbit target/release/fewbit --types Q8_0 Q4_0 Q4_K_M --threads 1 2 --rounds 3

Times are wall seconds of the whole command. The error is the squared error of all tensors of one
block type, each column counted by the importance matrix where one is given, relative to the
squared weights; both outputs are decoded by the `gguf` package.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


def command(tool, args, name, out, threads):
    if tool == "llama":
        imatrix = ["--imatrix", args.imatrix] if args.imatrix else []
        return [args.llama, *imatrix, args.model, out, name, str(threads)]
    imatrix = ["--imatrix", args.imatrix] if args.imatrix else []
    flags = ["--type", name, "--threads", str(threads), "--force", "--quiet"]
    return [args.fewbit, "quantize", args.model, "-o", out, *flags, *imatrix]


def timed(line, cores):
    pin = ["chrt", "-f", "10"] if os.geteuid() == 0 else []
    pin += ["taskset", "-c", ",".join(map(str, range(cores)))]
    start = time.perf_counter()
    process = subprocess.Popen(pin + line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"failed: {' '.join(line)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def importances(path):
    if not path:
        return {}
    tensors = {t.name: t.data for t in GGUFReader(path).tensors}
    sums = [n for n in tensors if n.endswith(".in_sum2")]
    return {n[:-8]: tensors[n].ravel() / tensors[n[:-8] + ".counts"].ravel()[0] for n in sums}


def errors(reference, path, weights):
    """By block type: weighted squared error and signal."""
    found = {t.name: t for t in GGUFReader(path).tensors}
    total = defaultdict(lambda: np.zeros(2))
    for t in reference.tensors:
        other = found[t.name]
        if other.tensor_type == t.tensor_type:
            continue
        columns = int(t.shape[0])
        weight = weights.get(t.name, np.ones(columns, np.float32))
        x = t.data.reshape(-1, columns)
        y = other.data.reshape(len(x), -1)
        for i in range(0, len(x), 4096):
            a = x[i : i + 4096].astype(np.float32)
            b = dequantize(y[i : i + 4096], other.tensor_type).reshape(a.shape)
            total[other.tensor_type.name] += [(weight * (a - b) ** 2).sum(), (weight * a**2).sum()]
    return {name: error / signal for name, (error, signal) in total.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--llama", required=True)
    parser.add_argument("--fewbit", required=True)
    parser.add_argument("--imatrix")
    parser.add_argument("--types", nargs="+", default=["Q8_0", "Q4_0", "Q4_K_M"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-errors", action="store_true")
    args = parser.parse_args()
    reference, weights = GGUFReader(args.model), importances(args.imatrix)
    with tempfile.TemporaryDirectory(dir=Path(args.model).parent) as folder:
        for name in args.types:
            out = {tool: f"{folder}/{tool}.gguf" for tool in ("llama", "fewbit")}
            for threads in args.threads:
                seconds, memory = defaultdict(list), {}
                for _ in range(args.rounds):
                    for tool in out:
                        Path(out[tool]).unlink(missing_ok=True)
                        line = command(tool, args, name, out[tool], threads)
                        took, memory[tool] = timed(line, threads)
                        seconds[tool].append(took)
                a, b = (statistics.median(seconds[tool]) for tool in ("llama", "fewbit"))
                peak = " ".join(f"{tool} {mb:.0f} MB" for tool, mb in memory.items())
                print(f"{name} {threads}T llama {a:.2f} s fewbit {b:.2f} s = {a / b:.2f}x; {peak}")
            if not args.no_errors:
                a, b = (errors(reference, out[tool], weights) for tool in ("llama", "fewbit"))
                for ty in a:
                    print(f"  {ty}: llama {a[ty]:.4e} fewbit {b[ty]:.4e} = {b[ty] / a[ty]:.3f}")


if __name__ == "__main__":
    main()
