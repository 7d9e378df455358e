"""A calibrated quantization that is killed again and again ends with the bytes of one that is not.

    python bench/language_kills.py MODEL-F16.gguf --calibrate valid.txt@0..16 --type Q4_0 --kills 20

Runs the job once for the reference, its time and its peak memory; then kills it (SIGKILL) at
random moments, starting the same command again each time, and compares.
"""

import argparse
import hashlib
import os
import random
import subprocess
import time
from pathlib import Path


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibrate", required=True, metavar="TEXT@A..B")
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fewbit", default="target/release/fewbit")
    parser.add_argument("--work", type=Path, default=Path("/tmp/fewbit-kills"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    def start(out):
        line = [args.fewbit, "quantize", args.model, "-o", out, "--type", args.type, "--calibrate", args.calibrate]
        return subprocess.Popen([*line, "--quiet"], stdout=subprocess.DEVNULL)

    whole, cut = args.work / "whole.gguf", args.work / "cut.gguf"
    for path in [whole, cut]:
        path.unlink(missing_ok=True)
    begin = time.perf_counter()
    _, status, usage = os.wait4(start(whole).pid, 0)
    seconds = time.perf_counter() - begin
    assert status == 0, "the job failed"
    processor = usage.ru_utime + usage.ru_stime
    print(f"{seconds:.0f} s, {processor:.0f} s of processor time, peak memory {usage.ru_maxrss / 1e3:.0f} MB", flush=True)

    moments, kills = random.Random(args.seed), 0
    while kills < args.kills:
        job = start(cut)
        # Twice the share of the time that one kill has: the job goes on from where it was.
        try:
            job.wait(moments.uniform(0, 2 * seconds / args.kills))
            assert job.returncode == 0, "the job failed"
            assert digest(cut) == digest(whole), f"other bytes after {kills} kills"
            cut.unlink()
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
            kills += 1
            assert not cut.exists(), "a file is there before the job is done"
            print(f"killed {kills} times", flush=True)
    assert start(cut).wait() == 0, "the job failed"
    same = digest(cut) == digest(whole)
    print(f"killed {kills} times: {'the same bytes' if same else 'OTHER BYTES'}")
    left = sorted(path.name for path in args.work.iterdir() if path not in (whole, cut))
    print(f"left beside the files: {', '.join(left) or 'nothing'}")
    whole.unlink()
    cut.unlink()
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
