"""Tokens a second of whole language models, fewbit and llama.cpp in turns, beside a probe of the memory.

    python bench/language_speed.py MODEL.gguf ... --llama build/bin/llama-bench

The prompt has `--prompt` tokens and `--generate` tokens follow it. The ratio is fewbit's median
against llama.cpp's: more is faster. One token of a text reads all weights but the table of
embeddings, unless that is the output's matrix as well; so generation is also shown as a share of
what the probe reads in a second, median against median.
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
    """GB/s of reading 256 MB once by each thread, on the processors of the others: 20 times."""
    parts = [np.ones(1 << 25, np.uint64) for _ in range(threads)]
    before, speeds = os.sched_getaffinity(0), []
    os.sched_setaffinity(0, range(threads))
    for _ in range(20):
        work = [threading.Thread(target=np.bitwise_or.reduce, args=(part,)) for part in parts]
        start = time.perf_counter()
        [thread.start() for thread in work]
        [thread.join() for thread in work]
        speeds.append(sum(part.nbytes for part in parts) / (time.perf_counter() - start) / 1e9)
    os.sched_setaffinity(0, before)
    return speeds


def read_per_token(args, model):
    """GB of weights that one token reads."""
    tensors = json.loads(Run([args.fewbit, "inspect", model, "--json"]).output)["tensors"]
    sizes = {tensor["name"]: tensor["bytes"] for tensor in tensors}
    unread = sizes["token_embd.weight"] if "output.weight" in sizes else 0
    return (sum(sizes.values()) - unread) / 1e9


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
        memory += probe(threads)
        ours.append(fewbit(args, model, threads))
        theirs.append(llama(args, model, threads, ours[-1][2]))
    speed = statistics.median(memory)
    rows = []
    for at, what in enumerate(["prompt", "generation"]):
        a, b = [run[at] for run in ours], [run[at] for run in theirs]
        both = [f"{statistics.median(x):.1f} ({min(x):.1f} to {max(x):.1f})" for x in (a, b)]
        row = [model.stem, threads, what, *both, f"{statistics.median(a) / statistics.median(b):.2f}"]
        if what == "generation":
            share = statistics.median(a) * read_per_token(args, model) / speed
            row += [f"{speed:.1f} ({min(memory):.1f} to {max(memory):.1f})", f"{100 * share:.0f} %", ""]
        else:
            row += ["", "", f"{max(run[3] for run in ours):.0f}"]
        rows.append(row)
    return rows


def main():
    args = parse()
    args.fewbit = fewbit_binary(args.fewbit)
    rows = [row for model in args.models for threads in args.threads for row in compare(args, model, threads)]
    table(["model", "threads", "tokens/s", "fewbit", "llama.cpp", "ratio", "probe GB/s", "of it", "fewbit MB"], rows)


if __name__ == "__main__":
    main()
