"""Tokens a second of whole language models, fewbit and llama.cpp in turns, beside a probe of the memory.

    python bench/language_speed.py MODEL.gguf ... --llama build/bin/llama-bench

The prompt has `--prompt` tokens and `--generate` tokens follow it. The ratio is fewbit's median
against llama.cpp's: more is faster. What one token of a long text reads is the size of the file
less the embedding, so that the probe says how near generation is to the memory's speed.
"""

import argparse
import json
import os
import statistics
import threading
import time
from pathlib import Path

import numpy as np
from measure import FEWBIT, Run, fewbit_binary, table

TEXT = "the quick brown fox jumps over the lazy dog "


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--llama", required=True, type=Path, help="llama-bench, built natively")
    parser.add_argument("--fewbit", type=Path, default=FEWBIT)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=460)
    parser.add_argument("--generate", type=int, default=32)
    return parser.parse_args()


def pinned(threads):
    cpus = ",".join(map(str, range(threads)))
    return [*(["chrt", "-f", "10"] if os.geteuid() == 0 else []), "taskset", "-c", cpus]


def probe(threads):
    """GB/s of reading 256 MB once by each thread; the best of five."""
    parts = [np.ones(1 << 25, np.uint64) for _ in range(threads)]
    best = 0.0
    for _ in range(5):
        work = [threading.Thread(target=np.bitwise_or.reduce, args=(part,)) for part in parts]
        start = time.perf_counter()
        [thread.start() for thread in work]
        [thread.join() for thread in work]
        best = max(best, sum(part.nbytes for part in parts) / (time.perf_counter() - start) / 1e9)
    return best


def fewbit(args, model, threads):
    # The words of the text are one token each in the vocabularies of Llama.
    text = (TEXT * (args.prompt // 9 + 1)).split(" ")[: args.prompt - 1]
    flags = ["--threads", threads, "-n", args.generate, "--json"]
    run = Run([*pinned(threads), args.fewbit, "generate", model, "-p", " ".join(text), *flags])
    found = json.loads(run.output)
    prompt = found["prompt_tokens"] / found["prompt_seconds"]
    return prompt, len(found["tokens"]) / found["seconds"], found["prompt_tokens"], run.peak_mb


def llama(args, model, threads, tokens):
    def speed(*flags):
        line = [*pinned(threads), args.llama, "-m", model, "-t", threads, "-r", 1, "-o", "json", *flags]
        run = Run(line)
        return json.loads(run.output)[-1]["avg_ts"], run.peak_mb

    prompt, _ = speed("-p", tokens, "-n", 0)
    generated, peak = speed("-p", 0, "-n", args.generate, "-d", tokens)
    return prompt, generated, peak


def compare(args, model, threads):
    ours, theirs, memory = [], [], []
    for _ in range(args.rounds):
        memory.append(probe(threads))
        ours.append(fewbit(args, model, threads))
        theirs.append(llama(args, model, threads, ours[-1][2]))
    rows = []
    for at, what in enumerate(["prompt", "generation"]):
        a, b = [run[at] for run in ours], [run[at] for run in theirs]
        both = [f"{statistics.median(x):.1f} ({min(x):.1f} to {max(x):.1f})" for x in (a, b)]
        share = f"{statistics.median(memory):.1f}" if at else ""
        rows.append([model.stem, threads, what, *both, f"{statistics.median(a) / statistics.median(b):.2f}", share])
    rows[0].append(f"{max(run[3] for run in ours):.0f}")
    rows[1].append("")
    return rows


def main():
    args = parse()
    args.fewbit = fewbit_binary(args.fewbit)
    rows = [row for model in args.models for threads in args.threads for row in compare(args, model, threads)]
    table(["model", "threads", "tokens/s", "fewbit", "llama.cpp", "ratio", "probe GB/s", "fewbit MB"], rows)


if __name__ == "__main__":
    main()
