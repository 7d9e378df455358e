"""KL divergence of quantized language models from their float model: fewbit beside llama-quantize.

    python bench/language_accuracy.py MODEL-F16.gguf --llama LLAMA.CPP/build/bin \
        --calibrate wiki=valid.txt@0..16 --calibrate plays=shakespeare.txt@0..16 \
        --data wikitext2.toml@0..20 --types Q4_0 IQ4_NL Q4_K_M Q8_0

For each type: both tools without calibration, and with each text: llama-imatrix and llama-quantize,
fewbit with the same importance matrix (nearest codes), fewbit with calibrated rounding. Every file
is scored by `fewbit eval --against`; `--cross-check` has llama-perplexity score fewbit's files too,
against its own run of the float model. Files and results stay in `--work`: what is there is not
done again.
"""

import argparse
import json
import os
import re
import subprocess
import time
from pathlib import Path

WINDOW = 512


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama", type=Path, required=True, help="folder of llama.cpp's programs")
    parser.add_argument("--fewbit", default="target/release/fewbit")
    parser.add_argument("--calibrate", action="append", default=[], metavar="NAME=TEXT@A..B")
    parser.add_argument("--data", required=True, metavar="CARD@A..B")
    parser.add_argument("--types", nargs="+", default=["Q4_0", "IQ4_NL", "Q4_K_M", "Q8_0"])
    parser.add_argument("--rounded", nargs="+", default=["Q4_0", "IQ4_NL"], help="types with calibrated rounding")
    parser.add_argument("--work", type=Path, default=Path("/tmp/fewbit-language"))
    parser.add_argument("--threads", default="2")
    parser.add_argument("--cross-check", metavar="TEXT", help="text of --data, for llama-perplexity")
    return parser.parse_args()


class Bench:
    def __init__(self, args):
        self.args = args
        self.rows = []
        args.work.mkdir(parents=True, exist_ok=True)

    def run(self, line):
        """Runs a command; its output, seconds and peak megabytes."""
        environment = dict(os.environ, LD_LIBRARY_PATH=str(self.args.llama))
        log = self.args.work / "last.log"
        start = time.perf_counter()
        with open(log, "w") as out:
            process = subprocess.Popen([str(a) for a in line], stdout=out, stderr=subprocess.STDOUT, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
        text = log.read_text(errors="replace")
        if status != 0:
            raise SystemExit(f"{line[0]} failed:\n{text[-2000:]}")
        return text, time.perf_counter() - start, usage.ru_maxrss / 1e3

    def importance(self, name, text):
        path, _, span = text.partition("@")
        chunks = span.split("..")[1] if span else "64"
        out = self.args.work / f"{name}.imatrix.gguf"
        if not out.exists():
            program = self.args.llama / "llama-imatrix"
            flags = ["--chunks", chunks, "-c", WINDOW, "-t", self.args.threads]
            self.run([program, "-m", self.args.model, "-f", path, "-o", out, *flags])
        return out

    def llama(self, type_, matrix=None):
        flags = ["--imatrix", matrix] if matrix else []
        return lambda out: [self.args.llama / "llama-quantize", *flags, self.args.model, out, type_, self.args.threads]

    def fewbit(self, type_, *flags):
        line = [self.args.fewbit, "quantize", self.args.model, "--type", type_, "--quiet", "--force"]
        return lambda out: [*line, "--threads", self.args.threads, *flags, "-o", out]

    def measure(self, type_, text, tool, command):
        out = self.args.work / f"{type_}-{text}-{tool}.gguf".replace(" ", "-")
        result = out.with_suffix(".json")
        if not result.exists():
            _, seconds, peak = self.run(command(out))
            line = [self.args.fewbit, "eval", out, "--against", self.args.model, "--data", self.args.data]
            subprocess.run([str(a) for a in [*line, "--json", "--quiet"]], check=True, stdout=open(result, "w"))
            found = json.loads(result.read_text())
            found.update(bytes=out.stat().st_size, made_seconds=seconds, made_megabytes=peak)
            result.write_text(json.dumps(found))
        found = json.loads(result.read_text())
        self.rows.append((type_, text, tool, out, found))
        return found

    def cross_check(self):
        """What llama-perplexity says about fewbit's files."""
        base = self.args.work / "base.logits"
        program, text = self.args.llama / "llama-perplexity", self.args.cross_check
        chunks = self.args.data.split("..")[-1]
        flags = ["-f", text, "-c", WINDOW, "--chunks", chunks, "-t", self.args.threads, "--kl-divergence-base", base]
        if not base.exists():
            self.run([program, "-m", self.args.model, *flags])
        for type_, text, tool, out, found in self.rows:
            if tool.startswith("fewbit"):
                said, _, _ = self.run([program, "-m", out, *flags, "--kl-divergence"])
                match = re.search(r"Mean\s+KLD:\s+([\d.]+)", said)
                theirs = match.group(1) if match else "?"
                print(f"{type_} {text} {tool}: {found['metrics']['kl_divergence']:.4f}, llama-perplexity {theirs}")


def main():
    args = arguments()
    bench = Bench(args)
    texts = dict(spec.split("=", 1) for spec in args.calibrate)
    for type_ in args.types:
        bench.measure(type_, "none", "llama-quantize", bench.llama(type_))
        bench.measure(type_, "none", "fewbit", bench.fewbit(type_))
        for name, text in texts.items():
            matrix = bench.importance(name, text)
            bench.measure(type_, name, "llama-quantize", bench.llama(type_, matrix))
            bench.measure(type_, name, "fewbit", bench.fewbit(type_, "--imatrix", matrix))
            if type_ in args.rounded:
                bench.measure(type_, name, "fewbit calibrated", bench.fewbit(type_, "--calibrate", text))
    print("| type | text | tool | bytes | KL divergence | 99.9 % | same top-1 | seconds, peak |")
    print("|---|---|---|---|---|---|---|---|")
    for type_, text, tool, _, found in bench.rows:
        m = found["metrics"]
        print(
            f"| {type_} | {text} | {tool} | {found['bytes']:,} | {m['kl_divergence']:.4f} ± {m['kl_divergence_error']:.4f} "
            f"| {m['kl_divergence_999']:.2f} | {100 * m['agreement']:.1f} % "
            f"| {found['made_seconds']:.0f} s, {found['made_megabytes']:.0f} MB |"
        )
    if args.cross_check:
        bench.cross_check()


if __name__ == "__main__":
    main()
