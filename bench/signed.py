"""Signed activations against unsigned ones, both run by fewbit.

    $(bench/oracle-env) bench/signed.py /tmp/fewbit-bench/mobilenetv2.onnx /tmp/fewbit-bench/calib64.toml

ONNX Runtime quantizes the model twice, with u8 and with s8 activations; `fewbit
bench --against` runs both in turns. A ratio above 1: signed ones are faster.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import BENCH, FEWBIT, Run, fewbit_binary, table


def main():
    parser = argparse.ArgumentParser(description="Compare signed and unsigned activations.")
    parser.add_argument("model", type=Path)
    parser.add_argument("card", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fewbit", type=Path, default=FEWBIT)
    options, rows = parser.parse_args(), []
    fewbit = fewbit_binary(options.fewbit)
    with tempfile.TemporaryDirectory() as folder:
        unsigned, signed = Path(folder) / "u8.onnx", Path(folder) / "s8.onnx"
        quantize = [sys.executable, BENCH / "peer_quantize.py", options.model]
        Run([*quantize, unsigned, options.card, "minmax"])
        Run([*quantize, signed, options.card, "minmax", "signed"])
        for threads in options.threads:
            command = [fewbit, "bench", signed, "--against", unsigned, "--threads", threads, "--seconds", options.seconds, "--json"]
            found = json.loads(Run(command).output)
            spread = f"{found['ratio']:.2f} ({found['ratio_low']:.2f} to {found['ratio_high']:.2f})"
            rows.append([options.model.name, threads, f"{found['median_ms']:.2f}", f"{found['against_median_ms']:.2f}", spread])
    table(["model", "threads", "s8 ms", "u8 ms", "u8 / s8"], rows)


if __name__ == "__main__":
    main()
