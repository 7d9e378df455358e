"""Runs the tools side by side: time, memory, medians, one table.

Nothing large is imported here: Linux counts the memory of the parent at the
moment of `exec` towards the peak of the child.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
FEWBIT = BENCH.parent / "target" / "release" / "fewbit"


class Run:
    """One finished child process."""

    def __init__(self, command):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            start = time.perf_counter()
            child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            _, status, usage = os.wait4(child.pid, 0)
            self.seconds = time.perf_counter() - start
            child.returncode = os.waitstatus_to_exitcode(status)
            self.peak_mb = usage.ru_maxrss * 1024 / 1e6
            out.seek(0), err.seek(0)
            self.output, errors = out.read().decode(), err.read().decode(errors="replace")
        if child.returncode != 0:
            sys.exit(f"{' '.join(child.args)}\nended with {child.returncode}:\n{errors or self.output}")


def interleave(commands, rounds, outputs=None):
    """`{name: [Run]}`: A B A B ..., so that a slow minute hits all alike.

    `outputs` names the file that a command writes; it is gone before each run.
    """
    runs = {name: [] for name in commands}
    for index in range(rounds):
        for name, command in commands.items():
            if sys.stderr.isatty():
                print(f"\rround {index + 1} of {rounds}: {name}\x1b[K", end="", file=sys.stderr, flush=True)
            if outputs:
                outputs[name].unlink(missing_ok=True)
            runs[name].append(Run(command))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return runs


def spread(values, digits=2):
    """The median, and the least and greatest in brackets."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratio(values, reference):
    """Median against median; below 1 is less than the reference."""
    return f"{statistics.median(values) / statistics.median(reference):.2f}"


def table(header, rows):
    """A Markdown table with aligned columns."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print("\n".join(lines))


def fewbit_binary(path):
    if not path.is_file():
        sys.exit(f"{path} does not exist: run `cargo build --release`, name it with --fewbit, or give --peer-only")
    return path.resolve()
