"""llama.cpp reads the GGUF files that fewbit writes, and finds the same probabilities in them.

    python bench/llama_reads.py MODEL-F16.gguf --llama LLAMA.CPP/build/bin --data test.txt@0..4

Each type is written, run by `fewbit eval --mode simulate --save-logits`, and by llama-perplexity,
which says how far (KL divergence) its own predictions are from those. What is left between the
two is how they round the inputs of products; `--mode float` leaves out how fewbit does. A
llama.cpp built with `-DGGML_BLAS=ON`, told `--no-repack`, does not round them either.
"""

import argparse
import os
import re
import subprocess
from pathlib import Path

TYPES = (
    "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S "
    "Q5_K_M Q6_K IQ4_NL IQ4_XS IQ3_S IQ3_M TQ1_0 TQ2_0 MXFP4"
).split()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama", type=Path, required=True, help="folder of llama.cpp's programs")
    parser.add_argument("--fewbit", default="target/release/fewbit")
    parser.add_argument("--data", required=True, metavar="TEXT@A..B")
    parser.add_argument("--mode", default="simulate")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--work", type=Path, default=Path("/tmp/fewbit-llama-reads"))
    parser.add_argument("--threads", default="2")
    parser.add_argument("--no-repack", action="store_true", help="llama.cpp keeps weights as they are stored")
    parser.add_argument("--most", type=float, default=0.005, help="largest KL divergence")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, LD_LIBRARY_PATH=str(args.llama))
    file, logits = args.work / "model.gguf", args.work / "predictions.logits"

    def run(*line):
        done = subprocess.run([str(a) for a in line], env=environment, text=True, errors="replace", capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"{line[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout + done.stderr

    print("| type | perplexity, fewbit | perplexity, llama.cpp | KL divergence | same top-1 |\n|---|---|---|---|---|")
    far = []
    for type_ in args.types:
        flags = ["--threads", args.threads, "--quiet", "--force"]
        run(args.fewbit, "quantize", args.model, "-o", file, "--type", type_, *flags)
        scored = ["--data", args.data, "--mode", args.mode, "--save-logits", logits]
        run(args.fewbit, "eval", file, *scored, *flags)
        program = args.llama / "llama-perplexity"
        text = args.data.split("@")[0]
        flags = ["-f", text, "-t", args.threads, "--kl-divergence-base", logits, "--kl-divergence"]
        flags += ["--no-repack"] * args.no_repack
        said = run(program, "-m", file, *flags)

        def number(label):
            return re.search(label + r"\s*:\s+(-?[\d.]+)", said)[1]

        divergence = float(number("Mean +KLD"))
        names = [r"Mean PPL\(base\)", r"Mean PPL\(Q\)", "Same top p"]
        ours, theirs, same = [number(name) for name in names]
        print(f"| {type_} | {ours} | {theirs} | {divergence:.5f} | {same} % |", flush=True)
        if divergence > args.most:
            far.append(type_)
    file.unlink()
    logits.unlink()
    if far:
        raise SystemExit(f"further than {args.most}: {', '.join(far)}")


if __name__ == "__main__":
    main()
