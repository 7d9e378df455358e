"""ONNX Runtime's latency at batch 1; see latency.py.

    peer_latency.py MODEL THREADS SECONDS [precise] [callers=N]

With several callers, each calls again as soon as it has its answer.
"""

import json
import sys
import threading
import time

import numpy as np
import onnxruntime
from peer import WARM_UP, latencies, measure, summary

KINDS = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_,
}


def feed(session):
    """Normal noise for floats, ones for the rest; unknown extents are 1."""
    rng, inputs = np.random.default_rng(0), {}
    for value in session.get_inputs():
        shape = [extent if isinstance(extent, int) else 1 for extent in value.shape]
        kind = KINDS[value.type]
        floating = np.issubdtype(kind, np.floating)
        inputs[value.name] = (rng.standard_normal(shape) if floating else np.ones(shape)).astype(kind)
    return inputs


def load(call, seconds, callers):
    """Latencies of all callers together."""
    times, end = [], time.perf_counter() + seconds
    workers = [threading.Thread(target=lambda: times.extend(latencies(call, end, 1))) for _ in range(callers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return times


def main():
    model, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if "precise" in sys.argv[4:]:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = feed(session)
    callers = [int(word.removeprefix("callers=")) for word in sys.argv[4:] if word.startswith("callers=")]

    def call():
        session.run(None, inputs)

    if not callers:
        return measure(call, seconds)
    for _ in range(WARM_UP):
        call()
    start = time.perf_counter()
    times = load(call, seconds, callers[0])
    rate = len(times) / (time.perf_counter() - start)
    print(json.dumps({**summary(times), "throughput_per_s": rate}))


if __name__ == "__main__":
    main()
